import assert from 'node:assert/strict'
import { test } from 'node:test'
import { start } from '../support/server.ts'

test('lets running handlers answer, turns the others away, then closes with 1012', async (t) => {
  const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const order: string[] = []
  const server = await start(t, {
    concurrency: 1,
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

test('refuses new connections with 503 and says so in its health', async (t) => {
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

test('closes a connection at once whose upgrade was under way', async (t) => {
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

test('waits for no handler longer than it may, and for no client that does not answer the close', async (t) => {
  const server = await start(t, { drain: 30, with: (app) => app.rohrpost.handle('forever', () => new Promise(() => {})) })
  const [stuck, deaf] = await Promise.all([server.connect(), server.connect()])
  stuck.send({ id: 1, type: 'forever' })
  await stuck.untilPong()
  deaf.socket.pause()

  await server.app.close()

  assert.equal((await stuck.closed).code, 1012)
  deaf.socket.resume()
  assert.ok([1006, 1012].includes((await deaf.closed).code))
})

test('an app without connections closes at once', async (t) => {
  const server = await start(t)

  await server.app.close()

  assert.equal(server.app.rohrpost.connections.size, 0)
})
