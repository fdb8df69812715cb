import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { memoryBroker, type OutgoingMessage, type RohrpostConnection } from '../../lib/index.ts'
import { start } from '../support/server.ts'

/** A client and its connection on the server. */
async function pair (t: TestContext) {
  const opened = Promise.withResolvers<RohrpostConnection>()
  const server = await start(t, { onConnect: opened.resolve })
  const client = await server.connect()
  return { ...server, client, connection: await opened.promise }
}

test('answers invalid envelopes with an error, and with the id if it can be read', async (t) => {
  const { client } = await pair(t)

  assert.deepEqual(await client.ask(''), { error: 'Received empty message.', code: 'empty_message' })
  client.socket.send(Buffer.from('{"id":1,"type":"ping"}'), { binary: true })
  assert.deepEqual(await client.next(), { error: 'Received empty message.', code: 'empty_message' })
  assert.equal(await (client.send('{"id":0}'), client.nextText()), '{"id":0,"error":"Missing required field \'type\'.","code":"invalid_envelope"}')
})

test('sends keys in the order id, type, error, data, then all others', async (t) => {
  const { client, connection } = await pair(t)

  connection.send({ code: 'c', data: 0, error: 'e', type: 't', id: 0 })
  connection.sendSuccess({ data: [], type: 't', id: '' })
  connection.sendError({ code: 'c', data: null, error: 'e', type: 't', id: false })
  connection.sendError({ error: 'e' })

  assert.equal(await client.nextText(), '{"id":0,"type":"t","error":"e","data":0,"code":"c"}')
  assert.equal(await client.nextText(), '{"id":"","type":"t","data":[]}')
  assert.equal(await client.nextText(), '{"id":false,"type":"t","error":"e","data":null,"code":"c"}')
  assert.equal(await client.nextText(), '{"error":"e"}')
})

test('omits empty fields', async (t) => {
  const { client, connection } = await pair(t)

  connection.send({ id: null, type: '', error: '', data: 1, position: undefined })

  assert.equal(await client.nextText(), '{"data":1}')
})

test("rejects empty messages and messages that can't be encoded", async (t) => {
  const { client, connection } = await pair(t)
  const wrong: [OutgoingMessage, string, RegExp][] = [
    [{}, 'RP_ERR_EMPTY_MESSAGE', /needs an id, a type, an error or data/],
    [{ id: null, type: '', error: '' }, 'RP_ERR_EMPTY_MESSAGE', /empty/],
    ['text' as never, 'RP_ERR_INVALID_MESSAGE', /value: expected an object .*, got "text"/],
    [null as never, 'RP_ERR_INVALID_MESSAGE', /got null/],
    [[] as never, 'RP_ERR_INVALID_MESSAGE', /got \[\]/],
    [{ id: {} as never }, 'RP_ERR_INVALID_MESSAGE', /this id: .*, got \{\}/],
    [{ id: 2 ** 53 }, 'RP_ERR_INVALID_MESSAGE', /got 9007199254740992/],
    [{ type: 5 as never }, 'RP_ERR_INVALID_MESSAGE', /this type: expected a string, got 5/],
    [{ error: { code: 1 } as never }, 'RP_ERR_INVALID_MESSAGE', /this error: expected a string, got \{"code":1\}/],
    [{ data: { toJSON () { throw new Error('no') } } }, 'RP_ERR_NOT_ENCODABLE', /has no JSON form \(no\)/],
    // eslint-disable-next-line no-throw-literal -- third-party code may do so
    [{ data: { toJSON () { throw 'no' } } }, 'RP_ERR_NOT_ENCODABLE', /has no JSON form \("no"\)/]
  ]
  for (const [message, code, text] of wrong) assert.throws(() => connection.send(message), { code, message: text })

  assert.throws(() => connection.sendSuccess({ id: null, type: 't' }), { code: 'RP_ERR_INVALID_MESSAGE', message: /this id/ })
  assert.throws(() => connection.sendSuccess({ type: 't' } as never), { code: 'RP_ERR_INVALID_MESSAGE', message: /this id/ })
  assert.throws(() => connection.sendSuccess({ id: 1 } as never), { code: 'RP_ERR_INVALID_MESSAGE', message: /this type/ })
  assert.throws(() => connection.sendError({ id: 1 } as never), { code: 'RP_ERR_INVALID_MESSAGE', message: /this error: expected a non-empty string, got undefined/ })
  assert.throws(() => connection.sendError({ error: '' }), { code: 'RP_ERR_INVALID_MESSAGE' })
  assert.deepEqual(await client.untilPong(), [])
})

test('sends pending messages before it closes', async (t) => {
  const { client, connection } = await pair(t)

  connection.send({ data: 'last words' })
  connection.close()
  connection.send({ data: 'too late' })

  assert.deepEqual(await client.next(), { data: 'last words' })
  assert.deepEqual(await client.closed, { code: 1000, reason: '' })
})

test('closes with a code and a reason, and rejects invalid ones', async (t) => {
  const { client, connection } = await pair(t)

  for (const code of [999, 1004, 1005, 1006, 1015, 2999, 5000, 1000.5, '1000' as never]) {
    assert.throws(() => connection.close(code), { code: 'RP_ERR_INVALID_CLOSE', message: /this code: expected 1000 to 1003, 1007 to 1014/ })
  }
  assert.throws(() => connection.close(1000, 'ä'.repeat(62)), { code: 'RP_ERR_INVALID_CLOSE', message: /this reason: expected a string of at most 123 bytes/ })
  assert.throws(() => connection.close(1000, 5 as never), { code: 'RP_ERR_INVALID_CLOSE' })
  connection.close(4001, 'x'.repeat(123))

  assert.deepEqual(await client.closed, { code: 4001, reason: 'x'.repeat(123) })
})

test('handles neither waiting nor later messages after close', async (t) => {
  const handled: unknown[] = []
  const release = Promise.withResolvers<void>()
  const server = await start(t, {
    concurrency: 1,
    maxPending: { messages: 2, bytes: 1000 },
    with: (app) => app.rohrpost
      .handle('close', async ({ id }, connection) => {
        handled.push(id)
        await release.promise
        connection.close(4401)
      })
      .handle('work', ({ id }) => { handled.push(id) })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'close' })
  for (let id = 2; id < 10; id++) client.send({ id, type: 'work' })
  client.send({ id: 'large', type: 'work', data: 'x'.repeat(900_000) })
  await server.paused()

  release.resolve()

  // the client's answer to the close is queued behind unread messages
  assert.equal((await client.closed).code, 4401)
  while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)
  assert.deepEqual(handled, [1])
})

test('ignores join after the client has disconnected', async (t) => {
  const { app, client, connection } = await pair(t)
  client.socket.terminate()
  while (app.rohrpost.connections.size > 0) await new Promise(setImmediate)

  connection.join('a')
  connection.leave('a')
  connection.send({ data: 1 })

  assert.equal(connection.groups.size, 0)
})

test('rejects invalid group names', async (t) => {
  const { connection } = await pair(t)

  ;['a', 'b'].forEach(connection.join, connection)

  assert.deepEqual([...connection.groups], ['a', 'b'])
})

test('keeps a group that was joined again while an earlier join failed', async (t) => {
  const opened = Promise.withResolvers<RohrpostConnection>()
  let fails = true
  const memory = memoryBroker()
  const server = await start(t, {
    onConnect: opened.resolve,
    broker: {
      ...memory,
      async subscribe (group) {
        await null
        if (fails) throw new Error('away')
        return memory.subscribe(group)
      }
    }
  })
  await server.connect()
  const connection = await opened.promise
  const again = Promise.resolve(connection.join('a')).catch(() => {
    fails = false
    return connection.join('a')
  })
  await assert.rejects(async () => connection.join('a'), { code: 'RP_ERR_UNAVAILABLE' })

  await again

  assert.deepEqual([...connection.groups], ['a'])
})

test('leaves all groups, however the connection ends', async (t) => {
  const joined: string[] = []
  const left: string[] = []
  const broker = memoryBroker()
  const server = await start(t, {
    maxPayload: 1000,
    with (app) {
      // the internal group of the server
      joined.splice(0)
      app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data)))
        .handle('close', (_message, connection) => connection.close())
    },
    broker: {
      ...broker,
      subscribe: (group) => { joined.push(group) },
      unsubscribe: (group) => { left.push(group) }
    }
  })
  const ends: Record<string, (client: Awaited<ReturnType<typeof server.connect>>) => void> = {
    close: (client) => client.socket.close(),
    terminate: (client) => client.socket.terminate(),
    'closed by a handler': (client) => client.send({ id: 1, type: 'close' }),
    'too large': (client) => client.send('x'.repeat(2000)),
    'broken frame': (client) => (client.socket as unknown as { _socket: { write (bytes: Buffer): void } })._socket.write(Buffer.from([0xff, 0xff]))
  }
  for (const [cause, end] of Object.entries(ends)) {
    const client = await server.connect()
    client.socket.on('error', () => {})
    await client.call('join', cause.replaceAll(' ', '-'))

    end(client)
    await client.closed
  }
  await server.app.close()

  assert.deepEqual(left.sort(), joined.sort())
  assert.equal(joined.length, Object.keys(ends).length)
})

test('closes with the code of RFC 6455 after a protocol violation, and logs no error', async (t) => {
  const server = await start(t)
  const frames = { 1002: [0xf1, 0x80, 0, 0, 0, 0], 1007: [0x81, 0x81, 0, 0, 0, 0, 0xff] }
  for (const [code, bytes] of Object.entries(frames)) {
    const client = await server.connect()

    const { _socket: socket } = client.socket as unknown as { _socket: { write (bytes: Buffer): void } }
    socket.write(Buffer.from(bytes))

    assert.equal((await client.closed).code, Number(code))
  }
  assert.deepEqual(server.logs.filter(({ level }) => level > 30), [])
})
