import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WebSocket as Ws } from 'ws'
import { TestClient } from '../../lib/testing/index.ts'
import { start } from '../support/server.ts'

test('queues what it hears until it is asked for', async (t) => {
  const { http, app } = await start(t, { onConnect: (connection) => { connection.join('all') } })
  app.rohrpost.handle('hello', () => 'you')
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`)

  app.rohrpost.sendToGroup('all', { n: 1 })
  app.rohrpost.sendToGroup('all', '{"n":2}')
  assert.deepEqual(await client.untilPong(), [{ n: 1 }, { n: 2 }])
  assert.deepEqual(await client.call('hello'), { id: 2, type: 'hello', data: 'you' })
  assert.deepEqual(await client.ask('{"id":"x","type":"ping"}'), { id: 'x', type: 'pong' })
  const next = client.nextText()
  app.rohrpost.sendToGroup('all', '{ "n": 3 }')
  assert.equal(await next, '{ "n": 3 }')

  const waiting = client.next()
  const [closed] = await Promise.all([client.closed, client.close(4000, 'enough'), assert.rejects(waiting, /closed with 4000 while a frame was awaited/)])
  assert.deepEqual(closed, { code: 4000, reason: 'enough' })
  await assert.rejects(client.next(), /closed before/)
})

test('takes a socket that is open, such as one that the app injected', async (t) => {
  const { app } = await start(t)

  const client = new TestClient(await app.injectWS('/ws/rohrpost'))
  t.after(() => client.socket.terminate())
  await client.opened

  assert.deepEqual(await client.ask({ id: 1, type: 'ping' }), { id: 1, type: 'pong' })
})

test('says that it could not connect', async (t) => {
  const { http } = await start(t)

  await assert.rejects(TestClient.connect(`${http.replace('http', 'ws')}/nowhere`), /closed with 1006 before it was open/)
  const socket = new Ws(`${http.replace('http', 'ws')}/nowhere`)
  socket.on('error', () => {})
  await assert.rejects(new TestClient(socket).opened, /closed with 1006/)
})
