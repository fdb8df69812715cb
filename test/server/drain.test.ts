import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import websocket from '@fastify/websocket'
import rohrpost from '../../lib/index.ts'
import { createApp, listen, start, type LogLine } from '../support/server.ts'

test('lets running handlers reply, refuses waiting requests, then closes with 1012', async (t) => {
  const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const order: string[] = []
  const server = await start(t, {
    concurrency: 1,
    drainTimeout: 60_000,
    onDisconnect: async () => {
      await new Promise(setImmediate)
      order.push('disconnected')
    },
    with: (app) => app.rohrpost
      .handle('slow', async () => {
        started.resolve()
        await release.promise
        return 'done'
      })
      .handle('never', () => assert.fail('started'))
  })
  const [idle, busy] = await Promise.all([server.connect(), server.connect()])
  busy.send({ id: 1, type: 'slow' })
  await started.promise
  busy.send({ id: 2, type: 'never' })
  await busy.untilPong()

  const closing = server.app.close().then(() => order.push('closed'))

  assert.deepEqual(await idle.closed, { code: 1012, reason: 'service restart' })
  assert.deepEqual(await busy.next(), { id: 2, type: 'never', error: 'The server is about to restart.', code: 'unavailable', retry: true })
  assert.equal((await busy.call('ping')).type, 'pong')
  assert.equal((await busy.call('never')).code, 'unavailable')
  release.resolve()
  assert.equal((await busy.next()).data, 'done')
  assert.deepEqual(await busy.closed, { code: 1012, reason: 'service restart' })
  await closing
  assert.deepEqual(order, ['disconnected', 'disconnected', 'closed'])
})

test('refuses waiting parallel requests', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, { drainTimeout: 60_000, with: (app) => app.rohrpost.handle('ask', { parallel: true }, () => release.promise) })
  const client = await server.connect()
  for (let id = 1; id <= 18; id++) client.send({ id, type: 'ask' })
  await client.untilPong()

  const drained = server.app.rohrpost.drain()

  for (const id of [17, 18]) assert.deepEqual([(await client.next()).code, id], ['unavailable', id])
  release.resolve()
  await drained
})

test('refuses new connections with 503, and reports draining in its health', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, { with: (app) => app.rohrpost.handle('slow', () => release.promise) })
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })
  await client.untilPong()

  const drained = server.app.rohrpost.drain()

  assert.deepEqual(server.app.rohrpost.health(), { ok: false, broker: { ok: true }, connections: 1, draining: true })
  assert.equal(await server.refused(), 503)
  assert.equal(server.app.rohrpost.drain(), drained)
  release.resolve()
  await drained
  assert.equal(server.app.rohrpost.health().connections, 0)
})

test('refuses upgrades while the app closes, and does not wait for clients that keep the socket open', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, { drainTimeout: 60_000, with: (app) => app.rohrpost.handle('slow', () => release.promise) })
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })
  await client.untilPong()
  const closing = server.app.close()
  await new Promise(setImmediate)

  const line = connect({ port: Number(new URL(server.http).port), host: '127.0.0.1', allowHalfOpen: true })
  t.after(() => line.destroy())
  line.write('GET /ws/rohrpost HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
  const answer = await text(line)
  release.resolve()

  assert.match(answer, /^HTTP\/1.1 503 /)
  await closing
})

test('closes at once a connection whose upgrade was pending', async (t) => {
  const [asked, allowed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = await start(t, {
    preHandler: async () => {
      asked.resolve()
      await allowed.promise
    },
    onConnect: () => assert.fail('let in')
  })
  const connecting = server.connect()
  await asked.promise

  await server.app.rohrpost.drain()
  allowed.resolve()

  assert.deepEqual(await (await connecting).closed, { code: 1012, reason: 'service restart' })
})

test('waits at most drainTimeout for handlers, and one second for the answer to a close', async (t) => {
  const server = await start(t, { drainTimeout: 30, with: (app) => app.rohrpost.handle('forever', () => new Promise(() => {})) })
  const [stuck, deaf] = await Promise.all([server.connect(), server.connect()])
  stuck.send({ id: 1, type: 'forever' })
  await stuck.untilPong()
  deaf.socket.pause()

  await server.app.close()

  assert.equal((await stuck.closed).code, 1012)
  deaf.socket.resume()
  assert.ok([1006, 1012].includes((await deaf.closed).code))
})

test('answers messages that were not read before the stop began', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, {
    concurrency: 1,
    maxPending: { messages: 1000, bytes: 1000 },
    with: (app) => app.rohrpost.handle('slow', () => release.promise)
  })
  const client = await server.connect()
  for (let id = 0; id < 10; id++) client.send({ id, type: 'slow', data: 'x'.repeat(100_000) })
  client.send({ id: 'ping', type: 'ping' })
  await server.paused()

  const drained = server.app.rohrpost.drain()

  for (let id = 1; id < 10; id++) assert.deepEqual([(await client.next()).code, id], ['unavailable', id])
  assert.equal((await client.next()).type, 'pong')
  release.resolve()
  assert.equal((await client.next()).id, 0)
  await drained
})

for (const hook of ['onConnect', 'onDisconnect'] as const) {
  test(`does not wait for ${hook} that never ends, and logs it`, async (t) => {
    const server = await start(t, { drainTimeout: 10, [hook]: () => new Promise(() => {}) })
    await server.connect()

    await server.app.close()

    assert.ok(server.logs.some(({ level, count }) => level === 40 && count === 1))
  })
}

test('stops gracefully also when the app registered @fastify/websocket itself', async (t) => {
  const logs: LogLine[] = []
  const app = createApp(logs)
  t.after(() => app.close())
  const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  await app.register(websocket)
  await app.register(rohrpost)
  app.rohrpost.handle('slow', async () => {
    started.resolve()
    await release.promise
  })
  const server = await listen(t, app, logs)
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })
  await started.promise

  const closing = app.close()
  release.resolve()

  assert.deepEqual(await client.next(), { id: 1, type: 'slow' })
  assert.equal((await client.closed).code, 1012)
  await closing
})

test('stops the heartbeat', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, { heartbeatInterval: 10, with: (app) => app.rohrpost.handle('slow', () => release.promise) })
  const client = await server.connect(undefined, { autoPong: false })
  client.send({ id: 1, type: 'slow' })
  await client.untilPong()

  const drained = server.app.rohrpost.drain()
  const [other] = await Promise.all([start(t, { heartbeatInterval: 10 }).then((other) => other.connect(undefined, { autoPong: false }))])
  await other.closed
  release.resolve()

  assert.equal((await client.next()).id, 1)
  await drained
})

test('an app without connections closes at once', async (t) => {
  const server = await start(t)

  await server.app.close()

  assert.equal(server.app.rohrpost.connections.size, 0)
})
