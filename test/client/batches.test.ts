/** Batches: a live collection asks for them and applies each as a whole; everything else receives single changes. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import type { LiveOptions } from '../../lib/client/index.ts'
import { change } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openFake } from './support/open.ts'

interface Todo { id: number, title?: string }

const todo = { type: 'todo', id: 5 }
const at = (offset: number) => ({ group: 'todo-5', epoch: 'k3f', offset })
const joined = (offset: number, more: object = {}) => ({ data: { group: 'todo-5' }, position: at(offset), ...more })
const update = (object: unknown) => ({ type: 'update', object })
const batch = (changes: unknown, more: object = {}) => {
  return { id: 7, type: 'subscription-update', data: { group: 'todo-5', type: 'batch', changes }, ...more }
}
const part = (object: unknown, more: object = {}) => ({ ...change('todo-5', 'update', object), ...more })

/** A client that follows the group with a loop, a listener and, unless it is left out, a live collection. */
async function open (t: TestContext, { live = true, key }: { live?: boolean, key?: LiveOptions<Todo>['key'] } = {}) {
  const line = await openFake(t, { pingInterval: 60_000 })
  const { client, fake } = line
  const [looped, heard, shown]: [unknown[], unknown[], string[]] = [[], [], []]
  const loop = client.changes(todo)
  const follow = async () => {
    for await (const { object } of loop) looped.push(object)
  }
  const following = follow()
  t.after(() => following)
  client.on('todo-5', (_, { object }) => heard.push(object))
  fake.last.answer(joined(0))
  const todos = live
    ? client.live<string, Todo>(todo, { load: () => [{ id: 1 }, { id: 2 }], key })
    : undefined
  if (todos) {
    fake.last.answer(joined(0))
    await settled()
    todos.subscribe((objects) => shown.push(objects.map(({ id, title = '' }) => `${id}${title}`).join()))
    shown.length = 0
    // the listeners rest for a frame
    line.tick(16)
  }
  return {
    ...line,
    todos,
    loop,
    looped,
    heard,
    shown,
    /** A field of the requests on this connection. */
    fields: (name: string) => fake.last.requests.map((request) => request[name]),
    async again (offset: number) {
      await line.drop()
      await line.reopen()
      fake.last.answer(joined(offset, { recovered: true, top: at(offset) }))
    }
  }
}

suite('a live collection', () => {
  test('asks for batches, also in the requests of others for its group, until it is closed', async (t) => {
    const { client, todos, fake, fields, again } = await open(t)
    assert.deepEqual(fields('batch'), [undefined, true])
    const subscribing = client.subscribe(todo)
    fake.last.answer(joined(0))
    await subscribing
    client.changes({ type: 'todo', id: 6 })
    assert.deepEqual(fields('batch'), [undefined, true, true, undefined])

    todos?.close()
    await again(0)
    assert.deepEqual(fields('batch'), [undefined, undefined])
  })

  test('applies a batch, and then calls its listeners once', async (t) => {
    const { todos, fake, shown } = await open(t)
    fake.last.receive(batch([update({ id: 1, title: 'a' }), { type: 'delete', object: { id: 2 } }, { type: 'create', object: { id: 3 } }]))

    assert.deepEqual(shown, ['1a,3'])
    assert.deepEqual(todos?.getSnapshot(), [{ id: 1, title: 'a' }, { id: 3 }])
  })

  test('never shows a part of a batch, not even to its own functions', async (t) => {
    const seen = new Set<string>()
    const look = () => seen.add(JSON.stringify(opened.todos?.getSnapshot()))
    const key = ({ id }: Todo) => {
      look()
      return id
    }
    const opened: Partial<Awaited<ReturnType<typeof open>>> = {}
    Object.assign(opened, await open(t, { key }))
    const { client, fake } = opened as Awaited<ReturnType<typeof open>>
    const errors: string[] = []
    client.on('error', (text) => {
      look()
      errors.push(text)
    })
    seen.clear()
    fake.last.receive(batch([update({ id: 1, title: 'a' }), update({ title: 'without a key' }), update({ id: 2, title: 'a' })]))
    look()

    assert.equal(errors.length, 1)
    assert.deepEqual([...seen], ['[{"id":1},{"id":2}]', '[{"id":1,"title":"a"},{"id":2,"title":"a"}]'])
  })

  test('applies the batches of a load with the loaded objects', async (t) => {
    const { client, fake } = await openFake(t)
    const load = Promise.withResolvers<Todo[]>()
    const todos = client.live<string, Todo>(todo, { load: () => load.promise })
    const shown: unknown[] = []
    fake.last.answer(joined(0))
    todos.subscribe((objects) => shown.push(objects))
    fake.last.receive(batch([update({ id: 1, title: 'a' }), update({ id: 2, title: 'a' })]))
    load.resolve([{ id: 1 }, { id: 2 }])
    await settled()

    assert.deepEqual(shown.at(-1), [{ id: 1, title: 'a' }, { id: 2, title: 'a' }])
  })

  test('takes no parts of batches before the reply to its own request', async (t) => {
    const { client, fake } = await open(t, { live: false })
    const todos = client.live<string, Todo>(todo, { load: () => [{ id: 1 }] })
    fake.last.receive(part({ id: 1, title: 'a' }))
    assert.deepEqual(todos.getSnapshot(), [])
    fake.last.answer(joined(1))
    await settled()

    assert.deepEqual(todos.getSnapshot(), [{ id: 1 }])
  })

  test('takes single changes from a server without batches', async (t) => {
    const { todos, fake, looped, heard } = await open(t)
    for (const id of [1, 2]) fake.last.receive(part({ id, title: 'a' }, { position: at(id) }))
    await settled()

    assert.deepEqual(todos?.getSnapshot(), [{ id: 1, title: 'a' }, { id: 2, title: 'a' }])
    assert.deepEqual(looped, heard)
  })

  test('gets its batches back when another reference leads to its group', async (t) => {
    const { client, fake, fields } = await open(t)
    const subscribing = client.subscribe({ type: 'todo', id: '05' })
    fake.last.answer(joined(0))
    await subscribing
    assert.deepEqual(fields('batch'), [undefined, true, undefined, true])
    assert.deepEqual(fields('recover'), [true, true, true, true])

    fake.last.answer(joined(0))
    assert.equal(fake.last.requests.length, 4)
  })
})

suite('loops and listeners', () => {
  test('receive the changes of a batch one by one, in the form of single changes', async (t) => {
    const { client, fake, looped, heard } = await open(t)
    const changes: unknown[] = []
    client.on('todo-5', (_, each) => changes.push(each))
    fake.last.receive(batch([update({ id: 1 }), { type: 'delete', object: { id: 2 } }]))
    await settled()

    assert.deepEqual(changes, [{ group: 'todo-5', type: 'update', object: { id: 1 } }, { group: 'todo-5', type: 'delete', object: { id: 2 } }])
    assert.deepEqual([looped, heard], [[{ id: 1 }, { id: 2 }], [{ id: 1 }, { id: 2 }]])
  })

  test('receive the message of an application that is called a batch as it is', async (t) => {
    const { client, fake } = await open(t, { live: false })
    const changes: unknown[] = []
    client.on('todo-5', (_, each) => changes.push(each))
    fake.last.receive(batch('of cookies'))

    assert.deepEqual(changes, [{ group: 'todo-5', type: 'batch', changes: 'of cookies' }])
  })

  test('receive no more changes of a batch after a listener has closed the client', async (t) => {
    const { client, fake, heard } = await open(t)
    client.once('todo-5', () => client.close())
    fake.last.receive(batch([update({ id: 1 }), update({ id: 2 })]))

    assert.deepEqual(heard, [{ id: 1 }])
  })

  test('receive each change once if the connection breaks within a message that comes in parts', async (t) => {
    const { fake, fields, again, looped, heard } = await open(t, { live: false })
    fake.last.receive(part(1, { position: at(1) }))
    fake.last.receive(part(2))
    fake.last.receive(part(3))
    await again(1)
    assert.deepEqual(fields('recover'), [at(1)])
    fake.last.receive(part(2))
    // the next server has batches, and this client is cut off again
    await again(1)
    fake.last.receive(batch([update(2), update(3), update(4)], { position: at(2) }))
    fake.last.receive(part(5))
    await again(2)
    fake.last.receive(part(5))
    fake.last.receive(part(6, { position: at(3) }))
    fake.last.receive(part(7, { position: at(4) }))
    await settled()

    assert.deepEqual(fields('recover'), [at(2)])
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6, 7])
    assert.deepEqual(looped, heard)
  })

  test('receive all changes again after parts of a message that is not recovered', async (t) => {
    const { client, fake, drop, reopen, heard } = await open(t, { live: false })
    const missed: string[] = []
    client.on('resync', (group) => missed.push(group))
    fake.last.receive(part(1))
    await drop()
    await reopen()
    fake.last.answer(joined(8, { recovered: false }))
    fake.last.receive(part(2, { position: at(9) }))

    assert.deepEqual([heard, missed], [[1, 2], ['todo-5']])
  })

  test('receive messages without a membership, which change nothing about it', async (t) => {
    const { fake, drop, reopen, heard } = await open(t, { live: false })
    await drop()
    await reopen()
    fake.last.receive(part(1))
    fake.last.answer(joined(0, { recovered: true, top: at(1) }))
    fake.last.receive(part(2, { position: at(1) }))

    assert.deepEqual(heard, [1, 2])
  })
})

test('a position counts once the whole batch is applied', async (t) => {
  const { client, todos, fake, fields, drop, reopen } = await open(t)
  client.once('todo-5', () => client.reconnect())
  fake.last.receive(batch([update({ id: 1, title: 'a' }), update({ id: 2, title: 'a' })], { position: at(1) }))
  await drop()
  await reopen()
  assert.deepEqual(fields('recover'), [at(0)])
  fake.last.answer(joined(0, { recovered: true, top: at(1) }))
  fake.last.receive(batch([update({ id: 1, title: 'a' }), update({ id: 2, title: 'a' })], { position: at(1) }))

  assert.equal(todos?.status, 'current')
  await drop()
  await reopen()
  assert.deepEqual(fields('recover'), [at(1)])
})
