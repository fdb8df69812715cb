import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { change } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openFake } from './support/open.ts'

const todo = { type: 'todo', id: 5 }
const joined = { data: { group: 'todo-5' } }
const denied = { error: 'ACCESS_DENIED', code: 'access_denied' }
const unavailable = { error: 'Not now.', code: 'unavailable', retry: true }

suite('subscribe', () => {
  test('sends a request for each call, and settles each with its own reply', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const first = client.subscribe(todo)
    fake.last.answer(joined)
    const second = client.subscribe({ type: 'todo', id: 5 })
    fake.last.answer(denied)

    assert.deepEqual(await first, { group: 'todo-5' })
    await assert.rejects(second, { message: 'ACCESS_DENIED' })
    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5'])
    assert.deepEqual([...client.groups], ['todo-5'])
  })

  test('that is refused while another one is pending leaves the decision to that one', async (t) => {
    const { client, fake } = await openFake(t)
    const first = client.subscribe(todo)
    const second = client.subscribe(todo)
    fake.last.receive({ id: 1, ...denied })
    await assert.rejects(first)
    assert.deepEqual([...client.groups], [])
    fake.last.receive({ id: 2, ...joined })

    assert.deepEqual(await second, { group: 'todo-5' })
    assert.deepEqual([...client.groups], ['todo-5'])
  })

  test('rejects when its signal aborts, and a later membership ends', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const controller = new AbortController()
    const { signal } = controller
    const subscribing = client.subscribe(todo, { signal })
    controller.abort(new Error('enough'))

    await assert.rejects(subscribing, { message: 'enough' })
    await assert.rejects(client.subscribe(todo, { signal }), { message: 'enough' })
    assert.deepEqual(asked(), ['subscribe todo-5', 'unsubscribe todo-5'])
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2 })
    assert.deepEqual([...client.groups], [])
  })

  test('that is aborted keeps the membership for other watchers', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const controllers = [new AbortController(), new AbortController()]
    const [first, second] = controllers.map(({ signal }) => client.subscribe(todo, { signal }))
    controllers[0]?.abort()
    await assert.rejects(first ?? Promise.resolve(), { name: 'AbortError' })
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2, ...joined })
    await second
    const third = client.subscribe(todo, { signal: AbortSignal.abort() })

    await assert.rejects(third, { name: 'AbortError' })
    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5'])
    assert.deepEqual([...client.groups], ['todo-5'])
  })

  test('that is not answered in time ends on both sides', async (t) => {
    const { client, fake, asked, tick } = await openFake(t, { pingInterval: 60_000 })
    const subscribing = client.subscribe(todo)
    tick(30_000)

    await assert.rejects(subscribing, { code: 'timeout' })
    assert.deepEqual(asked(), ['subscribe todo-5', 'unsubscribe todo-5'])
    fake.last.answer(denied)
  })

  test('rejects if `unsubscribe` comes before there is a connection', async (t) => {
    const { client, drop, reopen, asked } = await openFake(t)
    await drop()
    const subscribing = client.subscribe(todo)
    await client.unsubscribe(todo)

    await assert.rejects(subscribing, { message: 'unsubscribed', code: 'unsubscribed' })
    await reopen()
    assert.deepEqual(asked(), [])
  })

  test('in flight is answered after `unsubscribe`, and not sent again after a lost connection', async (t) => {
    const { client, fake, drop, reopen, asked } = await openFake(t)
    const answered = client.subscribe(todo)
    const left = client.unsubscribe(todo)
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2 })
    assert.deepEqual([await answered, await left], [{ group: 'todo-5' }, undefined])
    assert.deepEqual([...client.groups], [])

    const broken = assert.rejects(client.subscribe(todo), { code: 'connection_lost' })
    const leaving = client.unsubscribe(todo)
    await drop()
    await broken
    assert.equal(await leaving, undefined)
    await reopen()
    assert.deepEqual(asked(), [])
  })

  test('with an expired token is not repeated after unsubscribe, nor unsubscribe after subscribe', async (t) => {
    const { client, fake, asked } = await openFake(t, { token: () => 'new' })
    const expired = { error: 'expired', code: 'token_expired' }
    const first = client.subscribe(todo)
    fake.last.receive({ id: 1, ...expired })
    const left = client.unsubscribe(todo)
    fake.last.receive({ id: 2, ...expired })
    const second = client.subscribe(todo)

    await assert.rejects(first, { code: 'token_expired' })
    await assert.rejects(left, { code: 'token_expired' })
    fake.last.receive({ id: 3, ...joined })
    await second
    assert.deepEqual(asked(), ['subscribe todo-5', 'unsubscribe todo-5', 'subscribe todo-5'])
  })

  test('takes references as servers of the original take them', async (t) => {
    const { client, fake } = await openFake(t)
    const subscribing = client.subscribe({ type: 'collection', id: undefined as never, of: 'mine' })
    fake.last.answer({ data: { group: 'mine' } })
    await subscribing
    const leaving = client.unsubscribe({ of: 'mine', type: 'collection' })
    fake.last.answer()

    await leaving
    assert.deepEqual([...client.groups], [])
  })
})

suite('a group with several subscriptions', () => {
  test('is left with the last `unsubscribe`, and the earlier ones send nothing', async (t) => {
    const { client, fake, asked } = await openFake(t)
    let resyncs = 0
    const both = [client.subscribe(todo, { onResync: () => { resyncs += 1 } }), client.subscribe(todo, { onResync: () => { resyncs += 10 } })]
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2, ...joined })
    await Promise.all(both)
    await client.unsubscribe(todo)
    fake.last.receive({ type: 'subscription-update', data: { type: 'resync', group: 'todo-5' } })
    assert.deepEqual([[...client.groups], resyncs], [['todo-5'], 10])
    const left = client.unsubscribe(todo)
    fake.last.answer()
    await left

    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5', 'unsubscribe todo-5'])
    assert.deepEqual([...client.groups], [])
  })

  test('is the same for the ids 5 and \'5\'', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const [number, text] = [client.changes(todo), client.changes({ type: 'todo', id: '5' })]
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2, ...denied })
    await settled()
    await text.return?.()
    fake.last.receive(change('todo-5', 'update', 1))
    assert.equal((await number.next()).value?.object, 1)
    await number.return?.()

    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5', 'unsubscribe todo-5'])
  })

  test('is left with the last subscription if the server maps two references to one name', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const loop = client.changes({ type: 'todo', id: 'A' })
    const first = client.subscribe({ type: 'todo', id: 'a' })
    const second = client.changes({ type: 'todo', id: 'á' })
    for (const id of [1, 2, 3]) fake.last.receive({ id, data: { group: 'todo-a' } })
    await first
    await loop.return?.()
    await client.unsubscribe({ type: 'todo', id: 'a' })
    fake.last.receive(change('todo-a', 'update', 1))
    assert.equal((await second.next()).value?.object, 1)
    assert.equal(asked().filter((request) => request.startsWith('unsubscribe')).length, 0)
    await second.return?.()

    assert.equal(asked().at(-1), 'unsubscribe todo-á')
  })

  test('with two references, left by one before its name is known, is joined again for the other', async (t) => {
    const { client, fake, asked } = await openFake(t)
    const leaving = client.changes({ type: 'todo', id: 'A' })
    const staying = client.changes({ type: 'todo', id: 'a' })
    await leaving.return?.()
    for (const id of [1, 2]) fake.last.receive({ id, type: 'subscribe', data: { group: 'todo-a' } })
    assert.deepEqual(asked(), ['subscribe todo-A', 'subscribe todo-a', 'unsubscribe todo-A'])
    fake.last.receive({ id: 3, type: 'unsubscribe' })
    await settled()

    assert.deepEqual(asked().slice(3), ['subscribe todo-a'])
    fake.last.receive({ id: 4, type: 'subscribe', data: { group: 'todo-a' } })
    fake.last.receive(change('todo-a', 'update', 1))
    assert.equal((await staying.next()).value?.object, 1)
  })

  test('is still requested for the others after one ends without a connection', async (t) => {
    const { client, fake, drop, reopen, asked } = await openFake(t)
    await drop()
    const both = [client.subscribe(todo), client.subscribe(todo)]
    await client.unsubscribe(todo)
    await assert.rejects(both[0] ?? Promise.resolve(), { code: 'unsubscribed' })
    await reopen()
    fake.last.answer(joined)

    assert.deepEqual(await both[1], { group: 'todo-5' })
    assert.deepEqual(asked(), ['subscribe todo-5'])
  })

  test('settles both requests in flight when one is unsubscribed', async (t) => {
    const { client, fake, drop, reopen } = await openFake(t)
    const answered = [client.subscribe(todo), client.subscribe(todo)]
    await client.unsubscribe(todo)
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2, ...joined })
    assert.deepEqual(await Promise.all(answered), [{ group: 'todo-5' }, { group: 'todo-5' }])

    const third = assert.rejects(client.subscribe(todo), { code: 'connection_lost' })
    await client.unsubscribe(todo)
    const left = client.unsubscribe(todo)
    const broken = client.subscribe(todo)
    await drop()
    assert.equal(await left, undefined)
    await third
    await reopen()
    fake.last.answer(joined)
    assert.deepEqual(await broken, { group: 'todo-5' })
  })
})

suite('a loop over changes with a temporary refusal', () => {
  test('waits and joins later; a concurrent call of `subscribe` rejects', async (t) => {
    const { client, fake, tick, asked } = await openFake(t, { pingInterval: 0 })
    const changes = client.changes(todo)
    const next = changes.next()
    fake.last.answer({ ...unavailable, retry_after: 3000 })
    await settled()
    const refused = client.subscribe(todo)
    fake.last.answer(unavailable)
    await assert.rejects(refused, { code: 'unavailable', retry: true })
    tick(3499)
    assert.equal(asked().length, 2)
    tick(1501)
    assert.equal(asked().length, 3)
    fake.last.answer(joined)
    fake.last.receive(change('todo-5', 'update', 1))

    assert.equal((await next).value?.object, 1)
  })

  test('that has ended meanwhile sends no request', async (t) => {
    const { client, fake, tick, asked } = await openFake(t)
    const changes = client.changes(todo)
    await changes.return?.()
    fake.last.receive({ id: 1, ...unavailable })
    fake.last.receive({ id: 2 })
    await settled()
    tick(20_000)

    assert.deepEqual(asked(), ['subscribe todo-5', 'unsubscribe todo-5'])
  })
})

suite('unsubscribe', () => {
  test('rejects with the error of the server', async (t) => {
    const { client, fake } = await openFake(t)
    const leaving = client.unsubscribe(todo)
    fake.last.answer({ error: 'Internal error.' })

    await assert.rejects(leaving, { message: 'Internal error.' })
  })

  test('keeps the membership for loops over changes', async (t) => {
    const { client, fake, asked } = await openFake(t)
    client.subscribe(todo).catch(() => {})
    const changes = client.changes(todo)
    fake.last.receive({ id: 1, ...joined })
    fake.last.receive({ id: 2, ...joined })
    assert.equal(await client.unsubscribe(todo), undefined)
    assert.deepEqual([...client.groups], ['todo-5'])
    await changes.return?.()

    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-5', 'unsubscribe todo-5'])
    assert.deepEqual([...client.groups], [])
  })

  test('at the end of a loop is sent without a promise; a failure emits `error`', async (t) => {
    const { client, fake, errors } = await openFake(t)
    const changes = client.changes(todo)
    fake.last.answer(joined)
    await changes.return?.()
    await changes.return?.()
    fake.last.answer({ error: 'Internal error.' })
    await settled()

    assert.deepEqual(errors.map(([text]) => text), ['Internal error.'])
  })

  test('at the end of a loop sends nothing without a connection', async (t) => {
    const { client, drop, reopen, asked } = await openFake(t)
    const changes = client.changes(todo)
    await drop()
    await changes.return?.()
    await reopen()

    assert.deepEqual(asked(), [])
  })
})

suite('after a reconnect', () => {
  async function rejoin (t: Parameters<typeof openFake>[0]) {
    const line = await openFake(t, { pingInterval: 60_000 })
    const heard: unknown[][] = []
    const subscribing = line.client.subscribe(todo)
    line.fake.last.answer(joined)
    await subscribing
    line.client.on('todo-5', (...args) => heard.push(args))
    await line.drop()
    assert.deepEqual([...line.client.groups], [])
    await line.reopen()
    return { ...line, heard }
  }

  test('the groups are joined again', async (t) => {
    const { client, fake, heard, asked } = await rejoin(t)
    fake.last.answer(joined)
    fake.last.receive(change('todo-5', 'update', 5))

    assert.deepEqual(asked(), ['subscribe todo-5'])
    assert.deepEqual([...client.groups], ['todo-5'])
    assert.deepEqual(heard, [[null, { group: 'todo-5', type: 'update', object: 5 }]])
  })

  test('a denied group notifies its listeners, and is dropped', async (t) => {
    const { client, fake, heard, drop, reopen, asked } = await rejoin(t)
    const changes = client.changes(todo)
    fake.last.receive({ id: 2, ...denied })
    fake.last.receive({ id: 3, ...denied })

    await assert.rejects(changes.next(), { message: 'ACCESS_DENIED' })
    assert.deepEqual(heard.map(([error, data]) => [String(error), data]), [['ACCESS_DENIED', undefined]])
    await drop()
    await reopen()
    assert.deepEqual(asked(), [])
  })

  test('a temporary refusal is retried with increasing delays until the server accepts', async (t) => {
    const { client, fake, tick, asked } = await rejoin(t)
    fake.last.answer(unavailable)
    await settled()
    assert.deepEqual(asked(), ['subscribe todo-5'])
    tick(1000)
    fake.last.answer(unavailable)
    await settled()
    tick(499)
    assert.equal(asked().length, 2)
    tick(1501)
    fake.last.answer(joined)
    await settled()
    tick(20_000)

    assert.equal(asked().length, 3)
    assert.deepEqual([...client.groups], ['todo-5'])
  })

  test('a missing answer is retried, with one timer for many groups', async (t) => {
    const { client, fake, tick, asked } = await rejoin(t)
    const other = client.subscribe({ type: 'todo', id: 6 })
    fake.last.answer({ data: { group: 'todo-6' } })
    await other
    tick(30_000)
    await settled()
    tick(1000)
    fake.last.answer(joined)

    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-6', 'subscribe todo-5'])
    assert.deepEqual([...client.groups].sort(), ['todo-5', 'todo-6'])
  })

  test('a temporarily refused group is requested after the groups with a membership', async (t) => {
    const { client, fake, tick, drop, reopen, asked } = await rejoin(t)
    fake.last.answer(joined)
    await settled()
    const changes = client.changes({ type: 'todo', id: 6 })
    fake.last.answer(unavailable)
    await settled()
    await drop()
    await reopen()
    assert.deepEqual(asked(), ['subscribe todo-5'])
    fake.last.answer(joined)
    tick(1999)
    assert.equal(asked().length, 1)
    tick(501)
    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-6'])
    fake.last.answer({ data: { group: 'todo-6' } })
    fake.last.receive(change('todo-6', 'create', 1))
    assert.deepEqual(await changes.next(), { done: false, value: { group: 'todo-6', type: 'create', object: 1 } })
    await drop()
    await reopen()

    assert.deepEqual(asked(), ['subscribe todo-5', 'subscribe todo-6'])
  })

  test('retries end with the connection, and with the client', async (t) => {
    const { client, fake, tick, drop, reopen, asked } = await rejoin(t)
    fake.last.answer(unavailable)
    await settled()
    await drop()
    await reopen()
    assert.deepEqual(asked(), ['subscribe todo-5'])
    fake.last.answer(unavailable)
    await settled()
    client.close()
    tick(60_000)

    assert.deepEqual(asked(), ['subscribe todo-5'])
  })
})

test('a group with the name of an event does not call the listeners of that event', async (t) => {
  const { client, fake } = await openFake(t)
  client.on('open', () => assert.fail('it is open since long'))
  const changes = client.changes({ type: 'open' })
  fake.last.answer({ data: { group: 'open' } })
  fake.last.receive(change('open', 'create', 1))

  assert.deepEqual(await changes.next(), { done: false, value: { group: 'open', type: 'create', object: 1 } })
})
