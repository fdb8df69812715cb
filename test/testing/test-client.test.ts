import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { WebSocket as Ws } from 'ws'
import { TestClient, type TestSocket } from '../../lib/testing/index.ts'
import { start } from '../support/server.ts'

test('keeps received frames until the test reads them', async (t) => {
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

test('accepts an open socket, such as that of injectWS', async (t) => {
  const { app } = await start(t)

  const client = new TestClient(await app.injectWS('/ws/rohrpost'))
  t.after(() => client.socket.terminate())
  await client.opened

  assert.deepEqual(await client.ask({ id: 1, type: 'ping' }), { id: 1, type: 'pong' })
})

test('rejects a refused connection', async (t) => {
  const { http } = await start(t)

  await assert.rejects(TestClient.connect(`${http.replace('http', 'ws')}/nowhere`), /closed with 1006 before it was open/)
  const socket = new Ws(`${http.replace('http', 'ws')}/nowhere`)
  socket.on('error', () => {})
  await assert.rejects(new TestClient(socket).opened, /closed with 1006/)
})

test('resolves every next() and every call() of several at once', async (t) => {
  const { http, app } = await start(t)
  app.rohrpost.handle('echo', ({ data }) => data)
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`)
  t.after(() => client.close())

  const frames = Promise.all([client.next(), client.nextText(), client.next()])
  for (const id of ['a', 'b', 'c']) client.send({ id, type: 'echo', data: id })
  assert.deepEqual(await frames, [{ id: 'a', type: 'echo', data: 'a' }, '{"id":"b","type":"echo","data":"b"}', { id: 'c', type: 'echo', data: 'c' }])

  const replies = await Promise.all(['one', 'two'].map((data) => client.call('echo', data)))
  assert.deepEqual(replies.map(({ data }) => data), ['one', 'two'])
})

test('resolves a call with its own reply, and keeps earlier frames', async (t) => {
  const { http, app } = await start(t, { onConnect: (connection) => { connection.join('all') } })
  let finish = () => {}
  app.rohrpost
    .handle('slow', { parallel: true }, () => new Promise<void>((resolve) => { finish = resolve }))
    .handle('fast', (_message, connection) => {
      connection.send({ type: 'news' })
      // the id of a change is random, here it equals the id of the call
      app.rohrpost.sendToGroup('all', { id: 2, type: 'subscription-update', data: { group: 'a-1', type: 'create', object: {} } })
      throw Object.assign(new Error('No.'), { statusCode: 403 })
    })
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`)
  t.after(() => client.close())

  const slow = client.call('slow')
  assert.deepEqual(await client.call('fast'), { id: 2, type: 'fast', error: 'No.', code: 'forbidden' })
  finish()
  assert.deepEqual(await slow, { id: 1, type: 'slow' })
  assert.deepEqual(client.unread.map(({ type }) => type), ['news', 'subscription-update'])
  assert.deepEqual(await client.next(), { type: 'news' })
})

test('reads the next change of a group, received or future', async (t) => {
  const { http, app } = await start(t)
  app.rohrpost.group('todo', { authorize: ({ data, auth_jwt: token }) => token === 'secret' && data.id !== 7 })
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`, { token: 'secret' })
  t.after(() => client.close())
  const announce = (id: number, title: string) => app.rohrpost.sendToGroup(`todo-${id}`, {
    id: 5, type: 'subscription-update', data: { group: `todo-${id}`, type: 'update', object: { id, title } }
  })
  const { group } = await client.subscribe({ type: 'todo', id: 5 })
  await client.subscribe({ type: 'todo', id: 6 })
  await assert.rejects(client.subscribe({ type: 'todo', id: 7 }), { message: 'ACCESS_DENIED', code: 'access_denied' })

  await announce(6, 'of another group')
  await announce(5, 'first')
  await app.rohrpost.sendToGroup(group, 'no JSON')
  await app.rohrpost.sendToGroup(group, '5')
  await client.settled()
  assert.deepEqual(await client.change(group), { group, type: 'update', object: { id: 5, title: 'first' } })
  const [change, next] = [client.change(group), client.next()]
  await announce(5, 'second')
  assert.equal((await change).object.title, 'second')
  assert.deepEqual(await next, { id: 5, type: 'subscription-update', data: { group: 'todo-6', type: 'update', object: { id: 6, title: 'of another group' } } })

  assert.deepEqual(client.unread, [{ text: 'no JSON' }, { text: '5' }])
  assert.deepEqual([await client.nextText(), await client.next()], ['no JSON', 5])
  await client.unsubscribe({ type: 'todo', id: 5 })
  await announce(5, 'third')
  await client.settled()
  assert.deepEqual(client.unread, [])
})

test('is settled when all requests have a reply, and all frames before it have arrived', async (t) => {
  const { http, app } = await start(t, { onConnect: (connection) => { connection.join('all') } })
  const [started, finished] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  app.rohrpost.handle('slow', async () => {
    started.resolve()
    await finished.promise
    app.rohrpost.sendToGroup('all', { type: 'done' })
  })
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`)

  client.send({ id: 'a', type: 'slow' })
  client.send('{"id":null,"type":"ping"}')
  client.send('no JSON')
  let isSettled = false
  const settled = client.settled().then(() => { isSettled = true })
  await started.promise
  await client.untilPong()
  assert.equal(isSettled, false)
  finished.resolve()
  await settled

  assert.deepEqual(client.unread, [{ type: 'done' }, { id: 'a', type: 'slow' }])
})

test('is settled on a closed connection, unless a reply is missing', async (t) => {
  const { http, app } = await start(t)
  app.rohrpost.handle('leave', ({ signal }, connection) => {
    connection.close(4000)
    return once(signal, 'abort')
  })
  const [one, two] = [await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`), await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`)]

  const settled = one.settled()
  one.socket.close()
  await settled
  await one.settled()
  two.send({ id: 5, type: 'leave' })
  await assert.rejects(two.settled(), /closed with 4000 before answers to \[5\] came/)
  await assert.rejects(two.settled(), /closed with 4000 before answers to \[5\] came/)
})

test('names the frame that did not arrive in time, and the unread ones', async (t) => {
  const { http, app } = await start(t)
  app.rohrpost.handle('never', ({ signal }) => once(signal, 'abort'))
  const client = await TestClient.connect(`${http.replace('http', 'ws')}/ws/rohrpost`, { timeout: 50 })

  await assert.rejects(client.next(), /no frame came within 50 ms; unread: nothing/)
  app.rohrpost.connections.forEach((connection) => connection.send({ type: 'news' }))
  await assert.rejects(client.call('never'), /no reply to 'never' came within 50 ms; unread: \{"type":"news"\}/)
  await assert.rejects(client.settled(), /no answers to \[1\] came within 50 ms/)
  await client.close()
})

test('is not settled by a server that does not reply', async () => {
  const socket: TestSocket = { readyState: 1, send () {}, close () {}, addEventListener () {} }
  const client = new TestClient(socket, { timeout: 10 })

  await assert.rejects(client.settled(), /no answer to a round trip came within 10 ms/)
})
