import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { change, connect, next, serve } from './support/client.ts'
import { openFake } from './support/open.ts'

const todo = { type: 'todo', id: 5 }
const joined = { data: { group: 'todo-5' } }

test('a change in the same TCP segment as the reply is received', async (t) => {
  const { client, fake } = await openFake(t)
  const changes = client.changes(todo)
  fake.last.answer(joined)
  fake.last.receive(change('todo-5', 'create', 1))
  fake.last.receive(change('todo-6', 'create', 2))

  assert.deepEqual(await changes.next(), { done: false, value: { group: 'todo-5', type: 'create', object: 1 } })
})

test('each loop receives all changes, and the last one leaves the group', async (t) => {
  const { client, fake, asked } = await openFake(t)
  const loops = [client.changes(todo), client.changes(todo)]
  fake.last.receive({ id: 1, ...joined })
  fake.last.receive({ id: 2, ...joined })
  fake.last.receive(change('todo-5', 'create', 1))

  for (const loop of loops) {
    assert.equal((await loop.next()).value?.object, 1)
    await loop.return?.()
  }

  assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5', 'unsubscribe todo-5'])
})

test('pending calls of `next()` are settled by the signal, by `return()` and by `close()`', async (t) => {
  const { client, fake } = await openFake(t)
  const controller = new AbortController()
  const loops = [client.changes(todo, { signal: controller.signal }), client.changes(todo), client.changes(todo)]
  fake.last.receive({ id: 1, ...joined })
  const waiting = loops.map((loop) => [loop.next(), loop.next()]).flat()

  controller.abort()
  await loops[1]?.return?.()
  client.close()

  const done = { done: true, value: undefined }
  assert.deepEqual(await Promise.all(waiting), waiting.map(() => done))
  for (const loop of loops) assert.deepEqual(await loop.next(), done)
})

test('an already aborted signal sends no request', async (t) => {
  const { client, fake } = await openFake(t)

  assert.equal((await client.changes(todo, { signal: AbortSignal.abort() }).next()).done, true)

  assert.deepEqual(fake.last.requests, [])
})

test('the signal drops buffered changes; the close of the client does not', async (t) => {
  const { client, fake } = await openFake(t)
  const controller = new AbortController()
  const aborted = client.changes(todo, { signal: controller.signal })
  const closed = client.changes(todo)
  fake.last.receive({ id: 1, ...joined })
  fake.last.receive(change('todo-5', 'create', 1))
  controller.abort()
  client.close()

  assert.equal((await aborted.next()).done, true)
  assert.equal((await closed.next()).done, false)
  assert.equal((await closed.next()).done, true)
})

test('a refusal is thrown once, then the loop is done', async (t) => {
  const { client, fake } = await openFake(t)
  const changes = client.changes(todo)
  const waiting = [changes.next(), changes.next()]
  fake.last.answer({ error: 'ACCESS_DENIED' })

  const [first, second] = await Promise.allSettled(waiting)
  assert.equal(first?.status === 'rejected' && String(first.reason), 'ACCESS_DENIED')
  assert.deepEqual(second, { status: 'fulfilled', value: { done: true, value: undefined } })
  const late = client.changes(todo)
  fake.last.answer({ error: 'ACCESS_DENIED' })
  await assert.rejects(async () => { for await (const { type } of late) assert.fail(type) }, { message: 'ACCESS_DENIED' })
})

// tests with real sockets come last: their timers must not meet a mocked clock

test('a loop receives all changes in order, and leaves the group when it ends', async (t) => {
  const server = await serve(t, {
    with: (app) => {
      app.rohrpost.group('todo', { authorize: () => true }).handle('rename', async (message) => {
        for (let version = 0; version < 50; version++) await app.rohrpost.sendToGroup('todo-5', change('todo-5', 'update', { id: 5, version }))
        return [...app.rohrpost.connections].flatMap(({ groups }) => [...groups])
      })
    }
  })
  const client = connect(t, server)
  await client.ready()
  const heard: number[] = []

  const changes = client.changes(todo)
  await next(client, 'message', ({ type }) => type === 'subscribe')
  assert.deepEqual(await client.call('rename'), ['todo-5'])
  for await (const { object } of changes) {
    heard.push(object.version)
    if (heard.length === 50) break
  }

  assert.deepEqual(heard, Array.from({ length: 50 }, (_, version) => version))
  assert.deepEqual(await client.call('rename'), [])
})

test('no change is lost that arrives together with the reply to `subscribe`', async (t) => {
  const server = await serve(t, {
    with: (app) => app.rohrpost.group('todo', {
      authorize () {
        // sent in the same turn of the event loop in which the client becomes a member
        queueMicrotask(() => queueMicrotask(() => queueMicrotask(() => queueMicrotask(() => {
          for (let version = 0; version < 3; version++) app.rohrpost.sendToGroup('todo-5', change('todo-5', 'update', { version }))
        }))))
        return true
      }
    })
  })
  for (const implementation of [undefined, WebSocket]) {
    const client = connect(t, server, { WebSocket: implementation })
    await client.ready()
    const changes = client.changes(todo)
    const first = await changes.next()
    assert.equal(first.value?.object.version, 0)
    client.close()
  }
})
