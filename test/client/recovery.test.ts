import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { memoryBroker } from '../../lib/index.ts'
import { change, connect, serve, until } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openLine } from './support/line.ts'
import { openFake } from './support/open.ts'

const todo = { type: 'todo', id: 5 }
const at = (offset: number, epoch = 'k3f') => ({ group: 'todo-5', epoch, offset })
const joined = (offset: number, more: object = {}) => ({ data: { group: 'todo-5' }, position: at(offset), ...more })
const update = (offset: number, object: unknown = offset) => ({ ...change('todo-5', 'update', object), position: at(offset) })
const resync = (offset: number, epoch?: string) => ({ type: 'subscription-update', data: { type: 'resync', group: 'todo-5' }, position: at(offset, epoch) })
const unavailable = { error: 'Not now.', code: 'unavailable', retry: true }

/** A client that records its notifications. */
async function open (t: TestContext) {
  const line = await openFake(t, { pingInterval: 60_000 })
  const events: string[] = []
  line.client.on('resync', (group) => events.push(group))
  return {
    ...line,
    events,
    /** The fields `recover` of the requests on this connection. */
    recovers: () => line.fake.last.requests.map(({ recover }) => recover),
    async again () {
      await line.drop()
      await line.reopen()
    }
  }
}

suite('a subscription', () => {
  test('asks for positions, and after a reconnect for the messages after the last one', async (t) => {
    const { client, fake, events, recovers, again } = await open(t)
    const heard: unknown[] = []
    const subscribing = client.subscribe(todo)
    assert.deepEqual(recovers(), [true])
    fake.last.answer(joined(57))
    client.on((await subscribing).group, (_, { object }) => heard.push(object))
    await again()
    assert.deepEqual(recovers(), [at(57)])

    fake.last.answer(joined(57, { recovered: true }))
    fake.last.receive(update(58))
    fake.last.receive({ type: 'of the application', position: at(59) })
    fake.last.receive({ type: 'of another group', position: { ...at(99), group: 'todo-6' } })
    await again()

    assert.deepEqual(recovers(), [at(59)])
    assert.deepEqual(heard, [58])
    assert.deepEqual(events, [])
  })

  test('reports once per reconnect that the server cannot recover, and continues from the current position', async (t) => {
    const { client, fake, events, recovers, again } = await open(t)
    let told = 0
    const subscribing = client.subscribe(todo, { onResync: () => { told++ } })
    fake.last.answer(joined(57))
    await subscribing
    assert.deepEqual([events, told], [[], 0])

    await again()
    fake.last.answer(joined(90, { recovered: false }))
    assert.deepEqual([events, told], [['todo-5'], 1])
    await again()
    assert.deepEqual(recovers(), [at(90)])
    fake.last.answer({ data: { group: 'todo-5' }, recovered: false })
    assert.deepEqual([events.length, told], [2, 2])
    await again()

    assert.deepEqual(recovers(), [true])
  })

  test('is never recovered by a server without recovery', async (t) => {
    const { client, fake, events, recovers, again } = await open(t)
    const subscribing = client.subscribe(todo)
    fake.last.answer({ data: { group: 'todo-5' } })
    await subscribing
    fake.last.receive(change('todo-5', 'update', 1))
    await again()
    assert.deepEqual(recovers(), [true])
    fake.last.answer({ data: { group: 'todo-5' } })

    assert.deepEqual(events, ['todo-5'])
  })

  test('is notified of lost messages, which call no listeners of changes', async (t) => {
    const { client, fake, events, recovers, again } = await open(t)
    const heard: unknown[] = []
    let told = 0
    const subscribing = client.subscribe(todo, { onResync: () => { told++ } })
    client.on('todo-5', (_, change) => heard.push(change))
    fake.last.answer(joined(57))
    await subscribing
    fake.last.receive(resync(3, 'new'))
    await again()

    assert.deepEqual([events, told, heard], [['todo-5'], 1, []])
    assert.deepEqual(recovers(), [at(3, 'new')])
  })

  test('that is requested twice recovers once', async (t) => {
    const { client, fake, events, recovers, again } = await open(t)
    const first = client.subscribe(todo)
    fake.last.answer(joined(57))
    await first
    const second = client.subscribe(todo)
    assert.deepEqual(recovers(), [true, true])
    fake.last.answer(joined(60))
    await second
    await again()
    const third = client.subscribe(todo)

    assert.deepEqual(recovers(), [at(60), true])
    fake.last.receive({ id: 3, ...joined(60, { recovered: true }) })
    fake.last.receive(update(61))
    fake.last.receive({ id: 4, ...joined(61) })
    await third
    assert.deepEqual(events, [])
  })

  test('that only the second request joins again has missed changes', async (t) => {
    const { client, fake, events, again } = await open(t)
    const first = client.subscribe(todo)
    fake.last.answer(joined(57))
    await first
    await again()
    const second = client.subscribe(todo)
    fake.last.receive({ id: 2, ...unavailable })
    await settled()
    fake.last.receive({ id: 3, ...joined(61) })
    await second

    assert.deepEqual(events, ['todo-5'])
  })

  test('that is refused temporarily keeps its position', async (t) => {
    const { client, fake, events, recovers, again, tick } = await open(t)
    const subscribing = client.subscribe(todo)
    fake.last.answer(joined(57))
    await subscribing
    await again()
    fake.last.answer(unavailable)
    await settled()
    // messages that arrive without a membership do not change it
    fake.last.receive(update(80))
    tick(1000)

    assert.deepEqual(recovers(), [at(57), at(57)])
    fake.last.answer(joined(57, { recovered: true }))
    assert.deepEqual(events, [])
  })

  test('ignores an invalid position', async (t) => {
    const { client, fake, recovers, again } = await open(t)
    const subscribing = client.subscribe(todo)
    fake.last.answer(joined(57))
    await subscribing
    fake.last.receive({ type: 'odd', position: { group: 'todo-5' } })
    await again()

    assert.deepEqual(recovers(), [at(57)])
  })

  test('that has ended or failed has no position', async (t) => {
    const { client, fake, events, recovers } = await open(t)
    let told = 0
    const onResync = () => { told++ }
    const subscribing = client.subscribe(todo, { onResync })
    fake.last.answer(joined(57))
    await subscribing
    const changes = client.changes(todo)
    fake.last.answer(joined(57))
    await client.unsubscribe(todo)
    for (const options of [{ onResync }, {}]) {
      const refused = client.subscribe(todo, options)
      fake.last.answer({ error: 'ACCESS_DENIED' })
      await assert.rejects(refused)
    }
    fake.last.receive(resync(60))
    assert.deepEqual([events, told], [['todo-5'], 0])

    await client.unsubscribe(todo)
    await changes.return?.()
    fake.last.answer()
    const again = client.subscribe(todo)
    fake.last.answer(joined(70))
    await again
    assert.equal(recovers().at(-1), true)
    assert.deepEqual(events, ['todo-5'])
  })

  test('keeps working when a listener throws', async (t) => {
    const { client, fake, events } = await open(t)
    t.mock.method(globalThis, 'queueMicrotask', () => {})
    const subscribing = client.subscribe(todo, { onResync () { throw new Error('by the listener') } })
    fake.last.answer(joined(57))
    await subscribing
    fake.last.receive(resync(60))

    assert.deepEqual(events, ['todo-5'])
  })
})

suite('a loop over changes', () => {
  test('receives a resync in order with the changes, if it has the option `resync`', async (t) => {
    const { client, fake, again } = await open(t)
    const [asks, asksNot] = [client.changes(todo, { resync: true }), client.changes(todo)]
    fake.last.receive({ id: 1, ...joined(57) })
    fake.last.receive({ id: 2, ...joined(57) })
    fake.last.receive(update(58))
    fake.last.receive(resync(60))
    fake.last.receive(update(61))
    await again()
    fake.last.receive({ id: 3, ...joined(90, { recovered: false }) })
    fake.last.receive(update(91))
    await again()
    fake.last.receive({ id: 4, ...joined(91, { recovered: true }) })
    fake.last.receive(update(92))
    const late = client.changes(todo, { resync: true })
    fake.last.receive(resync(92))
    fake.last.receive({ id: 5, ...joined(92) })
    fake.last.receive(update(93))

    const take = async (changes: AsyncIterator<{ type: string, object?: unknown }, undefined>, count: number) => {
      const taken: unknown[] = []
      for (let n = 0; n < count; n++) taken.push((await changes.next()).value)
      return taken.map((value) => Object(value).object ?? value)
    }
    const missed = { group: 'todo-5', type: 'resync' }
    assert.deepEqual(await take(asks, 8), [58, missed, 61, missed, 91, 92, missed, 93])
    assert.deepEqual(await take(asksNot, 5), [58, 61, 91, 92, 93])
    assert.deepEqual(await take(late, 1), [93])
  })
})

suite('a live collection', () => {
  async function live (t: TestContext) {
    const line = await open(t)
    let loads: PromiseWithResolvers<{ id: number }[]>[] = []
    const todos = line.client.live(todo, {
      load () {
        const load = Promise.withResolvers<{ id: number }[]>()
        loads.push(load)
        return load.promise
      }
    })
    return {
      ...line,
      todos,
      receive: (id: number, offset: number) => line.fake.last.receive({ ...change('todo-5', 'create', { id }), position: at(offset) }),
      /** Ends the running loads. @returns their number */
      async loaded (...ids: number[]) {
        const ended = loads
        loads = []
        for (const load of ended) load.resolve(ids.map((id) => ({ id })))
        await settled()
        return ended.length
      },
      state: () => [todos.status, todos.getSnapshot().map(({ id }) => id)]
    }
  }

  test('does not load again after a recovery', async (t) => {
    const { fake, again, receive, loaded, state } = await live(t)
    fake.last.answer(joined(57))
    assert.equal(await loaded(1), 1)
    await again()
    assert.deepEqual(state(), ['stale', [1]])
    fake.last.answer(joined(57, { recovered: true }))
    receive(2, 58)

    assert.equal(await loaded(), 0)
    assert.deepEqual(state(), ['current', [1, 2]])
  })

  test('is current only when all missed changes have arrived', async (t) => {
    const { fake, again, receive, loaded, state } = await live(t)
    fake.last.answer(joined(57))
    await loaded(1)
    await again()
    fake.last.answer(joined(57, { recovered: true, top: at(59) }))
    assert.deepEqual(state(), ['stale', [1]])
    receive(2, 58)
    assert.deepEqual(state(), ['stale', [1, 2]])
    receive(3, 59)
    assert.deepEqual(state(), ['current', [1, 2, 3]])
    await again()
    fake.last.answer(joined(59, { recovered: true, top: at(59) }))

    assert.deepEqual(state(), ['current', [1, 2, 3]])
    assert.equal(await loaded(), 0)
  })

  test('starts again if the connection or messages are lost before that', async (t) => {
    const { fake, again, receive, loaded, state, recovers, tick } = await live(t)
    fake.last.answer(joined(57))
    await loaded(1)
    await again()
    fake.last.answer(joined(57, { recovered: true, top: at(59) }))
    receive(2, 58)
    await again()
    assert.deepEqual(recovers(), [at(58)])
    fake.last.answer(joined(58, { recovered: true, top: at(60) }))
    fake.last.receive({ ...resync(60), spread: 100 })
    receive(4, 60)
    assert.deepEqual(state(), ['loading', [1, 2, 4]])
    tick(100)
    assert.equal(await loaded(5), 1)

    assert.deepEqual(state(), ['current', [5]])
  })

  test('loads once for losses during the delay before a load, and again for a loss during the load', async (t) => {
    const { fake, loaded, state, tick } = await live(t)
    t.mock.method(Math, 'random', () => 0.5)
    fake.last.answer(joined(57))
    await loaded(1)
    for (const offset of [60, 61, 62]) {
      fake.last.receive({ ...resync(offset), spread: 1000 })
      tick(200)
    }
    fake.last.receive({ ...resync(63), spread: 0 })
    assert.equal(await loaded(2), 2)
    fake.last.receive({ ...resync(64), spread: 1000 })
    fake.last.receive({ ...resync(64), spread: 1000 })
    tick(500)
    fake.last.receive({ ...resync(65), spread: 1000 })
    assert.deepEqual([await loaded(3), state()], [1, ['loading', [2]]])
    tick(500)

    assert.deepEqual([await loaded(4), state()], [1, ['current', [4]]])
  })

  test('loads again after an incomplete load, even if the server recovers', async (t) => {
    const { fake, again, loaded, state } = await live(t)
    fake.last.answer(joined(57))
    await again()
    fake.last.answer(joined(57, { recovered: true }))
    assert.deepEqual(state(), ['loading', []])
    assert.equal(await loaded(1), 2)

    assert.deepEqual(state(), ['current', [1]])
  })

  test('loads again once when changes were missed', async (t) => {
    const { fake, again, receive, loaded, state, tick } = await live(t)
    t.mock.method(Math, 'random', () => 0.5)
    fake.last.answer(joined(57))
    await loaded(1)
    await again()
    fake.last.answer(joined(90, { recovered: false }))
    receive(3, 91)
    assert.deepEqual(state(), ['loading', [1]])
    assert.equal(await loaded(2), 1)
    assert.deepEqual(state(), ['current', [2, 3]])

    fake.last.receive(resync(95))
    receive(5, 96)
    assert.deepEqual(state(), ['loading', [2, 3, 5]])
    tick(1000)
    receive(6, 97)
    assert.equal(await loaded(4), 1)
    assert.deepEqual(state(), ['current', [4, 6]])
  })

  test('loads if it is created while the connection is down, even if others recover', async (t) => {
    const { client, fake, drop, reopen, loaded } = await live(t)
    fake.last.answer(joined(57))
    await loaded(1)
    await drop()
    let loads = 0
    client.live(todo, { load: () => { loads++; return [] } })
    await reopen()
    fake.last.answer(joined(57, { recovered: true }))

    assert.deepEqual([await loaded(), loads], [0, 1])
  })
})

// tests with real sockets come last: their timers must not meet a mocked clock

for (const [kind, size] of [['misses nothing', 10_000], ['misses nothing that it is not told of', 30]] as const) {
  test(`a client that loses its connection repeatedly in a stream of changes ${kind}`, async (t) => {
    const server = await serve(t, {
      broker: memoryBroker({ history: { size, ttl: 60_000 } }),
      recoveryLimit: { messages: size, bytes: 2 ** 30 },
      with: (app) => app.rohrpost.group('todo', { authorize: () => true })
    })
    const line = await openLine(t, server)
    const client = connect(t, line)
    const changes = client.changes(todo, { resync: true })
    await client.subscribe(todo)
    const TOTAL = 3000
    let cuts = 0
    const streaming = (async () => {
      for (let n = 1; n <= TOTAL; n++) {
        server.app.rohrpost.sendToGroup('todo-5', change('todo-5', 'update', n))
        if (n % 10 !== 0) continue
        if (Math.random() < 0.2 || n === 1500) {
          cuts++
          line.cut()
        }
        // the next changes come while the client is away, joining, or a member
        if (Math.random() < 0.3) await until(client, 'open')
        await new Promise(setImmediate)
      }
      // changes that could not be recovered are in the past now
      await client.ready()
      await client.subscribe(todo)
      server.app.rohrpost.sendToGroup('todo-5', change('todo-5', 'delete', TOTAL + 1))
    })()

    let [heard, resyncs, isSure] = [0, 0, true]
    for await (const { type, ...rest } of changes) {
      if (type === 'resync') {
        resyncs++
        isSure = false
        continue
      }
      const { object } = rest as { object: number }
      assert.ok(isSure ? object === heard + 1 : object > heard, `${object} after ${heard}`)
      heard = object
      isSure = true
      if (type === 'delete') break
    }
    await streaming

    t.diagnostic(`${cuts} cuts, ${resyncs} resyncs`)
    if (size > TOTAL) assert.equal(resyncs, 0)
    else assert.ok(resyncs > 0)
  })
}

test('a group that is followed in two ways recovers once for both', async (t) => {
  const { client, fake, events, recovers, again } = await open(t)
  const loads: string[] = []
  const both = ['short', 'long'].map((view) => client.live({ ...todo, view }, {
    load () {
      loads.push(view)
      return []
    }
  }))
  fake.last.receive({ id: 1, ...joined(57) })
  fake.last.receive({ id: 2, ...joined(57) })
  await settled()
  let changes = 0
  client.on('todo-5', () => changes++)
  await again()

  assert.deepEqual(recovers(), [at(57)])
  fake.last.receive({ id: 3, ...joined(57, { recovered: true }) })
  fake.last.receive(update(58, { id: 1 }))
  fake.last.receive(update(59, { id: 1 }))
  await settled()

  assert.deepEqual([events, changes], [[], 2])
  assert.deepEqual(both.map(({ status, getSnapshot }) => [status, getSnapshot().length]), [['current', 1], ['current', 1]])
  assert.deepEqual(loads, ['short', 'long'])
})

test('a group that a second reference joins again has missed changes under the first one too', async (t) => {
  const { client, fake, events, again } = await open(t)
  let loads = 0
  const live = (view: string) => client.live({ ...todo, view }, { load: () => [{ id: ++loads }] })
  const first = live('short')
  fake.last.answer(joined(57))
  await settled()
  await again()
  const subscribing = client.subscribe({ ...todo, view: 'long' })
  const second = live('long')
  for (const id of [3, 4]) fake.last.receive({ id, ...joined(61) })
  await subscribing
  fake.last.receive({ id: 2, ...joined(61) })
  await settled()

  assert.deepEqual(events, ['todo-5'])
  assert.deepEqual([first.status, second.status, loads], ['current', 'current', 3])
  await client.unsubscribe({ ...todo, view: 'short' })
  first.close()
  assert.deepEqual([...client.groups], ['todo-5'])
  second.close()
  assert.deepEqual([...client.groups], [])
})
