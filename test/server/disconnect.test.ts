import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { memoryBroker, type Broker, type Receiver, type RohrpostConnection } from '../../lib/index.ts'
import { start, type TestServer } from '../support/server.ts'

/** Brokers of several processes that share their groups. Each receives a message in its own turn of the event loop. */
function sharedBrokers (): { make (): Broker, publish (group: string, payload: string): void } {
  const receivers = new Map<Receiver, Set<string>>()
  const publish = (group: string, payload: string) => {
    for (const [receiver, groups] of receivers) if (groups.has(group)) receiver.deliver(group, payload)
  }
  return {
    publish,
    make () {
      const groups = new Set<string>()
      return {
        open (receiver) { receivers.set(receiver, groups) },
        publish: async (group, payload) => { await setImmediate(); publish(group, payload) },
        subscribe: async (group) => { await setImmediate(); groups.add(group) },
        unsubscribe: async (group) => { groups.delete(group) },
        history: () => undefined,
        health: () => ({ ok: true }),
        close () {}
      }
    }
  }
}

async function startTwo (t: TestContext) {
  const shared = sharedBrokers()
  const make = () => start(t, {
    broker: shared.make(),
    async onConnect (connection) {
      const { user } = connection.request.query as { user?: string }
      if (user !== undefined) await connection.join(`user:${user}`)
    }
  })
  return { shared, one: await make(), other: await make() }
}

const connect = async (server: TestServer, user?: number) => {
  const client = await server.connect(user === undefined ? undefined : `/ws/rohrpost?user=${user}`)
  await client.untilPong()
  return client
}

suite('by group', () => {
  test('closes the connections in the group on every process, and no other', async (t) => {
    const { one, other } = await startTwo(t)
    const members = [await connect(one, 7), await connect(other, 7), await connect(other, 7)]
    const others = [await connect(one, 8), await connect(other), await connect(one)]

    await one.app.rohrpost.disconnect('user:7', 4401, 'signed out')

    for (const { closed } of members) assert.deepEqual(await closed, { code: 4401, reason: 'signed out' })
    for (const client of others) assert.equal((await client.call('ping')).type, 'pong')
  })

  test('closes with 4403 by default', async (t) => {
    const { one, other } = await startTwo(t)
    const client = await connect(other, 7)

    await one.app.rohrpost.disconnect('user:7')

    assert.deepEqual(await client.closed, { code: 4403, reason: '' })
  })

  test('closes a connection that is joining the group', async (t) => {
    const joining = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    const broker = memoryBroker()
    const server = await start(t, {
      broker: {
        ...broker,
        async subscribe (group) {
          if (group === 'user:7') {
            asked.resolve()
            await joining.promise
          }
          return broker.subscribe(group)
        }
      },
      onConnect: (connection) => connection.join('user:7')
    })
    t.after(() => joining.resolve())
    const client = await server.connect()
    await asked.promise

    await server.app.rohrpost.disconnect('user:7')

    assert.equal((await client.closed).code, 4403)
  })

  test('sends pending messages first, and handles no waiting messages', async (t) => {
    const started: unknown[] = []
    const begun = Promise.withResolvers<void>()
    const server = await start(t, {
      concurrency: 1,
      onConnect: (connection) => connection.join('user:7'),
      with: (app) => app.rohrpost.handle('work', ({ id }) => {
        started.push(id)
        begun.resolve()
        return new Promise(() => {})
      })
    })
    const client = await server.connect()
    client.send({ id: 1, type: 'work' })
    client.send({ id: 2, type: 'work' })
    await begun.promise
    await client.read()

    server.app.rohrpost.sendToGroup('user:7', { type: 'bye' })
    server.app.rohrpost.disconnect('user:7')
    server.app.rohrpost.sendToGroup('user:7', { type: 'too late' })

    assert.deepEqual(await client.next(), { type: 'bye' })
    await assert.rejects(client.next(), /closed with 4403/)
    assert.deepEqual(started, [1])
  })

  test('lets the calling handler reply first, awaited or not, by group or by predicate', async (t) => {
    const server = await start(t, {
      onConnect: (connection) => connection.join('user:7'),
      with: (app) => app.rohrpost
        .handle('awaited', async () => {
          await app.rohrpost.disconnect('user:7', 4000, 'signed out')
          return 'done'
        })
        .handle('not awaited', async () => {
          app.rohrpost.disconnect('user:7', 4000, 'signed out')
          await setImmediate()
          return 'done'
        })
        .handle('at once', () => {
          app.rohrpost.disconnect('user:7', 4000, 'signed out')
          return 'done'
        })
        .handle('by predicate', async (message, own) => {
          await app.rohrpost.disconnect((connection) => connection === own, 4000, 'signed out')
          message.reply('done')
          own.send({ type: 'and this' })
          return new Promise(() => {})
        })
        .handle('fails', async () => {
          await app.rohrpost.disconnect('user:7', 4000, 'signed out')
          throw Object.assign(new Error('done'), { statusCode: 400 })
        })
    })
    for (const type of ['awaited', 'not awaited', 'at once', 'by predicate', 'fails']) {
      const client = await server.connect()
      const { data, error } = await client.call(type)

      assert.equal(data ?? error, 'done')
      if (type === 'by predicate') assert.deepEqual(await client.next(), { type: 'and this' })
      assert.deepEqual(await client.closed, { code: 4000, reason: 'signed out' })
    }
  })

  test('ends all memberships at once and for good, while handlers still reply', async (t) => {
    const [started, release, left] = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<string[]>()]
    const server = await start(t, {
      onConnect: async (connection) => { for (const group of ['user:7', 'news']) await connection.join(group) },
      onDisconnect: ({ groups }) => left.resolve([...groups]),
      with: (app) => app.rohrpost
        .handle('slow', async (_message, connection) => {
          started.resolve()
          await release.promise
          connection.send({ type: 'nearly' })
          await connection.join('later')
          app.rohrpost.sendToGroup('later', { type: 'secret' })
          return 'done'
        })
        .handle('more', () => assert.fail('handled'))
    })
    const client = await server.connect()
    client.send({ id: 1, type: 'slow' })
    client.send({ id: 2, type: 'more' })
    await started.promise
    await client.read()

    await server.app.rohrpost.disconnect('user:7', 4000)
    await server.app.rohrpost.disconnect((connection) => connection.groups.has('news'), 4001)
    await server.app.rohrpost.sendToGroup('news', { type: 'secret' })
    client.send({ id: 3, type: 'more' })
    client.send({ id: 4, type: 'ping' })
    await client.read()
    release.resolve()

    assert.deepEqual(await client.next(), { type: 'nearly' })
    assert.deepEqual(await client.next(), { id: 1, type: 'slow', data: 'done' })
    assert.equal((await client.closed).code, 4000)
    assert.deepEqual(await left.promise, ['user:7', 'news'])
  })

  test('waits at most one second for a handler that does not reply', { timeout: 10_000 }, async (t) => {
    const started = Promise.withResolvers<void>()
    const server = await start(t, {
      drainTimeout: 10,
      onConnect: (connection) => connection.join('user:7'),
      with: (app) => app.rohrpost.handle('hang', { parallel: true }, () => { started.resolve(); return new Promise(() => {}) })
    })
    const client = await server.connect()
    client.send({ id: 1, type: 'hang' })
    await started.promise
    t.mock.timers.enable({ apis: ['setTimeout'] })

    await server.app.rohrpost.disconnect('user:7', 4000)
    t.mock.timers.tick(999)
    await client.read()
    t.mock.timers.tick(1)

    assert.equal((await client.closed).code, 4000)
    t.mock.timers.reset()
  })

  test('closes at once when the client disconnects before the reply', async (t) => {
    const [started, left] = [Promise.withResolvers<void>(), Promise.withResolvers<number>()]
    const server = await start(t, {
      drainTimeout: 10,
      onConnect: (connection) => connection.join('user:7'),
      onDisconnect: (_connection, code) => left.resolve(code),
      with: (app) => app.rohrpost.handle('hang', () => { started.resolve(); return new Promise(() => {}) })
    })
    const client = await server.connect()
    client.send({ id: 1, type: 'hang' })
    await started.promise
    t.mock.timers.enable({ apis: ['setTimeout'] })

    await server.app.rohrpost.disconnect('user:7', 4000)
    client.socket.terminate()

    assert.equal(await left.promise, 1006)
    t.mock.timers.reset()
  })

  test('keeps its close code when the server stops meanwhile', async (t) => {
    const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const server = await start(t, {
      onConnect: (connection) => connection.join('user:7'),
      with: (app) => app.rohrpost.handle('slow', async () => { started.resolve(); await release.promise })
    })
    const client = await server.connect()
    client.send({ id: 1, type: 'slow' })
    await started.promise

    await server.app.rohrpost.disconnect('user:7', 4000)
    const drained = server.app.rohrpost.drain()
    release.resolve()

    assert.equal((await client.next()).id, 1)
    assert.equal((await client.closed).code, 4000)
    await drained
  })

  test('terminates a client that does not answer the close', { timeout: 10_000 }, async (t) => {
    const gone = Promise.withResolvers<number>()
    const server = await start(t, { onConnect: (connection) => connection.join('user:7'), onDisconnect: (_connection, code) => gone.resolve(code) })
    const client = await server.connect()
    await client.read()
    client.socket.pause()
    t.mock.timers.enable({ apis: ['setTimeout'] })

    await server.app.rohrpost.disconnect('user:7')
    t.mock.timers.tick(1000)

    assert.equal(await gone.promise, 1006)
  })

  test("can't be triggered through a group name, by clients or the application", async (t) => {
    const server = await start(t, {
      with: (app) => app.rohrpost
        .handle('join', ({ data }, connection) => connection.join(String(data)))
        .handle('send', ({ data }) => app.rohrpost.sendToGroup(String(data), '{"group":"all","code":4401,"reason":""}'))
    })
    const client = await server.connect()

    for (const type of ['join', 'send']) assert.equal((await client.call(type, 'rohrpost disconnect')).code, 'invalid_group')
  })

  test('logs invalid commands, and closes no connection', async (t) => {
    const { shared, one } = await startTwo(t)
    const client = await connect(one, 7)

    for (const payload of ['', 'null', '{"group":"user:7"}', '{"group":"user:7","code":1,"reason":""}', '{"group":"user:7","code":4401}']) {
      shared.publish('rohrpost disconnect', payload)
    }
    shared.publish('rohrpost disconnect', '{"code":4401,"reason":""}')

    assert.equal((await client.call('ping')).type, 'pong')
    assert.equal(one.logs.filter(({ msg }) => msg === "a disconnect command of another process can't be read").length, 5)
  })

  test('rejects invalid groups, codes and reasons, and closes no connection', async (t) => {
    const { one } = await startTwo(t)
    const client = await connect(one, 7)
    const { disconnect } = one.app.rohrpost

    await assert.rejects(disconnect('a b'), { code: 'RP_ERR_INVALID_GROUP' })
    // @ts-expect-error neither a group nor a predicate
    await assert.rejects(disconnect(7), { code: 'RP_ERR_INVALID_GROUP' })
    await assert.rejects(disconnect('user:7', 1006), { code: 'RP_ERR_INVALID_CLOSE' })
    await assert.rejects(disconnect('user:7', 4401, 'x'.repeat(124)), { code: 'RP_ERR_INVALID_CLOSE' })

    assert.equal((await client.call('ping')).type, 'pong')
  })

  test("rejects with the broker's error, and logs it for callers that do not await", async (t) => {
    const broken = new Error('no route to broker')
    const server = await start(t, { broker: { ...memoryBroker(), publish: () => Promise.reject(broken) } })

    server.app.rohrpost.disconnect('user:7')

    await assert.rejects(server.app.rohrpost.disconnect('user:7'), broken)
    assert.equal(server.logs.filter(({ msg, err }) => msg === 'connections were not closed' && err?.message === broken.message).length, 2)
  })

  test('reaches a process whose broker was unavailable at its start', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const broker = memoryBroker()
    const again = Promise.withResolvers<void>()
    let calls = 0
    const server = await start(t, {
      broker: {
        ...broker,
        async subscribe (group) {
          if (group === 'rohrpost disconnect' && ++calls < 3) throw new Error('away')
          if (calls === 3) again.resolve()
          return broker.subscribe(group)
        }
      },
      onConnect: (connection) => connection.join('user:7')
    })
    assert.deepEqual(server.app.rohrpost.health().broker, { ok: false, detail: "other processes can't disconnect clients of this one: away" })
    t.mock.timers.tick(1000)
    await setImmediate()
    t.mock.timers.tick(2000)
    await again.promise
    t.mock.timers.reset()
    const client = await server.connect()
    await client.untilPong()

    await server.app.rohrpost.disconnect('user:7')

    assert.equal((await client.closed).code, 4403)
    assert.equal(server.logs.filter(({ msg }) => msg === "other processes can't disconnect clients of this one yet").length, 1, 'one line for all attempts')
    assert.deepEqual(server.logs.filter(({ msg }) => msg === 'other processes can disconnect clients of this one now').map(({ failures }) => failures), [2])
    assert.equal(server.app.rohrpost.health().ok, true)
  })

  test('does not retry to subscribe when the process stops during the delay', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let calls = 0
    const { app } = await start(t, { broker: { ...memoryBroker(), subscribe () { throw new Error(`away ${++calls}`) } } })
    await setImmediate()

    await app.close()
    t.mock.timers.tick(10_000)

    assert.equal(calls, 1)
  })

  test('does not retry to subscribe when the process stops during the attempt', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let calls = 0
    const refused = Promise.withResolvers<never>()
    const broker: Broker = {
      ...memoryBroker(),
      subscribe () {
        if (++calls === 2) return refused.promise
        throw new Error('away')
      }
    }
    const { app } = await start(t, { broker })
    await setImmediate()
    t.mock.timers.tick(1000)

    const closed = app.close()
    t.mock.timers.tick(10_000)
    await closed
    refused.reject(new Error('closed'))
    await setImmediate()
    t.mock.timers.tick(10_000)

    assert.equal(calls, 2)
  })
})

suite('by predicate', () => {
  const userOf = ({ request }: RohrpostConnection) => (request.query as { user?: string }).user

  test('closes the connections of this process for which it returns true', async (t) => {
    const { one, other } = await startTwo(t)
    const [picked, left, elsewhere] = [await connect(one, 7), await connect(one, 8), await connect(other, 7)]

    await one.app.rohrpost.disconnect((connection) => userOf(connection) === '7', 4000, 'you')

    assert.deepEqual(await picked.closed, { code: 4000, reason: 'you' })
    for (const client of [left, elsewhere]) assert.equal((await client.call('ping')).type, 'pong')
  })

  test('closes no connection if it throws or returns no boolean', async (t) => {
    const { one } = await startTwo(t)
    const clients = [await connect(one, 7), await connect(one, 8)]
    const broken = new Error('no user')

    await assert.rejects(one.app.rohrpost.disconnect((connection) => {
      if (userOf(connection) === '8') throw broken
      return true
    }), broken)
    // @ts-expect-error a promise is truthy
    await assert.rejects(one.app.rohrpost.disconnect(async () => false), { code: 'RP_ERR_INVALID_PREDICATE' })

    for (const client of clients) assert.equal((await client.call('ping')).type, 'pong')
  })
})
