import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { memoryBroker, type Broker, type HistoryEntry, type Position, type Receiver, type RohrpostOptions } from '../../lib/index.ts'
import { start, type Client, type Frame } from '../support/server.ts'

const todo = { type: 'todo', id: 5 }
const other = { epoch: 'another', offset: 1 }

/** A server whose broker keeps ten messages of each group. The test may replace functions of the broker. */
async function serve (t: TestContext, options: RohrpostOptions = {}, change: (broker: Broker) => Partial<Broker> = () => ({})) {
  const memory = memoryBroker({ history: { size: 10, ttl: 60_000 } })
  let receiver: Receiver | undefined
  const broker: Broker = {
    ...memory,
    open (to) {
      receiver = to
      return memory.open(to)
    },
    ...change(memory)
  }
  const allowed = { now: true }
  const server = await start(t, {
    broker,
    ...options,
    with: (app) => app.rohrpost
      .group('todo', { authorize: () => allowed.now })
      .handle('join', (_message, connection) => connection.join('todo-5'))
      .handle('leave', (_message, connection) => connection.leave('todo-5'))
  })
  return {
    ...server,
    allowed,
    /** Calls of the broker to the server, made by the test. */
    receiver: receiver as Receiver,
    /** Publishes objects `{ n }` to the group. */
    publish (...numbers: number[]) {
      for (const n of numbers) server.app.rohrpost.sendToGroup('todo-5', { n })
    }
  }
}

function subscribe (client: Client, recover?: unknown, id: unknown = 1): Promise<Frame> {
  return client.ask({ id, type: 'subscribe', data: todo, recover })
}

/** A position as on the wire. */
function at (start: Frame, offset: number): Position & { group: string } {
  return { ...start.position as Position & { group: string }, offset }
}

suite('a client that asks for positions', () => {
  test('receives its start position, then the position of each message', async (t) => {
    const server = await serve(t)
    const client = await server.connect()
    const text = await (client.send({ id: 7, type: 'subscribe', data: todo, recover: true }), client.nextText())
    const { position: { epoch } } = JSON.parse(text)

    assert.equal(text, `{"id":7,"type":"subscribe","data":{"group":"todo-5"},"position":{"group":"todo-5","epoch":"${epoch}","offset":0}}`)
    for (const message of ['{"id":1,"data":{"a":{}}}', '{}', ' { } \n', '{"a":"}"}  ', { b: [] }]) server.app.rohrpost.sendToGroup('todo-5', message)
    const position = (offset: number) => `"position":{"group":"todo-5","epoch":"${epoch}","offset":${offset}}}`
    for (const expected of [`{"id":1,"data":{"a":{}},${position(1)}`, `{${position(2)}`, ` {${position(3)}`, `{"a":"}",${position(4)}`, `{"b":[],${position(5)}`]) {
      assert.equal(await client.nextText(), expected)
    }
  })

  test('does not change the messages of members without positions', async (t) => {
    const server = await serve(t)
    const [plain, follower] = [await server.connect(), await server.connect()]
    await subscribe(plain)
    const start = await subscribe(follower, true)

    server.publish(1, 2)
    server.receiver.lost('todo-5', at(start, 7))
    server.receiver.deliver('todo-5', '{"n":3}', at(start, 8))

    assert.deepEqual(await plain.untilPong(), [{ n: 1 }, { n: 2 }, { n: 3 }])
    assert.deepEqual(await follower.untilPong(), [
      { n: 1, position: at(start, 1) },
      { n: 2, position: at(start, 2) },
      { type: 'subscription-update', data: { type: 'resync', group: 'todo-5' }, position: at(start, 7) },
      { n: 3, position: at(start, 8) }
    ])
  })

  test('has no effect on other members when it leaves', async (t) => {
    const server = await serve(t)
    const [plain, follower] = [await server.connect(), await server.connect()]
    await subscribe(plain)
    const start = await subscribe(follower, true)
    await follower.call('unsubscribe', todo)

    server.publish(1)
    server.receiver.lost('todo-5', at(start, 7))

    assert.deepEqual(await plain.untilPong(), [{ n: 1 }])
    assert.deepEqual(await follower.untilPong(), [])
  })

  test('receives valid JSON for an id with quotes, with the group name of the reply', async (t) => {
    const server = await start(t, {
      broker: memoryBroker({ history: { size: 10, ttl: 60_000 } }),
      with: (app) => app.rohrpost.group('page', { id: { ...app.rohrpost.schemas.request.properties.type }, authorize: () => true })
    })
    const client = await server.connect()
    const { data, position } = await client.ask({ id: 1, type: 'subscribe', data: { type: 'page', id: '"\\' }, recover: true })

    server.app.rohrpost.sendToGroup('page-%22%5C', {})

    assert.deepEqual(data, { group: 'page-%22%5C' })

    assert.deepEqual(await client.next(), { position: { ...position as Position, offset: 1 } })
  })

  test('receives recovered: false if the broker keeps no history', async (t) => {
    const server = await serve(t, {}, () => ({ ...memoryBroker(), keepsHistory: false }))
    const client = await server.connect()

    for (const recover of [true, other]) {
      assert.deepEqual(await subscribe(client, recover), { id: 1, type: 'subscribe', data: { group: 'todo-5' }, recovered: false })
    }
    server.publish(1)
    assert.deepEqual(await client.untilPong(), [{ n: 1 }])
  })

  test('receives a clear error for an invalid recover', async (t) => {
    const server = await serve(t)
    const client = await server.connect()

    for (const recover of [false, null, 0, 1, '', 'k3f', [], {}, { epoch: 'x' }, { offset: 1 }, { epoch: 1, offset: 1 }, { epoch: 'x', offset: -1 }, { epoch: 'x', offset: 1.5 }, { epoch: 'x', offset: 2 ** 53 }]) {
      const { error, code } = await subscribe(client, recover)
      assert.equal(error, `Invalid data: Expected true, or an object { epoch, offset } as 'recover', got ${JSON.stringify(recover)}.`)
      assert.equal(code, 'invalid_data')
    }
    server.publish(1)
    assert.deepEqual(await client.untilPong(), [])
  })
})

suite('a client that comes back', () => {
  test('receives the missed messages in order, then the live ones, each once', async (t) => {
    const server = await serve(t)
    const [stays, goes] = [await server.connect(), await server.connect()]
    await subscribe(stays)
    const begin = await subscribe(goes, true)
    server.publish(1)
    goes.socket.terminate()
    server.publish(2, 3, 4)
    const back = await server.connect()

    const answer = await subscribe(back, at(begin, 1))
    server.publish(5)

    assert.deepEqual(answer, { id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 1), recovered: true, top: at(begin, 4) })
    assert.deepEqual(await back.untilPong(), [2, 3, 4, 5].map((n) => ({ n, position: at(begin, n) })))
  })

  test('recovers also if the group had no members meanwhile, or no messages', async (t) => {
    const server = await serve(t)
    const client = await server.connect()
    const begin = await subscribe(client, true)
    client.socket.terminate()
    while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)
    server.publish(1)

    const [first, second] = [await server.connect(), await server.connect()]
    assert.equal((await subscribe(first, at(begin, 0))).recovered, true)
    const { recovered, top } = await subscribe(second, at(begin, 1))
    assert.deepEqual([recovered, top], [true, at(begin, 1)])

    assert.deepEqual(await first.untilPong(), [{ n: 1, position: at(begin, 1) }])
    assert.deepEqual(await second.untilPong(), [])
    server.publish(2)
    for (const client of [first, second]) assert.deepEqual(await client.next(), { n: 2, position: at(begin, 2) })
  })

  test('receives recovered: false for another epoch, a trimmed history, a position beyond the top', async (t) => {
    const server = await serve(t)
    const keeper = await server.connect()
    const begin = await subscribe(keeper, true)
    for (let n = 1; n <= 12; n++) server.publish(n)

    for (const recover of [other, at(begin, 1), at(begin, 13)]) {
      const client = await server.connect()
      assert.deepEqual(await subscribe(client, recover), { id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 12), recovered: false })
      assert.deepEqual(await client.untilPong(), [])
    }
    const client = await server.connect()
    assert.equal((await subscribe(client, at(begin, 2))).recovered, true)
    assert.equal((await client.untilPong()).length, 10)
  })

  test('receives recovered: false beyond the limit of messages or bytes', async (t) => {
    const server = await serve(t, { recoveryLimit: { messages: 3, bytes: 1000 } })
    const keeper = await server.connect()
    const begin = await subscribe(keeper, true)
    server.publish(1, 2, 3, 4)
    await keeper.untilPong()
    const [tooMany, enough] = [await server.connect(), await server.connect()]

    assert.equal((await subscribe(tooMany, at(begin, 0))).recovered, false)
    assert.equal((await subscribe(enough, at(begin, 1))).recovered, true)
    // {"text":"…"} has 11 bytes in addition to the text
    for (const [length, recovered] of [[989, true], [990, false]] as const) {
      const before = (await subscribe(keeper, true)).position as Position
      server.app.rohrpost.sendToGroup('todo-5', { text: 'x'.repeat(length) })
      const client = await server.connect()
      assert.equal((await subscribe(client, before)).recovered, recovered, String(length))
      await keeper.untilPong()
    }
  })

  test('and missed nothing needs no read of the history', async (t) => {
    const server = await serve(t, {}, () => ({ history () { throw new Error('nobody asked') } }))
    const keeper = await server.connect()
    const begin = await subscribe(keeper, true)
    server.publish(1)
    const client = await server.connect()

    assert.equal((await subscribe(client, at(begin, 1))).recovered, true)
    server.publish(2)
    assert.deepEqual(await client.untilPong(), [{ n: 2, position: at(begin, 2) }])
  })

  test('is authorized again', async (t) => {
    const server = await serve(t)
    const client = await server.connect()
    const begin = await subscribe(client, true)
    client.socket.terminate()
    server.publish(1)
    server.allowed.now = false
    const back = await server.connect()

    assert.equal((await subscribe(back, at(begin, 0))).error, 'ACCESS_DENIED')
    assert.deepEqual(await back.untilPong(), [])
  })
})

suite('one membership', () => {
  test('has positions if its last subscribe asked for them; join changes nothing', async (t) => {
    const server = await serve(t)
    const client = await server.connect()
    await client.call('join')
    server.publish(1)
    assert.deepEqual(await client.next(), { n: 1 })

    const begin = await subscribe(client, true)
    await client.call('join')
    server.publish(2)
    assert.deepEqual(await client.next(), { n: 2, position: at(begin, 2) })

    assert.deepEqual(await subscribe(client), { id: 1, type: 'subscribe', data: { group: 'todo-5' } })
    server.publish(3)
    assert.deepEqual(await client.untilPong(), [{ n: 3 }])

    assert.equal((await subscribe(client, at(begin, 1))).recovered, true)
    assert.deepEqual(await client.untilPong(), [{ n: 2, position: at(begin, 2) }, { n: 3, position: at(begin, 3) }])
    server.publish(4)
    assert.deepEqual(await client.untilPong(), [{ n: 4, position: at(begin, 4) }])
  })

  test('ends by leave, by unsubscribe and with the connection', async (t) => {
    const subscribed = new Set<string>()
    const server = await serve(t, {}, (memory) => ({
      subscribe (group) {
        if (group === 'todo-5') subscribed.add(group)
        return memory.subscribe(group)
      },
      unsubscribe: (group) => { subscribed.delete(group) }
    }))
    const client = await server.connect()
    const ends = [() => client.call('leave'), () => client.call('unsubscribe', todo), () => client.socket.terminate()]

    for (const end of ends) {
      await subscribe(client, true)
      assert.equal(subscribed.size, 1)
      await end()
      while (subscribed.size > 0) await new Promise(setImmediate)
    }
  })
})

suite('while history is read', () => {
  /** A server whose broker answers when the test releases it. */
  async function slow (t: TestContext, options: RohrpostOptions = {}) {
    const asked = new Queue<PromiseWithResolvers<HistoryEntry[] | undefined | 'all'>>()
    const limits: unknown[] = []
    const server = await serve(t, options, (memory) => ({
      async history (group, after, limit, bytes) {
        const gate = Promise.withResolvers<HistoryEntry[] | undefined | 'all'>()
        limits.push([limit, bytes])
        asked.add(gate)
        const entries = await gate.promise
        return entries === 'all' ? memory.history(group, after, limit) : entries
      }
    }))
    const keeper = await server.connect()
    const begin = await subscribe(keeper, true)
    server.publish(1, 2)
    const client = await server.connect()
    const entry = (n: number) => ({ payload: JSON.stringify({ n }), position: at(begin, n) })
    return { ...server, asked, limits, begin, client, entry }
  }

  test('delivered messages are buffered, and sent once if history has them, too', async (t) => {
    const { client, asked, begin, entry, publish } = await slow(t)
    for (const known of [2, 3, 4]) {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 0) })
      const gate = await asked.next()
      if (known === 2) publish(3, 4)
      assert.deepEqual(await client.untilPong(), [])

      gate.resolve([1, 2, 3, 4].slice(0, known === 2 ? 2 : 4).map(entry))

      assert.deepEqual([(await client.next()).recovered, ...await client.untilPong()], [true, ...[1, 2, 3, 4].map((n) => ({ n, position: at(begin, n) }))])
    }
  })

  test('messages of a history that is ahead of this process are not sent twice', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    ;(await asked.next()).resolve([2, 3, 4].map(entry))
    assert.equal((await client.next()).recovered, true)

    for (const n of [3, 4, 5]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))

    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [2, 3, 4, 5])
  })

  test('a client that is ahead of this process receives nothing twice', async (t) => {
    const { client, asked, begin, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 4) })
    ;(await asked.next()).resolve([])
    assert.equal((await client.next()).recovered, true)

    for (const n of [3, 4, 5, 6]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))

    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [5, 6])
  })

  test('a client that is ahead of this process stays ahead, whatever it requests', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t, { handlerTimeout: 50 })
    const ahead = async (last: number) => {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, last - 2) })
      ;(await asked.next()).resolve([entry(last - 1), entry(last)])
      assert.deepEqual((await client.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, last - 1, last])
    }
    await ahead(3)
    assert.deepEqual((await subscribe(client, true)).position, at(begin, 3))
    for (const n of [3, 4]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))
    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [4])

    await ahead(5)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    for (const n of [5, 6]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))
    assert.equal((await client.next()).code, 'timeout')
    gate.reject(new Error('away'))
    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [6])

    for (const loses of [false, true]) {
      const last = loses ? 9 : 7
      await ahead(last)
      assert.deepEqual(Object.keys(await subscribe(client)), ['id', 'type', 'data'])
      if (loses) receiver.lost('todo-5', at(begin, last))
      for (const n of [last, last + 1]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))
      assert.deepEqual(await client.untilPong(), [{ n: last + 1 }])
    }
  })

  test('an incomplete history is recovered: false', async (t) => {
    const { client, asked, begin, entry, publish } = await slow(t)
    const elsewhere = { payload: '{}', position: { epoch: 'another', offset: 2 } }

    for (const answer of [undefined, [], [entry(1)], [entry(2)], [entry(1), elsewhere]]) {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 0) })
      ;(await asked.next()).resolve(answer)

      assert.deepEqual(await client.untilPong(), [{ id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 2), recovered: false }])
    }
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    publish(3)
    gate.resolve([entry(2)])
    assert.deepEqual((await client.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2, 3])
  })

  test('a loss is recovered: false, and later messages are delivered', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    receiver.deliver('todo-5', '{}', at(begin, 3))
    receiver.lost('todo-5', at(begin, 9))
    gate.resolve([entry(2)])

    assert.deepEqual(await client.next(), { id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 9), recovered: false })
    receiver.deliver('todo-5', '{"n":10}', at(begin, 10))
    assert.deepEqual(await client.untilPong(), [{ n: 10, position: at(begin, 10) }])
  })

  test('a client from a newer epoch receives recovered: false, then a resync when this process reaches that epoch, and all its messages', async (t) => {
    const { client, begin, receiver } = await slow(t)
    const group = 'todo-5'
    const { epoch } = other
    const resync = { type: 'subscription-update', data: { type: 'resync', group }, position: { group, epoch, offset: 0 } }

    const reply = await subscribe(client, { epoch, offset: 2 })
    receiver.lost(group, { epoch, offset: 0 })
    for (const offset of [1, 2, 3]) receiver.deliver(group, JSON.stringify({ n: offset }), { epoch, offset })

    assert.deepEqual(reply, { id: 1, type: 'subscribe', data: { group }, position: at(begin, 2), recovered: false })
    assert.deepEqual(await client.untilPong(), [resync, ...[1, 2, 3].map((n) => ({ n, position: { group, epoch, offset: n } }))])
  })

  test('a loss without a top is recovered: false, too; the next message has the position', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    receiver.lost('todo-5')
    gate.resolve([entry(2)])

    assert.deepEqual(await client.next(), { id: 1, type: 'subscribe', data: { group: 'todo-5' }, recovered: false })
    assert.deepEqual(await subscribe(client, true), { id: 1, type: 'subscribe', data: { group: 'todo-5' }, recovered: false })
    receiver.deliver('todo-5', '{}', other)
    receiver.lost('todo-5')
    assert.deepEqual(await client.untilPong(), [{ position: { ...other, group: 'todo-5' } }, { type: 'subscription-update', data: { type: 'resync', group: 'todo-5' } }])
  })

  test('more messages than the buffer holds are recovered: false, at once', async (t) => {
    const { client, asked, begin, entry, publish } = await slow(t, { recoveryLimit: { messages: 3, bytes: 1000 } })
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    publish(3, 4, 5)
    assert.deepEqual(await client.untilPong(), [])
    publish(6, 7)

    assert.deepEqual(await client.untilPong(), [
      { id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 6), recovered: false },
      { n: 7, position: at(begin, 7) }
    ])
    gate.resolve([entry(2)])
    publish(8)
    assert.deepEqual(await client.untilPong(), [{ n: 8, position: at(begin, 8) }])
  })

  test('later requests share the read, unless it begins too late or a message was delivered', async (t) => {
    const { client, connect, asked, begin, entry, publish } = await slow(t)
    const others = [await connect(), await connect(), await connect()]
    const ask = async (client: Client, offset: number) => {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, offset) })
      assert.deepEqual(await client.untilPong(), [])
    }

    const [same, older, later] = others as [Client, Client, Client]
    await ask(client, 1)
    await ask(same, 1)
    const first = await asked.next()
    await ask(older, 0)
    const second = await asked.next()
    publish(3)
    await ask(later, 1)
    const third = await asked.next()
    first.resolve([entry(2)])
    second.resolve([1, 2].map(entry))
    third.resolve([2, 3].map(entry))

    for (const [who, missed] of [[client, [2, 3]], [same, [2, 3]], [older, [1, 2, 3]], [later, [2, 3]]] as const) {
      assert.equal((await who.next()).recovered, true)
      assert.deepEqual((await who.untilPong()).map(({ n }) => n), missed)
    }
  })

  test('the read is bounded by recoveryLimit, and a history that ends before the top is incomplete', async (t) => {
    const { client, connect, asked, limits, begin, entry } = await slow(t, { recoveryLimit: { messages: 7, bytes: 1234 } })
    const later = await connect()
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 0) })
    const first = await asked.next()
    later.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    await later.untilPong()
    first.resolve([entry(1)])

    assert.deepEqual(await client.untilPong(), [{ id: 1, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 2), recovered: false }])
    // a client that shares the read missed less, so it may receive all of it
    const second = await asked.next()
    second.resolve([entry(2)])
    assert.deepEqual((await later.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2])
    assert.deepEqual(limits, [[7, 1234], [7, 1234]])
  })

  test('a client that missed less shares the read of one that missed more, and receives its part only', async (t) => {
    const { client, connect, asked, limits, begin, entry } = await slow(t)
    const later = await connect()
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 0) })
    const reading = await asked.next()
    later.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    await later.untilPong()
    reading.resolve([entry(1), entry(2)])

    assert.deepEqual((await client.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 1, 2])
    assert.deepEqual((await later.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2])
    assert.equal(limits.length, 1)
  })

  test('a read that hangs is abandoned with the client that waits for it', async (t) => {
    const { client, connect, asked, begin, app, publish } = await slow(t)
    const next = await connect()
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const hangs = await asked.next()
    const { size } = app.rohrpost.connections
    client.socket.terminate()
    while (app.rohrpost.connections.size === size) await new Promise(setImmediate)

    next.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    ;(await asked.next()).resolve('all')
    assert.deepEqual((await next.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2])
    publish(3)
    hangs.resolve('all')
    assert.deepEqual((await next.untilPong()).map(({ n }) => n), [3])
  })

  test('a failure is logged once, and sent to each waiting client', async (t) => {
    const { client, connect, asked, begin, logs } = await slow(t)
    const clients = [client, await connect(), await connect()]
    for (const client of clients) {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
      assert.deepEqual(await client.untilPong(), [])
    }
    ;(await asked.next()).reject(new Error('away'))

    for (const client of clients) assert.deepEqual((await client.untilPong()).map(({ code }) => code), ['unavailable'])
    assert.deepEqual(logs.filter(({ level }) => level === 50).map(({ group }) => group), ['todo-5'])
  })

  test('a member without positions whose request fails stays a member, and receives each message once', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t)
    // ahead of the messages delivered on this process, and then without positions
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    ;(await asked.next()).resolve([entry(2), entry(3), entry(4)])
    assert.equal((await client.untilPong()).length, 4)
    await subscribe(client)

    for (const [last, heard] of [[3, []], [5, [5]]] as const) {
      client.send({ id: 2, type: 'subscribe', data: todo, recover: at(begin, 1) })
      const gate = await asked.next()
      for (let n = last === 3 ? 3 : 4; n <= last; n++) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))
      gate.reject(new Error('away'))
      const frames = await client.untilPong()
      assert.deepEqual(frames.filter(({ id }) => id === undefined), heard.map((n) => ({ n })))
      assert.deepEqual(frames.map(({ code }) => code).filter((code) => code !== undefined), ['unavailable'])
    }
    receiver.deliver('todo-5', '{"n":6}', at(begin, 6))
    assert.deepEqual(await client.untilPong(), [{ n: 6 }])
  })

  test('a client that was ahead, and is not recovered, continues at the top', async (t) => {
    const { client, asked, begin, entry, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    ;(await asked.next()).resolve([entry(2), entry(3)])
    assert.equal((await client.untilPong()).length, 3)

    client.send({ id: 2, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    for (const n of [3, 4, 5]) receiver.deliver('todo-5', JSON.stringify({ n }), at(begin, n))
    gate.resolve(undefined)

    assert.deepEqual(await client.untilPong(), [{ id: 2, type: 'subscribe', data: { group: 'todo-5' }, position: at(begin, 5), recovered: false }])
    receiver.deliver('todo-5', '{"n":6}', at(begin, 6))
    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [6])
  })

  test('a failure of the broker is retryable, and makes no member', async (t) => {
    const { client, asked, begin, publish, logs } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    publish(3)
    gate.reject(new Error('redis-1 is away'))

    assert.deepEqual(await client.untilPong(), [{ id: 1, type: 'subscribe', error: "Can't join 'todo-5' now", code: 'unavailable', retry: true }])
    publish(4)
    assert.deepEqual(await client.untilPong(), [])
    assert.ok(logs.some(({ level, group }) => level === 50 && group === 'todo-5'))

    client.send({ id: 2, type: 'subscribe', data: todo, recover: at(begin, 1) })
    ;(await asked.next()).resolve('all')
    assert.deepEqual((await client.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2, 3, 4])
  })

  test('a failure of the broker, or a timeout, costs a member no messages', async (t) => {
    const { client, asked, begin, publish, receiver } = await slow(t, { handlerTimeout: 50, recoveryLimit: { messages: 3, bytes: 1000 } })
    await subscribe(client, true)
    for (const isLate of [true, false]) {
      client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
      const gate = await asked.next()
      publish(isLate ? 3 : 4)
      if (isLate) assert.equal((await client.next()).code, 'timeout')
      gate.reject(new Error('away'))

      assert.deepEqual((await client.untilPong()).map(({ n, code }) => n ?? code), isLate ? [3] : [4, 'unavailable'])
    }
    publish(5)
    assert.deepEqual(await client.untilPong(), [{ n: 5, position: at(begin, 5) }])

    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 4) })
    const gate = await asked.next()
    publish(6)
    receiver.lost('todo-5', at(begin, 12))
    gate.reject(new Error('away'))
    assert.deepEqual((await client.untilPong()).map(({ recovered, position }) => [recovered, position]), [[false, at(begin, 12)]])
  })

  test('a client that timed out, left or disconnected is sent nothing', async (t) => {
    const { client, asked, begin, publish, connect, app } = await slow(t, { handlerTimeout: 50 })
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const timedOut = await asked.next()
    assert.equal((await client.next()).code, 'timeout')
    timedOut.resolve('all')
    publish(3)
    assert.deepEqual(await client.untilPong(), [])

    client.send({ id: 2, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const left = await asked.next()
    await client.call('leave')
    left.resolve('all')
    assert.deepEqual(await client.untilPong(), [{ id: 2, type: 'subscribe', error: 'ACCESS_DENIED', code: 'access_denied' }])

    const gone = await connect()
    gone.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    const gate = await asked.next()
    const { size } = app.rohrpost.connections
    gone.socket.terminate()
    while (app.rohrpost.connections.size === size) await new Promise(setImmediate)
    gate.resolve('all')
    publish(4)
    assert.deepEqual(await client.untilPong(), [])
  })

  test('unsubscribe and subscribe run in order', async (t) => {
    const { client, asked, begin, publish } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: at(begin, 1) })
    client.send({ id: 2, type: 'unsubscribe', data: todo })
    client.send({ id: 3, type: 'subscribe', data: todo, recover: true })
    const gate = await asked.next()
    assert.deepEqual(await client.untilPong(), [])
    gate.resolve('all')

    const heard = await client.untilPong()
    publish(3)
    heard.push(...await client.untilPong())
    assert.deepEqual(heard.map(({ id, n }) => id ?? `n${n}`), [1, 'n2', 2, 3, 'n3'])
  })

  test('a broker that throws is treated like one that rejects', async (t) => {
    const server = await serve(t, {}, () => ({ history () { throw new Error('away') } }))
    const client = await server.connect()
    const begin = await subscribe(client, true)
    server.publish(1)
    await client.next()

    assert.equal((await subscribe(client, at(begin, 0))).code, 'unavailable')
    server.publish(2)
    assert.deepEqual(await client.untilPong(), [{ n: 2, position: at(begin, 2) }])
  })
})

suite('a broker that breaks its promises', () => {
  test('causes a resync for an unreported gap, and no repeated message', async (t) => {
    const server = await serve(t)
    const [client, plain] = [await server.connect(), await server.connect()]
    const begin = await subscribe(client, true)
    await subscribe(plain)
    const deliver = (position: Position) => server.receiver.deliver('todo-5', '{}', position)

    for (const offset of [1, 1, 3]) deliver(at(begin, offset))
    deliver(other)
    deliver({ ...other, offset: 2 })

    const resync = (position: Position) => ({ type: 'subscription-update', data: { type: 'resync', group: 'todo-5' }, position: { ...position, group: 'todo-5' } })
    assert.deepEqual(await client.untilPong(), [
      { position: at(begin, 1) },
      resync(at(begin, 2)),
      { position: at(begin, 3) },
      resync({ ...other, offset: 0 }),
      { position: { ...other, group: 'todo-5' } },
      { position: { ...other, offset: 2, group: 'todo-5' } }
    ])
    assert.equal((await plain.untilPong()).length, 4)
    assert.deepEqual(server.logs.filter(({ level }) => level === 40).map(({ group }) => group), ['todo-5', 'todo-5'])
  })
})

suite('a broker that takes its time to subscribe', () => {
  async function slow (t: TestContext) {
    const [asked, subscribed] = [Promise.withResolvers<void>(), Promise.withResolvers<Position>()]
    const server = await serve(t, {}, () => ({
      subscribe (group) {
        if (group !== 'todo-5') return
        asked.resolve()
        return subscribed.promise
      },
      history: (_group, { epoch, offset }) => [1, 2, 3].filter((n) => n > offset).map((n) => ({ payload: JSON.stringify({ n }), position: { epoch, offset: n } }))
    }))
    return { ...server, asked: asked.promise, subscribed, client: await server.connect() }
  }

  test('starts a client at its position, also if a message was delivered before it had subscribed', async (t) => {
    for (const delivered of [[], [2, 3], [1]]) {
      const { client, asked, subscribed, receiver } = await slow(t)
      client.send({ id: 1, type: 'subscribe', data: todo, recover: true })
      await asked
      for (const offset of delivered) receiver.deliver('todo-5', '{}', { epoch: 'e', offset })
      subscribed.resolve({ epoch: 'e', offset: 2 })

      assert.deepEqual((await client.next()).position, { group: 'todo-5', epoch: 'e', offset: Math.max(2, ...delivered) })
      receiver.deliver('todo-5', '{}', { epoch: 'e', offset: Math.max(2, ...delivered) + 1 })
      assert.equal((await client.untilPong()).length, 1)
    }
  })

  test('recovers the first member like any other', async (t) => {
    const { client, asked, subscribed, receiver } = await slow(t)
    client.send({ id: 1, type: 'subscribe', data: todo, recover: { epoch: 'e', offset: 1 } })
    await asked
    receiver.deliver('todo-5', '{"n":3}', { epoch: 'e', offset: 3 })
    subscribed.resolve({ epoch: 'e', offset: 2 })

    assert.deepEqual((await client.untilPong()).map(({ recovered, n }) => recovered ?? n), [true, 2, 3])
  })
})

/** A queue of values, with promises for the next ones. */
class Queue<Item> {
  readonly #items: Item[] = []
  #arrived = Promise.withResolvers<void>()

  add (item: Item): void {
    this.#items.push(item)
    this.#arrived.resolve()
  }

  async next (): Promise<Item> {
    while (this.#items.length === 0) {
      this.#arrived = Promise.withResolvers()
      await this.#arrived.promise
    }
    return this.#items.shift() ?? assert.fail()
  }
}
