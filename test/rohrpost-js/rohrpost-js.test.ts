/** rohrpost-js 0.6, the original's client, works against the plugin and notices no difference. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test, type TestContext } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost from '../../lib/index.ts'
import { RohrpostJs, type Config } from './client.ts'

const TOKEN = 'ey-jwt'

/** Starts a server with the groups `collection-ID`, for those who have the token, and a client that is not open yet. */
async function start (t: TestContext, config: Config = {}) {
  const app = Fastify()
  const clients: RohrpostJs[] = []
  t.after(() => {
    for (const client of clients) client.close()
    return app.close()
  })
  await app.register(rohrpost)
  app.rohrpost
    .group('collection', { authorize: ({ auth_jwt: token }) => token === TOKEN })
    .handle('sum', ({ data }) => (data as number[]).reduce((sum, term) => sum + term, 0))
    .handle('whoami', ({ auth_jwt: token }) => ({ token }))
    .handle('silent', () => {})
    .handle('no_error', ({ id, type, data }, connection) => connection.send({ id, type, error: '', data }))
    .handle('fail', () => { throw Object.assign(new Error('no such thing'), { statusCode: 404 }) })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })

  const client = new RohrpostJs(`${address.replace('http', 'ws')}/ws/rohrpost/`, { token: TOKEN, reconnectDelay: 1, ...config })
  clients.push(client)
  const sent: unknown[] = []
  const received: unknown[] = []
  client.on('sent', (message) => { if (message.type !== 'ping') sent.push(message) })
  client.on('message', (message) => { if (message.type !== 'pong') received.push(message) })
  return { app, client, sent, received }
}

/** Tells the members of a group as the original's notifications do. */
function publish (app: FastifyInstance, group: string, object: unknown): Promise<void> {
  return app.rohrpost.sendToGroup(group, { id: 21, type: 'subscription-update', data: { group, type: 'update', object } })
}

/** Resolves when the next answer of a type has come. */
function answered (client: RohrpostJs, type: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  client.on('message', (message) => { if (message.type === type) resolve() })
  return promise
}

/** Drops the line as a restart of the server does. */
function closeAll (app: FastifyInstance): void {
  for (const connection of app.rohrpost.connections) connection.close(1012)
}

test('subscribes before the line is open, and hears of its group by name', async (t) => {
  const { app, client, sent, received } = await start(t)

  const subscribed = await client.subscribe({ type: 'collection', id: 52 })
  const update = once(client, 'collection-52')
  await publish(app, 'collection-52', 'obj')

  assert.deepEqual(subscribed, { group: 'collection-52' })
  assert.deepEqual(await update, [null, { group: 'collection-52', type: 'update', object: 'obj' }])
  assert.deepEqual(sent, [{ type: 'subscribe', id: 1, auth_jwt: TOKEN, data: { type: 'collection', id: 52 } }])
  assert.deepEqual(received, [
    { id: 1, type: 'subscribe', data: { group: 'collection-52' } },
    { id: 21, type: 'subscription-update', data: { group: 'collection-52', type: 'update', object: 'obj' } }
  ])
})

test('rejects a subscription without the right token with the error as a string', async (t) => {
  const { client } = await start(t, { token: 'forged' })

  await assert.rejects(client.subscribe({ type: 'collection', id: 52 }), (reason) => reason === 'ACCESS_DENIED')
})

test('rejects a subscription to groups that nobody declared', async (t) => {
  const { client } = await start(t)

  await assert.rejects(client.subscribe({ type: 'user', id: 1 }), (reason) => reason === 'ACCESS_DENIED')
})

test('hears nothing of a group from which it unsubscribed', async (t) => {
  const { app, client, received } = await start(t)
  await client.subscribe({ type: 'collection', id: 1 })
  await client.subscribe({ type: 'collection', id: 2 })

  const unsubscribed = await client.unsubscribe({ type: 'collection', id: 1 })
  const update = once(client, 'collection-2')
  await publish(app, 'collection-1', 'unheard')
  await publish(app, 'collection-2', 'heard')
  await update

  assert.equal(unsubscribed, undefined)
  assert.deepEqual(received, [
    { id: 1, type: 'subscribe', data: { group: 'collection-1' } },
    { id: 2, type: 'subscribe', data: { group: 'collection-2' } },
    { id: 3, type: 'unsubscribe' },
    { id: 21, type: 'subscription-update', data: { group: 'collection-2', type: 'update', object: 'heard' } }
  ])
})

test('unsubscribes from a group in which it never was', async (t) => {
  const { client } = await start(t)
  await once(client, 'open')

  assert.equal(await client.unsubscribe({ type: 'collection', id: 9 }), undefined)
})

test('calls handlers, each answer under the id of its question', async (t) => {
  const { client, sent, received } = await start(t)
  await once(client, 'open')

  const answers = await Promise.all([client.call('sum', [1, 2]), client.call('whoami'), client.call('silent', 0), client.call('sum', [])])

  assert.deepEqual(answers, [3, { token: TOKEN }, undefined, 0])
  assert.deepEqual(sent, [
    { type: 'sum', id: 1, auth_jwt: TOKEN, data: [1, 2] },
    { type: 'whoami', id: 2, auth_jwt: TOKEN, data: undefined },
    { type: 'silent', id: 3, auth_jwt: TOKEN, data: 0 },
    { type: 'sum', id: 4, auth_jwt: TOKEN, data: [] }
  ])
  assert.deepEqual(received.map((message) => (message as { id: number }).id), [1, 2, 3, 4])
})

test('rejects a call that fails, and one that nobody handles, with the error as a string', async (t) => {
  const { client } = await start(t)
  await once(client, 'open')

  await assert.rejects(client.call('fail'), (reason) => reason === 'no such thing')
  await assert.rejects(client.call('nope'), (reason) => reason === "Unknown message type 'nope'.")
})

test('resolves a call whose answer has an empty error', async (t) => {
  const { client } = await start(t)
  await once(client, 'open')

  assert.equal(await client.call('no_error', 'fine'), 'fine')
})

test('pings with the time as id, again and again, and hears a pong with the same id and nothing else', async (t) => {
  const { client } = await start(t, { pingInterval: 5 })
  const pings: number[] = []
  const pongs: unknown[] = []
  client.on('ping', (id: number) => pings.push(id))
  client.on('message', (message) => pongs.push(message))

  await once(client, 'pong')
  await once(client, 'pong')
  await once(client, 'pong')

  assert.deepEqual(pongs, pings.slice(0, 3).map((id) => ({ id, type: 'pong' })))
})

test('subscribes again after the server closed the line, with ids from 1, and hears of its groups', async (t) => {
  const { app, client, sent, received } = await start(t)
  await client.subscribe({ type: 'collection', id: 1 })
  await client.subscribe({ type: 'collection', id: 2 })
  await client.unsubscribe({ type: 'collection', id: 1 })
  const before = sent.length
  const subscribedAgain = answered(client, 'subscribe')

  closeAll(app)
  await subscribedAgain
  await client.call('silent')
  const update = once(client, 'collection-2')
  await publish(app, 'collection-1', 'unheard')
  await publish(app, 'collection-2', 'heard')

  assert.deepEqual(await update, [null, { group: 'collection-2', type: 'update', object: 'heard' }])
  assert.deepEqual(sent.slice(before), [
    { type: 'subscribe', id: 1, auth_jwt: TOKEN, data: { type: 'collection', id: 2 } },
    { type: 'silent', id: 2, auth_jwt: TOKEN, data: undefined }
  ])
  assert.deepEqual(received.slice(before), [
    { id: 1, type: 'subscribe', data: { group: 'collection-2' } },
    { id: 2, type: 'silent' },
    { id: 21, type: 'subscription-update', data: { group: 'collection-2', type: 'update', object: 'heard' } }
  ])
  assert.equal(app.rohrpost.connections.size, 1)
})

test('gets its answer to a subscription that the close of the line interrupted after the next connect', async (t) => {
  const { app, client } = await start(t)
  const asked = Promise.withResolvers<void>()
  const authorized = Promise.withResolvers<boolean>()
  app.rohrpost.group('slow', { authorize: () => { asked.resolve(); return authorized.promise } })
  await once(client, 'open')
  const subscribed = client.subscribe({ type: 'slow', id: 1 })
  await asked.promise

  closeAll(app)
  await once(client, 'open')
  authorized.resolve(true)

  assert.deepEqual(await subscribed, { group: 'slow-1' })
  assert.equal(app.rohrpost.connections.size, 1)
})
