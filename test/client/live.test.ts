import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import type { LiveOptions } from '../../lib/client/index.ts'
import { change } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openFake } from './support/open.ts'

interface Todo { id: number, title?: string, done?: boolean }

const joined = { data: { group: 'todos' } }

/** A collection whose loads are settled by the test. */
async function live (t: TestContext, options: Partial<LiveOptions<Todo>> = {}) {
  const line = await openFake(t)
  const loads: PromiseWithResolvers<Todo[]>[] = []
  const todos = line.client.live({ type: 'todos' }, {
    load () {
      const load = Promise.withResolvers<Todo[]>()
      loads.push(load)
      return load.promise
    },
    ...options
  })
  return {
    ...line,
    todos,
    loads,
    receive: (type: 'create' | 'update' | 'delete', object: object) => line.fake.last.receive(change('todos', type, object)),
    async loaded (...objects: Todo[]) {
      loads.at(-1)?.resolve(objects)
      await settled()
    }
  }
}

test('loads when the group is joined, and applies the changes that arrived meanwhile', async (t) => {
  const { todos, loads, fake, receive, loaded } = await live(t)
  assert.equal(loads.length, 0)
  fake.last.answer(joined)
  assert.equal(loads.length, 1)
  receive('create', { id: 3 })
  receive('update', { id: 1, title: 'new', updated_fields: ['title'] })
  receive('delete', { id: 2 })
  assert.deepEqual(todos.getSnapshot(), [])
  assert.equal(todos.status, 'loading')
  await loaded({ id: 1, title: 'old', done: false }, { id: 2 })

  assert.equal(todos.status, 'current')
  assert.deepEqual(todos.getSnapshot(), [{ id: 1, title: 'new', done: false }, { id: 3 }])
})

test('applies changes: an update merges properties, a create replaces the object', async (t) => {
  const { todos, fake, receive, loaded } = await live(t)
  fake.last.answer(joined)
  await loaded({ id: 1, title: 'one', done: false })
  receive('update', { id: 1, done: true, updated_fields: ['done'] })
  receive('update', { id: 2, title: 'moved in' })
  receive('create', { id: 3, title: 'three', updated_fields: [] })
  receive('create', { id: 2 })
  receive('delete', { id: 3 })
  receive('delete', { id: 4 })

  assert.deepEqual(todos.getSnapshot(), [{ id: 1, title: 'one', done: true }, { id: 2 }])
})

test('stores primitive values under the keys of a custom `key` function', async (t) => {
  const { client, fake } = await openFake(t)
  const names = client.live({ type: 'names' }, { load: () => ['a', 'b'], key: (name: string) => name })
  fake.last.answer({ data: { group: 'names' } })
  await settled()
  fake.last.receive(change('names', 'create', 'c'))
  fake.last.receive(change('names', 'update', 'b'))
  fake.last.receive(change('names', 'delete', 'a'))

  assert.deepEqual(names.getSnapshot(), ['b', 'c'])
})

suite('snapshots', () => {
  test('stay the same until something changes, and are frozen', async (t) => {
    const { todos, fake, receive, loaded } = await live(t)
    fake.last.answer(joined)
    await loaded({ id: 1 })
    const { getSnapshot } = todos
    const before = getSnapshot()
    assert.equal(getSnapshot(), before)
    receive('create', { id: 2 })

    assert.notEqual(getSnapshot(), before)
    assert.deepEqual(before, [{ id: 1 }])
    assert.ok(Object.isFrozen(before))
  })

  test('are passed to subscribers immediately and after each change, like a Svelte store', async (t) => {
    const { todos: { subscribe }, fake, receive, loaded, tick } = await live(t)
    const heard: string[] = []
    t.mock.method(globalThis, 'queueMicrotask', () => {})
    const stop = subscribe((objects) => heard.push(JSON.stringify(objects)))
    const stopOther = subscribe(() => { throw new Error('by the listener') })
    fake.last.answer(joined)
    await loaded({ id: 1 })
    tick(16)
    receive('delete', { id: 1 })
    stop()
    stop()
    stopOther()
    receive('create', { id: 1 })

    assert.deepEqual(heard, ['[]', '[{"id":1}]', '[]'])
  })
})

suite('many changes', () => {
  test('call the listeners once at first, and once for all further changes within a frame', async (t) => {
    const { todos, fake, receive, loaded, tick } = await live(t)
    fake.last.answer(joined)
    await loaded()
    tick(16)
    const heard: number[] = []
    todos.subscribe((objects) => heard.push(objects.length))
    for (let id = 1; id <= 500; id++) receive('create', { id })
    assert.deepEqual(heard, [0, 1])
    assert.equal(todos.getSnapshot().length, 500)
    tick(16)
    assert.deepEqual(heard, [0, 1, 500])
    tick(1000)
    assert.deepEqual(heard, [0, 1, 500])
    receive('create', { id: 501 })

    assert.deepEqual(heard, [0, 1, 500, 501])
  })

  test('are followed by an end that is notified immediately, and by nothing more', async (t) => {
    const { todos, fake, receive, loaded, tick } = await live(t)
    fake.last.answer(joined)
    await loaded()
    tick(16)
    const heard: string[] = []
    todos.subscribe((objects) => heard.push(`${todos.status} ${objects.length}`))
    receive('create', { id: 1 })
    receive('create', { id: 2 })
    todos.close()
    tick(1000)

    assert.deepEqual(heard, ['current 0', 'current 1', 'closed 2'])
  })

  test('that a listener causes are notified too, and a listener may close the collection', async (t) => {
    const { todos, fake, loaded, tick } = await live(t)
    fake.last.answer(joined)
    await loaded({ id: 1 })
    tick(16)
    const heard: string[] = []
    todos.subscribe(() => {
      heard.push(todos.status)
      if (heard.length === 1) todos.reload()
      if (todos.status === 'stale') todos.close()
    })
    tick(16)
    fake.last.end()

    assert.deepEqual(heard, ['current', 'loading', 'stale', 'closed'])
  })
})

suite('an object without a key', () => {
  test('fails the load instead of replacing another object', async (t) => {
    const { todos, fake, loaded } = await live(t)
    fake.last.answer(joined)
    await loaded({ uuid: 'a' } as never, { uuid: 'b' } as never)

    assert.deepEqual([todos.status, String(todos.error)], ['failed', 'TypeError: Option \'key\' must be a function that gives a key, got {"uuid":"a"}'])
  })

  test('in a change emits `error`, and the collection keeps working', async (t) => {
    const { todos, fake, errors, receive, loaded } = await live(t)
    fake.last.answer(joined)
    receive('create', null as never)
    await loaded({ id: 1 })
    receive('delete', null as never)
    receive('update', { id: null })
    receive('create', { id: 2 })

    assert.deepEqual(todos.getSnapshot(), [{ id: 1 }, { id: 2 }])
    assert.deepEqual(errors.map(([text]) => text.replace(/.* gives/, 'gives')), ['null', 'null', '{"id":null}'].map((value) => `gives a key, got ${value}`))
  })

  test('in a change may come from a `key` function that throws', async (t) => {
    const { client, fake, errors } = await openFake(t)
    const all = client.live({ type: 'todos' }, { load: () => [], key: (object: { uuid: number }) => object.uuid.toString() })
    fake.last.answer(joined)
    await settled()
    fake.last.receive(change('todos', 'create', {}))
    fake.last.receive(change('todos', 'create', { uuid: 'a' }))

    assert.equal(all.getSnapshot().length, 1)
    assert.match(String(errors[0]?.[0]), /^TypeError/)
  })
})

test('a load that returns no array fails with an error that says so', async (t) => {
  const { todos, fake, loads } = await live(t)
  fake.last.answer(joined)
  loads[0]?.resolve({ items: [] } as never)
  await settled()

  assert.deepEqual([todos.status, String(todos.error)], ['failed', 'TypeError: Option \'load\' must be a function that gives an array, got {"items":[]}'])
})

suite('a temporary refusal', () => {
  const unavailable = { error: 'Not now.', code: 'unavailable', retry: true }

  test('of the group is not a failure: it is requested again with increasing delays', async (t) => {
    const { todos, fake, asked, tick, loaded } = await live(t)
    t.mock.method(Math, 'random', () => 0)
    for (const refusal of [unavailable, { ...unavailable, retry_after: 5000 }]) {
      fake.last.answer(refusal)
      await settled()
      fake.last.receive({ type: 'pong', id: 99 })
      assert.equal(todos.status, 'loading')
      const before = asked().length
      tick((refusal as { retry_after?: number }).retry_after ?? 0)
      tick(499)
      assert.equal(asked().length, before)
      tick(1)
      assert.equal(asked().length, before + 1)
    }
    fake.last.answer(joined)
    await loaded({ id: 1 })

    assert.equal(todos.status, 'current')
  })

  test('of a load is not a failure either, and the collection has its error', async (t) => {
    const { todos, fake, loads, receive, tick, loaded } = await live(t)
    t.mock.method(Math, 'random', () => 0)
    fake.last.answer(joined)
    const error = Object.assign(new Error('Not now.'), { retry: true })
    receive('create', { id: 9 })
    loads[0]?.reject(error)
    await settled()
    assert.deepEqual([todos.status, todos.error, todos.getSnapshot()], ['loading', error, [{ id: 9 }]])
    tick(499)
    assert.equal(loads.length, 1)
    tick(1)
    assert.equal(loads.length, 2)
    loads[1]?.reject(Object.assign(new Error('Not now.'), { retry: true, retryAfter: 2000 }))
    await settled()
    tick(2499)
    assert.equal(loads.length, 2)
    tick(1)
    await loaded({ id: 1 })

    assert.deepEqual([todos.status, todos.error, todos.getSnapshot()], ['current', undefined, [{ id: 1 }]])
  })

  test('of a load is not retried after the end of the connection or of the collection', async (t) => {
    for (const ends of ['drop', 'close'] as const) {
      const { todos, fake, loads, tick, drop } = await live(t)
      fake.last.answer(joined)
      loads[0]?.reject(Object.assign(new Error('Not now.'), { retry: true }))
      await settled()
      if (ends === 'drop') await drop()
      else todos.close()
      tick(20_000)

      assert.deepEqual([todos.status, loads.length], [ends === 'drop' ? 'stale' : 'closed', 1])
      t.mock.reset()
      t.mock.timers.reset()
    }
  })
})

test('a refusal is not a failure while the client is a member of the group', async (t) => {
  const { client, fake } = await live(t)
  fake.last.answer(joined)
  const second = client.live({ type: 'todos' }, { load: () => [{ id: 1 }] })
  fake.last.answer({ error: 'Too many messages.', code: 'rate_limited', retry: true })
  await settled()

  assert.deepEqual([second.status, second.getSnapshot()], ['current', [{ id: 1 }]])
})

test('a collection becomes empty when access to its group is lost', async (t) => {
  const { todos, fake, drop, reopen, loaded } = await live(t)
  fake.last.answer(joined)
  await loaded({ id: 1 })
  await drop()
  await reopen()
  fake.last.answer({ error: 'ACCESS_DENIED', code: 'access_denied' })
  await settled()

  assert.deepEqual([todos.status, String(todos.error), todos.getSnapshot()], ['failed', 'ACCESS_DENIED', []])
})

suite('after the connection was lost', () => {
  test('the objects are stale until they are loaded again', async (t) => {
    const { todos, fake, drop, reopen, loaded } = await live(t)
    fake.last.answer(joined)
    await loaded({ id: 1 })
    await drop()
    assert.deepEqual([todos.status, todos.getSnapshot()], ['stale', [{ id: 1 }]])
    await reopen()
    assert.equal(todos.status, 'stale')
    fake.last.answer(joined)
    assert.deepEqual([todos.status, todos.getSnapshot()], ['loading', [{ id: 1 }]])
    await loaded({ id: 2 })

    assert.deepEqual([todos.status, todos.getSnapshot()], ['current', [{ id: 2 }]])
  })

  test('the result of a load of the previous connection is ignored', async (t) => {
    for (const ends of ['resolve', 'reject'] as const) {
      const { todos, loads, fake, receive, drop, reopen, loaded } = await live(t)
      fake.last.answer(joined)
      receive('create', { id: 9 })
      await drop()
      await reopen()
      fake.last.answer(joined)
      loads[0]?.[ends]([{ id: 8 }])
      await settled()
      assert.equal(todos.status, 'loading')
      await loaded({ id: 1 })

      assert.deepEqual([todos.status, todos.getSnapshot()], ['current', [{ id: 1 }]])
      t.mock.timers.reset()
    }
  })
})

suite('a load that fails', () => {
  test('reports its error, still applies changes, and can be repeated', async (t) => {
    const { todos, loads, fake, receive, loaded } = await live(t)
    const error = new Error('no database')
    todos.reload()
    fake.last.answer(joined)
    receive('create', { id: 1 })
    loads[0]?.reject(error)
    await settled()
    assert.deepEqual([todos.status, todos.error, todos.getSnapshot()], ['failed', error, [{ id: 1 }]])
    receive('create', { id: 2 })
    assert.deepEqual([todos.status, todos.error, todos.getSnapshot().length], ['failed', error, 2])

    todos.reload()
    todos.reload()
    receive('create', { id: 4 })
    assert.equal(loads.length, 2)
    await loaded({ id: 3 })
    assert.deepEqual([todos.status, todos.error, todos.getSnapshot()], ['current', undefined, [{ id: 3 }, { id: 4 }]])
  })

  test('may throw synchronously', async (t) => {
    const { todos, fake } = await live(t, { load: () => { throw new Error('at once') } })
    fake.last.answer(joined)
    await settled()

    assert.equal(String(todos.error), 'Error: at once')
  })

  test('includes one whose `key` function throws', async (t) => {
    const { todos, fake, loaded } = await live(t, { key: () => { throw new Error('no key') } })
    fake.last.answer(joined)
    await loaded({ id: 1 })

    assert.equal(String(todos.error), 'Error: no key')
  })
})

suite('the end', () => {
  test('comes with `close()`: the client leaves the group, the objects stay', async (t) => {
    const { todos, fake, asked, receive, loaded } = await live(t)
    fake.last.answer(joined)
    await loaded({ id: 1 })
    todos.close()
    todos.close()
    receive('delete', { id: 1 })
    todos.reload()

    assert.deepEqual([todos.status, todos.getSnapshot()], ['closed', [{ id: 1 }]])
    assert.deepEqual(asked(), ['subscribe todos', 'unsubscribe todos'])
  })

  test('comes with the signal, aborted before or after the start', async (t) => {
    const controller = new AbortController()
    const { client, todos, asked } = await live(t, { signal: controller.signal })
    controller.abort()
    const late = client.live({ type: 'todos' }, { load: () => [], signal: controller.signal })

    assert.deepEqual([todos.status, late.status], ['closed', 'closed'])
    assert.equal(asked().filter((request) => request === 'subscribe todos').length, asked().filter((request) => request === 'unsubscribe todos').length)
  })

  test('comes with the close of the client', async (t) => {
    const { client, todos } = await live(t)
    client.close()

    assert.deepEqual([todos.status, todos.error], ['closed', undefined])
  })

  test('comes with a refusal of the server, and reports it', async (t) => {
    const { client, todos, fake, loads } = await live(t)
    fake.last.answer({ error: 'ACCESS_DENIED', code: 'access_denied' })
    await settled()
    assert.deepEqual([todos.status, String(todos.error)], ['failed', 'ACCESS_DENIED'])
    todos.reload()
    assert.deepEqual([todos.status, todos.error], ['loading', undefined])
    fake.last.answer(joined)
    assert.equal(loads.length, 1)
    fake.last.end(4403)
    const late = client.live({ type: 'todos' }, { load: () => [] })
    await settled()

    assert.deepEqual([late.status, String(late.error)], ['failed', 'closed by the server: 4403'])
  })
})
