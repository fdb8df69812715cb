/** Stop of an app: all its servers stop at the same time, and no socket delays it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost from '../../lib/index.ts'
import { TestClient } from '../../lib/testing/index.ts'
import { RawHttp } from '../support/raw-http.ts'
import { listen, start } from '../support/server.ts'

/** Two servers in one app, each with a handler that waits for its `release`. */
async function two (t: TestContext, drainTimeouts: [number, number]) {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(websocket)
  const servers: { rohrpost: FastifyInstance['rohrpost'], release: () => void, started: Promise<void> }[] = []
  for (const index of [0, 1] as const) {
    const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    await app.register(async (child) => {
      await child.register(rohrpost, { path: `/${index}`, drainTimeout: drainTimeouts[index] })
      child.rohrpost.handle('work', async () => {
        started.resolve()
        await release.promise
        return 'done'
      })
      servers.push({ rohrpost: child.rohrpost, release: release.resolve, started: started.promise })
    })
  }
  const address = (await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')
  const clients = await Promise.all(servers.map((_, index) => TestClient.connect(`${address}/${index}`)))
  t.after(() => clients.forEach(({ socket }) => socket.close()))
  return { app, servers, clients } as unknown as { app: FastifyInstance, servers: [typeof servers[0], typeof servers[0]], clients: [TestClient, TestClient] }
}

test('the servers of one app start to stop at the same time', async (t) => {
  for (const busy of [0, 1] as const) {
    const { app, servers, clients } = await two(t, [5000, 5000])
    clients[busy].send({ id: 1, type: 'work' })
    await servers[busy].started

    const closing = app.close()

    assert.equal((await clients[busy === 0 ? 1 : 0].closed).code, 1012)
    servers[busy].release()
    assert.deepEqual(await clients[busy].next(), { id: 1, type: 'work', data: 'done' })
    assert.equal((await clients[busy].closed).code, 1012)
    await closing
  }
})

test('the servers of one app start to stop at the same time, even if one was drained before', async (t) => {
  const { app, servers, clients } = await two(t, [5000, 5000])
  clients[0].send({ id: 1, type: 'work' })
  await servers[0].started
  const drained = servers[0].rohrpost.drain()
  assert.equal(servers[1].rohrpost.health().draining, false)

  const closing = app.close()

  assert.equal((await clients[1].closed).code, 1012)
  servers[0].release()
  assert.equal((await clients[0].next()).data, 'done')
  await Promise.all([drained, closing])
})

test('servers of one app with handlers that never end stop within the largest drainTimeout', async (t) => {
  const { app, servers, clients } = await two(t, [1, 50])
  for (const [index, client] of clients.entries()) {
    client.send({ id: 1, type: 'work' })
    await servers[index]?.started
  }

  await app.close()

  for (const { closed } of clients) assert.equal((await closed).code, 1012)
})

/** App with an `onRequest` hook that waits. */
async function waiting (t: TestContext, drainTimeout: number, answer: 'refuse' | 'accept') {
  const [asked, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = await start(t, {
    drainTimeout,
    async onRequest (_request, reply) {
      asked.resolve()
      await go.promise
      if (answer === 'refuse') return reply.code(401).send()
    }
  })
  const raw = await RawHttp.connect(t, server.http)
  raw.upgrade('/ws/rohrpost')
  await asked.promise
  return { ...server, raw, go: go.resolve }
}

test('the stop waits for pending upgrade requests', async (t) => {
  const { app, raw, go } = await waiting(t, 5000, 'refuse')

  const closing = app.close()
  go()

  await raw.ended
  assert.equal(raw.status, 401)
  await closing
})

test('a connection that is accepted during the stop is closed with it', async (t) => {
  const { app, raw, go } = await waiting(t, 5000, 'accept')

  const closing = app.close()
  go()

  await raw.ended
  await closing
  assert.equal(app.rohrpost.connections.size, 0)
})

test('the stop destroys the sockets of upgrade requests that are pending after its timeout', async (t) => {
  const { app, raw } = await waiting(t, 1, 'refuse')

  await app.close()

  await raw.ended
  assert.equal(raw.text, '')
})

for (const own of [false, true]) {
  test(`upgrade requests during the stop are answered and ended${own ? ', in an app that registered @fastify/websocket itself' : ''}`, async (t) => {
    const app = Fastify()
    t.after(() => app.close())
    if (own) await app.register(websocket)
    await app.register(rohrpost)
    const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    app.rohrpost.handle('work', async () => {
      started.resolve()
      await release.promise
    })
    const server = await listen(t, app)
    // the second server that Fastify creates for localhost
    const further = http.createServer(app.routing as never)
    further.on('upgrade', app.server.emit.bind(app.server, 'upgrade'))
    t.after(() => further.close())
    await once(further.listen(0, '127.0.0.1'), 'listening')
    const client = await server.connect()
    client.send({ id: 1, type: 'work' })
    await started.promise
    const before = await RawHttp.connect(t, server.http)

    const closing = app.close()
    while (!app.rohrpost.health().draining) await new Promise(setImmediate)
    for (const raw of [before, await RawHttp.connect(t, `http://127.0.0.1:${(further.address() as AddressInfo).port}`)]) {
      raw.upgrade('/ws/rohrpost')
      await raw.ended
      assert.equal(raw.status, 503)
    }

    release.resolve()
    await closing
  })
}
