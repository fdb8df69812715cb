import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Type, type TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import { memoryBroker, type Broker, type HistoryEntry, type Position } from '../../lib/index.ts'
import { CloseCode, envelopes, ErrorCode } from '../../lib/protocol/index.ts'
import { Client, start } from '../support/server.ts'
import { blocksOf, codeOf, readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('PROTOCOL.md')
const blocks = blocksOf(document)

const schemas: Record<string, TSchema> = {
  'example: request': envelopes.request,
  'example: reply': envelopes.reply,
  'example: error': envelopes.error,
  'example: subscription-update': envelopes.subscriptionUpdate,
  'example: subscription-batch': envelopes.subscriptionBatch,
  'example: resync': envelopes.resync,
  'example: incoming': envelopes.incoming
}

/** The server that the document supposes. */
function addHandlers (app: FastifyInstance): void {
  let finish: (() => void)[] = []
  const Numbers = Type.Object({ a: Type.Number(), b: Type.Number() })
  const Todo = Type.Object({ id: Type.Integer(), title: Type.String() })

  app.rohrpost
    .handle('add', { data: Numbers }, ({ data }) => ({ sum: data.a + data.b }))
    .handle('find', () => { throw Object.assign(new Error('There is no such todo.'), { statusCode: 404 }) })
    .handle('fail', () => { throw new Error('not meant for the client') })
    .handle('wait', { parallel: true }, () => new Promise<void>((resolve) => { finish.push(resolve) }))
    .handle('finish', () => {
      for (const resolve of finish) resolve()
      finish = []
    })
    .handle('rename', { data: Todo }, ({ data }) => {
      const group = `todo-${data.id}`
      app.rohrpost.sendToGroup(group, {
        id: 812,
        type: 'subscription-update',
        data: { group, type: 'update', object: { ...data, updated_fields: ['title'] } }
      })
    })
    .handle('check', { data: Type.Object({ id: Type.Integer(), steps: Type.Array(Type.Integer()) }) }, ({ data }) => {
      const group = `todo-${data.id}`
      const changes = data.steps.map((id) => ({ type: 'update', object: { id, done: true } }))
      app.rohrpost.sendToGroup(group, { id: 812, type: 'subscription-update', data: { group, type: 'batch', changes } })
    })
    .group('todo', { authorize: () => true })
    .group('audit', { authorize: () => false })
}

/** A broker with history, whose epochs are all the one that the document names. */
function documentedBroker (): Broker {
  const memory = memoryBroker({ history: { size: 100, ttl: 60_000 } })
  const named = (position: Position) => ({ ...position, epoch: 'k3f' })
  let epoch = ''
  return {
    ...memory,
    open: (receiver) => memory.open({ ...receiver, deliver: (group, payload, position) => receiver.deliver(group, payload, position && named(position)) }),
    subscribe (group) {
      const top = memory.subscribe(group) as Position
      epoch = top.epoch
      return named(top)
    },
    history (group, after, limit) {
      const entries = memory.history(group, { ...after, epoch }, limit) as HistoryEntry[] | undefined
      return entries?.map(({ payload, position }) => ({ payload, position: named(position) }))
    }
  }
}

/** Holds a frame to a documented one; the order of fields counts, and `…` at the end of a documented text stands for any text. */
function assertFrame (actual: string, documented: string): void {
  const cut = /^(.*)…("(?:,.*)?\})$/s.exec(documented)
  if (cut === null) {
    assert.equal(actual, documented)
  } else {
    const [, before = '', after = ''] = cut
    assert.ok(actual.startsWith(before) && actual.endsWith(after), `${actual} is not ${documented}`)
  }
}

async function nothingElse (client: Client): Promise<void> {
  assert.deepEqual(await client.untilPong(), [])
}

suite('the examples', () => {
  const examples = blocks.filter(({ language }) => language === 'json')

  test('are there', () => {
    assert.ok(examples.length >= 10)
  })

  for (const [index, { line, marks, text }] of examples.entries()) {
    const [mark = 'without a mark'] = marks

    test(`line ${line}, ${mark}, fits the schema`, () => {
      const schema = schemas[mark]

      assert.ok(schema, `one of '${Object.keys(schemas).join("', '")}' in a comment before it`)
      assert.deepEqual([...Value.Errors(schema, JSON.parse(text))], [])
    })

    if (mark !== 'example: request') continue
    test(`line ${line} is answered as the document says`, async (t) => {
      const server = await start(t, { broker: documentedBroker(), with: addHandlers })
      const client = await server.connect()
      const answer = examples[index + 1]
      assert.ok(answer && ['example: reply', 'example: error'].includes(answer.marks[0] ?? ''), 'a reply or an error behind it')

      client.send(text)

      assertFrame(await client.nextText(), JSON.stringify(JSON.parse(answer.text)))
      await nothingElse(client)
    })
  }

  test('a frame of each kind that is none of its kind fails its schema', () => {
    for (const [mark, schema] of Object.entries(schemas)) assert.equal(Value.Check(schema, { id: [] }), false, mark)
  })
})

suite('malformed input', () => {
  const inWords: Record<string, string | Buffer> = {
    'an empty text message': '',
    'a binary message, whatever is in it': Buffer.from('{"id":1,"type":"ping"}')
  }
  const rows = tableOf(document, 'What is answered to malformed input')

  test('has a row for every rule', () => {
    assert.ok(rows.length >= 13)
  })

  for (const [sent = '', answer] of rows) {
    test(`${sent} is answered as the document says`, async (t) => {
      const server = await start(t, { broker: documentedBroker(), with: addHandlers })
      const client = await server.connect()
      const frame = codeOf(sent) ?? inWords[sent]
      assert.ok(frame !== undefined, 'code, or words that the test knows')

      client.socket.send(frame)

      assertFrame(await client.nextText(), codeOf(answer) ?? '')
      await nothingElse(client)
    })
  }

  test('the rows stand in the order of the checks', async (t) => {
    const server = await start(t, { broker: documentedBroker(), with: addHandlers })
    const client = await server.connect()

    for (const [sent, code] of [
      [{}, "Missing required field 'type'."],
      [{ type: 5 }, "Missing required field 'id'."],
      [{ type: 5, id: [] }, "Expected a string as 'type', got the number 5."],
      [{ type: 'nothing', id: null, data: 1 }, "Unknown message type 'nothing'."]
    ] as const) {
      const { error } = await client.ask(sent)
      assert.equal(error, code)
    }
  })

  test('a server that is about to stop answers as the document says', async (t) => {
    const server = await start(t, { broker: documentedBroker(), with: addHandlers })
    const client = await server.connect()
    client.send({ id: 1, type: 'wait' })
    await nothingElse(client)

    const drained = server.app.rohrpost.drain()

    assert.deepEqual(await client.ask({ id: 2, type: 'add' }), {
      id: 2, type: 'add', error: 'The server is about to restart.', code: 'unavailable', retry: true
    })
    assert.deepEqual(await client.ask({ id: 3, type: 'ping' }), { id: 3, type: 'pong' })
    client.socket.terminate()
    await drained
  })
})

suite('the exchanges', () => {
  const exchanges = blocks.filter(({ language }) => language !== 'json' && language !== 'ts')

  test('are there', () => {
    assert.ok(exchanges.length >= 4)
  })

  for (const { line, marks, text } of exchanges) {
    test(`line ${line} happens as the document says`, async (t) => {
      assert.deepEqual(marks, ['exchange'], 'a comment before it')
      const server = await start(t, { broker: documentedBroker(), with: addHandlers })
      const clients = new Map<string, Client>()

      for (const step of text.split('\n').filter((step) => step !== '')) {
        const { who = 'A', arrow, frame } = /^(?:(?<who>[A-Z]) )?(?<arrow>->|<-|-x) ?(?<frame>.*)$/.exec(step)?.groups ?? assert.fail(`what is '${step}'?`)
        const client = clients.get(who) ?? await server.connect()
        clients.set(who, client)

        if (arrow === '->') {
          client.send(frame ?? '')
        } else if (arrow === '-x') {
          client.socket.terminate()
          clients.delete(who)
        } else assertFrame(await client.nextText(), frame ?? '')
      }
      for (const client of clients.values()) await nothingElse(client)
    })
  }
})

suite('the codes', () => {
  test('of errors are those of the library', () => {
    assert.deepEqual(listed('Error codes').sort(), Object.values(ErrorCode).sort())
  })

  test('of closes are those of the library', () => {
    assert.deepEqual(listed('Close codes').sort(), Object.values(CloseCode).sort())
  })
})

suite('the close codes', () => {
  const ways: Record<number, (t: TestContext) => Promise<Client>> = {
    async 1000 (t) {
      const server = await start(t, { with: (app) => app.rohrpost.handle('bye', (_message, connection) => connection.close()) })
      const client = await server.connect()
      client.send({ id: 1, type: 'bye' })
      return client
    },
    async 1009 (t) {
      const server = await start(t, { maxPayload: 100 })
      const client = await server.connect()
      client.send({ id: 1, type: 'ping', data: 'x'.repeat(100) })
      return client
    },
    async 1011 (t) {
      const server = await start(t, { onConnect () { throw new TypeError('a bug') } })
      return server.connect()
    },
    async 1013 (t) {
      const server = await start(t, { onConnect () { throw Object.assign(new Error('the database is away'), { retry: true }) } })
      return server.connect()
    },
    async 1012 (t) {
      const server = await start(t)
      const client = await server.connect()
      await server.app.rohrpost.drain()
      return client
    },
    async 4401 (t) {
      const server = await start(t, { with: (app) => app.rohrpost.handle('sign-out', (_message, connection) => connection.close(4401, 'signed out')) })
      const client = await server.connect()
      client.send({ id: 1, type: 'sign-out' })
      return client
    },
    async 4403 (t) {
      const server = await start(t, { onConnect () { throw new Error('not today') } })
      return server.connect()
    },
    async 4408 (t) {
      const server = await start(t, { maxUnsent: 1, onConnect: (connection) => connection.join('a') })
      const client = await server.connect()
      client.socket.pause()
      // more than the buffers on the way take, and one more message
      await server.app.rohrpost.sendToGroup('a', { data: 'x'.repeat(25_000_000) })
      await setImmediate()
      await server.app.rohrpost.sendToGroup('a', { data: 'y' })
      await setImmediate()
      client.socket.resume()
      return client
    },
    async 1002 (t) {
      const server = await start(t)
      const socket = new WebSocket(server.http.replace('http', 'ws') + '/ws/rohrpost')
      t.after(() => socket.terminate())
      // a text frame with the letter A, not masked
      socket.once('upgrade', (response) => response.socket.write(Buffer.from([0x81, 0x01, 0x41])))
      return new Client(socket)
    },
    async 1008 (t) {
      const server = await start(t)
      const client = await server.connect()
      for (let i = 0; i < 20_000; i++) client.socket.send('x', { fin: false })
      return client
    },
    async 1007 (t) {
      const server = await start(t)
      const client = await server.connect()
      client.socket.send(Buffer.from([0xff]), { binary: false })
      return client
    }
  }
  const documented = [...listed('Close codes'), ...listed('Violations of WebSocket')]

  for (const code of documented) {
    test(`${code} comes when the document says`, async (t) => {
      const close = ways[Number(code)]
      assert.ok(close, 'a way to bring it about')

      const client = await close(t)

      assert.equal((await client.closed).code, code)
    })
  }
})

/** The first column of a table: the code in it, or the number. */
function listed (heading: string): (string | number)[] {
  return tableOf(document, heading).map(([cell = '']) => codeOf(cell) ?? Number(cell))
}
