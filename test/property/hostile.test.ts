/**
 * Hostile messages: each is answered once, by the rules, or closes its connection with the right code, and the server
 * survives.
 */
import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import fc from 'fast-check'
import Fastify from 'fastify'
import rohrpost from '../../lib/index.ts'
import { anyBytes, anyText } from './support/arbitraries.ts'
import { check } from './support/check.ts'
import { fragments, frame, Opcode } from './support/frames.ts'
import { answerTo, assertAnswer, EMPTY, type Answer } from './support/model.ts'
import { RawSocket } from './support/raw-socket.ts'
import { ask, start } from './support/server.ts'

const PING = '{"id":"still there?","type":"ping"}'
const PONG = '{"id":"still there?","type":"pong"}'

/** Asserts one answer to each message, in order. */
function assertAnswers (answers: readonly string[], messages: readonly { shown: string, answer: Answer }[]): void {
  for (const [i, { shown, answer }] of messages.entries()) assertAnswer(answers[i], answer, shown)
  assert.equal(answers.length, messages.length)
}

test('answers each of 10,000 random messages by the rules of the protocol, exactly once', async (t) => {
  const server = await start(t)

  await check(fc.asyncProperty(fc.array(anyText, { minLength: 100, maxLength: 100 }), async (texts) => {
    const client = await server.raw()
    // lone surrogates become U+FFFD on the way to UTF-8
    const sent = texts.map((text) => text.toWellFormed())

    const answers = await client.exchange(sent.map((text) => frame(text)))

    assertAnswers(answers, sent.map((text) => ({ shown: text, answer: answerTo(text) })))
    client.destroy()
  }), { numRuns: 100, endOnFailure: true })
})

test('answers each of 10,000 random byte strings, in frames of any kind, or closes with 1007 for invalid UTF-8', async (t) => {
  const server = await start(t)
  const witness = await server.connect()
  const message = fc.record({
    bytes: anyBytes,
    opcode: fc.constantFrom(Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY),
    size: fc.integer({ min: 1, max: 40 })
  })

  await check(fc.asyncProperty(fc.array(message, { minLength: 100, maxLength: 100 }), async (messages) => {
    let rest = messages
    while (rest.length > 0) {
      const client = await server.raw()
      const at = rest.findIndex(({ bytes, opcode }) => opcode === Opcode.TEXT && !isUtf8(bytes))
      const [whole, broken] = at === -1 ? [rest] : [rest.slice(0, at), rest[at]]
      const expected = whole.map(({ bytes, opcode }) => ({
        shown: bytes.toString(),
        answer: opcode === Opcode.BINARY ? EMPTY : answerTo(bytes.toString())
      }))
      rest = rest.slice(whole.length + 1)

      const frames = whole.flatMap(({ bytes, opcode, size }) => fragments(bytes, size, opcode))
      if (broken === undefined) {
        assertAnswers(await client.exchange(frames), expected)
        client.destroy()
        continue
      }
      client.write(...frames, ...fragments(broken.bytes, broken.size))
      const { code, messages } = await client.end()
      assert.equal(code, 1007, `for the text ${broken.bytes.toString('hex')}`)
      assertAnswers(messages, expected)
    }
  }), { numRuns: 100, endOnFailure: true })

  assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
})

function isUtf8 (bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}

test('answers every kind of malformed message', async (t) => {
  const server = await start(t)
  const client = await server.raw()
  const malformed: [text: string, answer: Answer][] = [
    ['', { error: 'Received empty message.', code: 'empty_message' }],
    [' ', { error: /^Could not decode JSON message\. Error: ./, code: 'invalid_json' }],
    ['{"id":1,"type":"ping",}', { error: /^Could not decode JSON message\. Error: ./, code: 'invalid_json' }],
    ['\ufeff{"id":1,"type":"ping"}', { error: /^Could not decode JSON message\. Error: ./, code: 'invalid_json' }],
    ['[{"id":1,"type":"ping"}]', { error: 'Expected a JSON object as message.', code: 'invalid_envelope' }],
    ['null', { error: 'Expected a JSON object as message.', code: 'invalid_envelope' }],
    ['{}', { error: "Missing required field 'type'.", code: 'invalid_envelope' }],
    ['{"id":0}', { id: 0, error: "Missing required field 'type'.", code: 'invalid_envelope' }],
    ['{"id":[1]}', { error: "Missing required field 'type'.", code: 'invalid_envelope' }],
    ['{"type":"nope"}', { error: "Missing required field 'id'.", code: 'invalid_envelope' }],
    ['{"__proto__":{"id":1,"type":"ping"}}', { error: "Missing required field 'type'.", code: 'invalid_envelope' }],
    ['{"id":"","type":null}', { id: '', error: /'type'/, code: 'invalid_envelope' }],
    ['{"id":{},"type":{}}', { error: /'type'/, code: 'invalid_envelope' }],
    ['{"id":{},"type":"ping"}', { error: /'id'/, code: 'invalid_envelope' }],
    ['{"id":9007199254740993,"type":"ping"}', { error: /'id'/, code: 'invalid_envelope' }],
    ['{"id":1e400,"type":"ping"}', { error: /'id'/, code: 'invalid_envelope' }],
    ['{"id":false,"type":"nope"}', { id: false, type: 'nope', error: "Unknown message type 'nope'.", code: 'unknown_type' }],
    ['{"id":null,"type":"nope"}', { type: 'nope', error: "Unknown message type 'nope'.", code: 'unknown_type' }],
    ['{"id":1,"type":"point","data":{"x":"1"}}', { id: 1, type: 'point', error: /^Invalid data: .*'?\/x'?/, code: 'invalid_data' }],
    ['{"id":1,"type":"subscribe"}', { id: 1, type: 'subscribe', error: /^Invalid data: ./, code: 'invalid_data' }]
  ]

  const answers = await client.exchange(malformed.map(([text]) => frame(text)))

  assertAnswers(answers, malformed.map(([shown, answer]) => ({ shown, answer })))
})

test('treats keys of Object.prototype like other keys, in requests and in replies', async (t) => {
  const server = await start(t)
  const client = await server.raw()
  const data = '{"__proto__":{"x":1},"constructor":{"prototype":{"y":1}},"toString":null,"hasOwnProperty":0}'

  const echoed = await client.ask(`{"__proto__":{"type":"ping"},"id":1,"type":"echo","data":${data}}`)
  const refused = await client.ask('{"id":2,"type":"point","data":{"__proto__":{"x":1}}}')

  assert.equal(echoed, `{"id":1,"type":"echo","data":${data}}`)
  assertAnswer(refused, { id: 2, type: 'point', error: /^Invalid data: ./, code: 'invalid_data' }, 'an inherited x')
  assert.equal(Object.hasOwn(Object.prototype, 'x') || Object.hasOwn(Object.prototype, 'y'), false)
})

test('uses the last value of a repeated key', async (t) => {
  const server = await start(t)
  const client = await server.raw()

  const answer = await client.ask('{"id":1,"id":{},"type":"nope","type":"echo","id":2,"data":"first","data":"last"}')

  assert.equal(answer, '{"id":2,"type":"echo","data":"last"}')
})

test('returns lone surrogates unchanged', async (t) => {
  const server = await start(t)
  const client = await server.raw()

  const answer = await client.ask('{"id":"\\ud800","type":"echo","data":["\\udc00\\ud800","\\ud83d\\ude00"]}')

  assert.deepEqual(JSON.parse(answer), { id: '\ud800', type: 'echo', data: ['\udc00\ud800', '😀'] })
})

for (const [name, open, close] of [['arrays', '[', ']'], ['objects', '{"a":', '}']] as const) {
  test(`answers a message of 100,000 nested ${name}`, async (t) => {
    const server = await start(t)
    const client = await server.raw()
    const nested = `${open.repeat(100_000)}0${close.repeat(100_000)}`

    const ignored = await client.ask(`{"id":1,"type":"ping","x":${nested}}`)
    const unclosed = await client.ask(`{"id":2,"type":"ping","data":${open.repeat(100_000)}`)
    const checked = await client.ask(`{"id":3,"type":"point","data":{"x":${nested}}}`)
    const envelope = await client.ask(`{"id":${nested},"type":"ping"}`)
    const echoed = JSON.parse(await client.ask(`{"id":4,"type":"echo","data":${nested}}`)) as Answer

    assert.equal(ignored, '{"id":1,"type":"pong"}')
    assertAnswer(unclosed, { error: /^Could not decode JSON message\. Error: ./, code: 'invalid_json' }, 'unclosed')
    assertAnswer(checked, { id: 3, type: 'point', error: /^Invalid data: ./, code: 'invalid_data' }, 'a nested x')
    assertAnswer(envelope, { error: /'id'/, code: 'invalid_envelope' }, 'a nested id')
    assert.deepEqual({ id: echoed.id, type: echoed.type }, { id: 4, type: 'echo' })
    assert.equal(await client.ask(PING), PONG)
  })
}

test('returns an id of nearly maxPayload bytes, and rejects a number of as many digits', async (t) => {
  const server = await start(t)
  const client = await server.raw()
  const id = 'x'.repeat(2 ** 20 - '{"id":"","type":"ping"}'.length)

  const echoed = await client.ask(`{"id":"${id}","type":"ping"}`)
  const refused = await client.ask(`{"id":${'9'.repeat(1_000_000)},"type":"ping"}`)

  assert.equal(echoed, `{"id":"${id}","type":"pong"}`)
  assertAnswer(refused, { error: /'id'/, code: 'invalid_envelope' }, 'a million digits')
})

test('answers 10,000 messages of one write, in order', async (t) => {
  const server = await start(t)
  const client = await server.raw()
  const ids = Array.from({ length: 10_000 }, (_, id) => id)

  const answers = await client.exchange(ids.map((id) => frame(`{"id":${id},"type":"echo"}`)))

  assert.deepEqual(answers, ids.map((id) => `{"id":${id},"type":"echo"}`))
})

test('answers messages that arrive byte by byte, in fragments, with pings between them', async (t) => {
  const server = await start(t)
  const client = await server.raw()
  const [first = Buffer.alloc(0), ...others] = fragments('{"id":1,"type":"echo","data":"€"}', 3)

  await client.dribble(Buffer.concat([first, frame('', { opcode: Opcode.PING }), ...others, frame(PING)]))

  assert.deepEqual(await client.take(2), ['{"id":1,"type":"echo","data":"€"}', PONG])
})

test('supports handlers and group types with the names of JavaScript built-ins', async (t) => {
  const server = await start(t)
  const names = ['constructor', 'toString', 'hasOwnProperty', 'valueOf']
  const client = await server.raw()
  assert.equal(await client.ask('{"id":0,"type":"constructor"}'), '{"id":0,"type":"constructor","error":"Unknown message type \'constructor\'.","code":"unknown_type"}')

  for (const name of [...names, '__proto__', 'prototype']) server.app.rohrpost.handle(name, { data: Type.Object({ [name]: Type.Literal(1) }) }, () => name)
  for (const name of names) server.app.rohrpost.group(name, { authorize: () => true })

  for (const name of [...names, '__proto__', 'prototype']) {
    assert.equal(await client.ask(`{"id":1,"type":"${name}","data":{"${name}":1}}`), `{"id":1,"type":"${name}","data":"${name}"}`)
    assertAnswer(await client.ask(`{"id":1,"type":"${name}","data":{}}`), { id: 1, type: name, error: /^Invalid data: /, code: 'invalid_data' }, name)
    assert.ok(Object.hasOwn(server.app.rohrpost.schemas.handlers, name))
  }
  for (const name of names) assert.equal(await client.ask(`{"id":1,"type":"subscribe","data":{"type":"${name}","id":1}}`), `{"id":1,"type":"subscribe","data":{"group":"${name}-1"}}`)
  assert.deepEqual(JSON.parse(await client.ask('{"id":1,"type":"subscribe","data":{"type":"__proto__","id":1}}')), {
    id: 1, type: 'subscribe', error: 'ACCESS_DENIED', code: 'access_denied'
  })
})

test('rejects names that resemble a group name', async (t) => {
  const server = await start(t)
  server.app.rohrpost
    .group('todo', { authorize: () => true })
    .group('page', { authorize: () => true, id: Type.String() })
    .group('secret', { authorize: () => false, id: false })
  const client = await server.raw()
  const UUID = '0f8fad5b-d9cb-469f-a165-70867728950e'

  for (const [type, id] of [
    ['todo-5', undefined], ['todo', '05'], ['todo', '5\n'], ['todo', `${UUID}\n`], ['todo', `\n${UUID}`], ['todo', '５'], ['todo', -1], ['todo', 1.5], ['todo', [5]],
    ['todo', { toString: 5 }], ['todo', true], ['todo', null], ['todo', undefined],
    ['tоdo', 5], ['todo\u0000', 5], ['todo ', 5], ['TODO', 5], ['todo\n', 5], ['', 5], ['user:7', undefined],
    ['page', 'x'.repeat(196)], ['page', '\ud800'],
    ['secret', undefined], ['secret', ''], ['rohrpost disconnect', undefined]
  ]) {
    const { error } = JSON.parse(await client.ask(JSON.stringify({ id: 1, type: 'subscribe', data: { type, id } }))) as Answer
    assert.equal(typeof error, 'string', JSON.stringify([type, id]))
  }

  assert.deepEqual([...server.app.rohrpost.connections].flatMap(({ groups }) => [...groups]), [])

  // texts that a schema allows are encoded: none of them is the name of another group, or contains a line break
  const names = []
  for (const id of ['a b', 'a\nb', 'ä', '\u200b', '\u202e5', 'a%20b', '5:6']) {
    names.push(JSON.parse(await client.ask(JSON.stringify({ id: 1, type: 'subscribe', data: { type: 'page', id } }))).data.group)
  }
  assert.deepEqual(names, ['page-a%20b', 'page-a%0Ab', 'page-%C3%A4', 'page-%E2%80%8B', 'page-%E2%80%AE5', 'page-a%2520b', 'page-5%3A6'])
})

test('logs text of clients in one line each, and truncates it', async (t) => {
  const evil = 'x\n{"level":60,"msg":"forged"}\r\n\u001b[2J\u0000\u2028'
  const lines: string[] = []
  const app = Fastify({ logger: { stream: { write: (line: string) => { lines.push(line) } } } })
  t.after(() => app.close())
  const left = Promise.withResolvers<void>()
  await app.register(rohrpost, {
    onDisconnect (connection, code, reason) {
      connection.log.info({ code, reason }, 'a client left')
      left.resolve()
    }
  })
  app.rohrpost.handle(evil, (message) => {
    message.reply()
    message.reply()
    throw new Error(String(message.data))
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  await app.inject({ url: '/ws/rohrpost', headers: { origin: evil } })
  const client = await RawSocket.open(port)
  t.after(() => client.destroy())

  await client.exchange([frame(JSON.stringify({ id: evil + 'y'.repeat(900_000), type: evil, data: evil }))])
  client.write(frame(Buffer.concat([Buffer.from([0x0f, 0xa0]), Buffer.from('a\nb\u001b[2J')]), { opcode: Opcode.CLOSE }))
  await left.promise

  for (const line of lines) {
    // eslint-disable-next-line no-control-regex
    assert.doesNotMatch(line, /[\u0000-\u001f](?!$)/)
    assert.equal(typeof JSON.parse(line), 'object')
    assert.ok(line.length < 10_000, `${line.length} characters`)
  }
  const messages = lines.map((line) => (JSON.parse(line) as { msg: string }).msg)
  assert.ok(messages.includes('a handler failed') && messages.includes('a second reply to one request was not sent') && messages.includes('a client left'))
  assert.ok(messages.some((text) => text.startsWith('refused an upgrade')))
  assert.equal(messages.includes('forged'), false)
})
