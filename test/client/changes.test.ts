import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { change, connect, next, serve } from './support/client.ts'
import { openFake } from './support/open.ts'

const todo = { type: 'todo', id: 5 }
const joined = { data: { group: 'todo-5' } }

test('a change that stands behind the reply in one piece is heard', async (t) => {
  const { client, fake } = await openFake(t)
  const changes = client.changes(todo)
  fake.last.answer(joined)
  fake.last.receive(change('todo-5', 'create', 1))
  fake.last.receive(change('todo-6', 'create', 2))

  assert.deepEqual(await changes.next(), { done: false, value: { group: 'todo-5', type: 'create', object: 1 } })
})

test('each loop hears all, and the group is left by the last', async (t) => {
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

test('what waits is settled when the loop ends: by the signal, by return, by close', async (t) => {
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

test('a signal that was there before leaves the server in peace', async (t) => {
  const { client, fake } = await openFake(t)

  assert.equal((await client.changes(todo, { signal: AbortSignal.abort() }).next()).done, true)

  assert.deepEqual(fake.last.requests, [])
})

test('the signal drops what was kept; the end of the client does not', async (t) => {
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

test('a refusal is thrown once, then the loop has ended', async (t) => {
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

// real sockets come last: what they set timers for is not to meet a clock that stands still

test('a loop hears every change in order, and leaves the group when it ends', async (t) => {
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

test('nothing is lost that comes in one piece with the reply to subscribe', async (t) => {
  const server = await serve(t, {
    with: (app) => app.rohrpost.group('todo', {
      authorize () {
        // sent in the turn in which the client becomes a member
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
