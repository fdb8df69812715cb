import assert from 'node:assert/strict'
import { test } from 'node:test'
import websocket from '@fastify/websocket'
import rohrpost from '../../lib/index.ts'
import { createApp, listen, start } from '../support/server.ts'

const LARGE = 'x'.repeat(32_769)

test('replies with the limits to a hello, but not to any other ping', async (t) => {
  const server = await start(t, { maxPayload: 70_000 })
  const client = await server.connect()
  client.send({ id: 1, type: 'ping', data: 0, hello: true })
  for (const hello of [undefined, false, 1, 'true']) client.send({ id: 2, type: 'ping', hello })

  assert.deepEqual(await client.next(), { id: 1, type: 'pong', data: 0, limits: { max_payload: 70_000 } })
  for (let n = 0; n < 4; n++) assert.deepEqual(await client.next(), { id: 2, type: 'pong' })
})

test('replies with the limit of @fastify/websocket if it is smaller', async (t) => {
  for (const [maxPayload, expected] of [[500, 500], [0, 1024 * 1024]]) {
    const app = createApp()
    t.after(() => app.close())
    await app.register(websocket, { options: { maxPayload } })
    await app.register(rohrpost)
    const client = await (await listen(t, app)).connect()
    client.send({ id: 1, type: 'ping', hello: true })

    assert.deepEqual((await client.next()).limits, { max_payload: expected })
    client.socket.terminate()
  }
})

test('announces each large message to clients that sent a hello, and to no others', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.group('news', { authorize: () => true, id: false }).handle('large', () => LARGE)
  })
  const [asks, plain] = [await server.connect(), await server.connect()]
  asks.send({ id: 1, type: 'ping', hello: true })
  await asks.next()
  for (const client of [asks, plain]) {
    client.send({ id: 2, type: 'subscribe', data: { type: 'news' } })
    await client.next()
    client.send({ id: 3, type: 'large' })
  }

  const isReply = { id: 3, type: 'large', data: LARGE }
  assert.deepEqual(await plain.next(), isReply)
  const bytes = Buffer.byteLength(JSON.stringify(isReply))
  assert.deepEqual(await asks.next(), { type: 'incoming', bytes })
  assert.deepEqual(await asks.next(), isReply)

  server.app.rohrpost.sendToGroup('news', { type: 'news', data: 'small' })
  server.app.rohrpost.sendToGroup('news', { type: 'news', data: LARGE })
  for (const client of [asks, plain]) assert.equal((await client.next()).data, 'small')
  assert.equal((await asks.next()).type, 'incoming')
  for (const client of [asks, plain]) assert.equal((await client.next()).data, LARGE)
})
