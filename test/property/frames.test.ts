/**
 * Violations of the WebSocket protocol close their connection with the code of RFC 6455, section 7.4.1, and no other
 * connection.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { check } from './support/check.ts'
import { fragments, frame, Opcode } from './support/frames.ts'
import { ask, start } from './support/server.ts'

const { CONTINUATION, TEXT, BINARY, CLOSE, PING } = Opcode
const MAX = 1000
const hex = (bytes: string) => Buffer.from(bytes, 'hex')

const violations: [name: string, code: number, ...frames: Buffer[]][] = [
  ['a frame without mask', 1002, frame('{}', { masked: false })],
  ['the first reserved bit', 1002, frame('{}', { rsv: 4 })],
  ['the second reserved bit', 1002, frame('{}', { rsv: 2 })],
  ['the third reserved bit', 1002, frame('{}', { rsv: 1 })],
  ['a reserved opcode for data', 1002, frame('{}', { opcode: 3 })],
  ['a reserved opcode for control', 1002, frame('', { opcode: 11 })],
  ['a continuation of nothing', 1002, frame('{}', { opcode: CONTINUATION })],
  ['a message inside a fragmented one', 1002, frame('{', { fin: false }), frame('}')],
  ['a fragmented control frame', 1002, frame('', { opcode: PING, fin: false })],
  ['a control frame of 126 bytes', 1002, frame('x'.repeat(126), { opcode: PING })],
  ['a close frame with half a code', 1002, frame(hex('03'), { opcode: CLOSE })],
  ['a close frame with a code that is never sent', 1002, frame(hex('03ed'), { opcode: CLOSE })],
  ['a close frame with a code of nobody', 1002, frame(hex('0001'), { opcode: CLOSE })],
  ['a close frame whose reason is no UTF-8', 1007, frame(hex('03e8ff'), { opcode: CLOSE })],
  ['text with a byte that UTF-8 never has', 1007, frame(hex('22ff22'))],
  ['text with an overlong NUL', 1007, frame(hex('22c08022'))],
  ['text with a surrogate in UTF-8', 1007, frame(hex('22eda08022'))],
  ['text with a code point beyond Unicode', 1007, frame(hex('22f490808022'))],
  ['text that ends within a character', 1007, frame(hex('22e282'))],
  ['fragmented text that is no UTF-8', 1007, ...fragments(hex('22e228a122'), 2)],
  ['a message over the limit', 1009, frame('x'.repeat(MAX + 1))],
  ['a binary message over the limit', 1009, frame(Buffer.alloc(MAX + 1), { opcode: BINARY })],
  ['the announcement of a message over the limit', 1009, frame('', { length: BigInt(MAX + 1) })],
  ['the announcement of more bytes than there are', 1009, frame('', { length: 2n ** 63n })],
  ['fragments that are over the limit together', 1009, ...fragments('x'.repeat(MAX + 1), 100)]
]

for (const [name, code, ...frames] of violations) {
  test(`closes with ${code} for ${name}, after the answers to earlier messages`, async (t) => {
    const server = await start(t, { maxPayload: MAX })
    const witness = await server.connect()
    const client = await server.raw()

    client.write(frame('{"id":1,"type":"ping"}'), ...frames, frame('{"id":2,"type":"ping"}'))

    assert.deepEqual(await client.end(), { code, messages: ['{"id":1,"type":"pong"}'] })
    assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
  })
}

test('answers a message that is exactly as large as the limit', async (t) => {
  const server = await start(t, { maxPayload: MAX })
  const client = await server.raw()
  const message = '{"id":1,"type":"ping"}'.padEnd(MAX)

  client.write(...fragments(message, 300))

  assert.deepEqual(await client.take(1), ['{"id":1,"type":"pong"}'])
})

test('accepts fragments that split a UTF-8 character', async (t) => {
  const server = await start(t)
  const client = await server.raw()

  client.write(...fragments('{"id":"€😀","type":"ping"}', 1))

  assert.deepEqual(await client.take(1), ['{"id":"€😀","type":"pong"}'])
})

test('survives any bytes on the socket', async (t) => {
  const server = await start(t)
  const witness = await server.connect()
  const header = fc.record({
    opcode: fc.constantFrom(CONTINUATION, TEXT, BINARY, 3, 7, CLOSE, PING, 10, 15),
    fin: fc.boolean(),
    masked: fc.boolean(),
    rsv: fc.constantFrom(0, 0, 0, 1, 4),
    length: fc.option(fc.constantFrom(0n, 1n, 125n, 126n, 65_536n, 2n ** 20n + 1n, 2n ** 62n), { nil: undefined })
  }, { requiredKeys: ['opcode', 'fin'] })
  const written = fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc.tuple(fc.uint8Array({ maxLength: 60 }), header)
      .map(([bytes, { length, ...options }]) => frame(bytes, { ...options, ...(length !== undefined && { length }) }))
  )

  await check(fc.asyncProperty(fc.array(written, { minLength: 1, maxLength: 6 }), async (chunks) => {
    const client = await server.raw()

    client.write(...chunks)
    client.half()

    const { code } = await client.end()
    const mayBeClosing = Buffer.concat(chunks).includes(0x80 | CLOSE)
    assert.ok([1002, 1006, 1007, 1009].includes(code) || mayBeClosing, `closed with ${code}`)
    assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
  }), { numRuns: 500, endOnFailure: true })
  assert.equal(server.app.rohrpost.connections.size, 1)
})
