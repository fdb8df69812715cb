import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { defineEntity, LockMode, p, RequestContext } from '@mikro-orm/core'
import { NodeSqliteDialect, MikroORM, SqliteDriver } from '@mikro-orm/sql'
import Fastify from 'fastify'
import type { WebSocket } from 'ws'
import rohrpost, { memoryBroker, type RohrpostOptions } from '../../lib/index.ts'
import { ChangeSubscriber, notifyOnChange, rohrpostMikroOrm, type RohrpostMikroOrmOptions } from '../../lib/mikro-orm/index.ts'
import { createTestApp } from '../../lib/testing/index.ts'
import { start } from '../support/server.ts'
import { openSqlite } from './support.ts'

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
const rule = notifyOnChange(Todo, { data: ['id', 'title'] })

function makeApp (t: TestContext, options: RohrpostOptions = {}) {
  const app = Fastify()
  t.after(() => app.close())
  app.register(rohrpost, options)
  return app
}

/** Sends a request, and returns all messages that the client received up to the reply. */
async function ask (socket: WebSocket, request: object): Promise<unknown[]> {
  const frames: unknown[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  const listener = (data: Buffer) => {
    const frame = JSON.parse(data.toString())
    frames.push(frame)
    if (frame.id === 'ask') resolve()
  }
  socket.on('message', listener)
  socket.send(JSON.stringify({ id: 'ask', ...request }))
  await promise
  socket.off('message', listener)
  return frames
}

function pick ({ error, code }: { error?: unknown, code?: unknown }) {
  return { error, code }
}

test('notifies subscribed clients after the commit of a handler', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = makeApp(t)
  app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  app.after(() => {
    app.rohrpost.group('todo', { authorize: () => true })
    app.rohrpost.handle('add', async () => {
      const todo = orm.em.create(Todo, { title: 'one' })
      await orm.em.flush()
      return todo.id
    })
    app.rohrpost.handle('rename', async () => {
      const todo = await orm.em.findOneOrFail(Todo, 1)
      todo.title = 'two'
    })
    app.rohrpost.handle('flush', () => orm.em.flush())
  })
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')
  t.after(() => socket.terminate())

  await ask(socket, { type: 'add' })
  await ask(socket, { type: 'subscribe', data: { type: 'todo', id: 1 } })
  // each message has an EntityManager of its own
  await ask(socket, { type: 'rename' })
  await ask(socket, { type: 'flush' })
  assert.equal((await orm.em.fork().findOneOrFail(Todo, 1)).title, 'one')
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  todo.title = 'three'
  await em.flush()
  const [update] = await ask(socket, { type: 'ping' }) as [{ id: number }]

  assert.ok(Number.isSafeInteger(update.id))
  assert.deepEqual(update, {
    id: update.id,
    type: 'subscription-update',
    data: { group: 'todo-1', type: 'update', object: { id: 1, title: 'three', updated_fields: ['title'] } }
  })
})

test('runs each handler in a RequestContext of its own', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = makeApp(t)
  const contexts: unknown[] = []
  app.register(rohrpostMikroOrm, { orm })
  app.after(() => { app.rohrpost.handle('look', () => { contexts.push(RequestContext.getEntityManager()) }) })
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')
  t.after(() => socket.terminate())

  await ask(socket, { type: 'look' })
  await ask(socket, { type: 'look' })

  assert.ok(contexts[0] !== undefined && contexts[1] !== undefined)
  assert.notEqual(contexts[0], contexts[1])
  assert.equal(RequestContext.getEntityManager(), undefined)
})

test('releases the EntityManager of a handler after its reply, while the connection stays open', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = makeApp(t)
  app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  const managers: WeakRef<object>[] = []
  app.after(() => {
    app.rohrpost.handle('add', async (message, connection) => {
      managers.push(new WeakRef(RequestContext.getEntityManager() as object))
      await connection.join(`todo-${String(message.id)}`)
      message.signal.addEventListener('abort', () => {})
      orm.em.create(Todo, { title: 'one' })
      await orm.em.flush()
    })
    app.rohrpost.handle('refuse', async () => {
      managers.push(new WeakRef(RequestContext.getEntityManager() as object))
      await orm.em.findOneOrFail(Todo, 99)
    })
  })
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')
  t.after(() => socket.terminate())

  await ask(socket, { type: 'add' })
  await ask(socket, { type: 'refuse' })
  // the next message replaces the last references to promises and timers of this one
  await ask(socket, { type: 'ping' })
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  for (let round = 0; round < 20 && managers.some((manager) => manager.deref() !== undefined); round++) {
    await new Promise((resolve) => setImmediate(resolve))
    collect()
  }

  assert.equal(managers.length, 2)
  assert.deepEqual(managers.map((manager) => manager.deref()), [undefined, undefined])
})

test('a broker that fails or never answers neither delays nor fails a flush', async (t) => {
  for (const publish of [() => Promise.reject(new Error('no broker')), () => new Promise<void>(() => {})]) {
    const orm = await openSqlite(t, [Todo])
    const app = Fastify()
    t.after(() => app.close())
    app.register(rohrpost, { broker: { ...memoryBroker(), publish } })
    app.register(rohrpostMikroOrm, { orm, notify: [rule] })
    await app.ready()

    const em = orm.em.fork()
    em.create(Todo, { title: 'one' })
    await em.flush()

    assert.equal(await orm.em.fork().count(Todo), 1)
  }
})

test('`settled` of a test app waits for all portions of a large commit', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const memory = memoryBroker()
  const gate = Promise.withResolvers<void>()
  let [waiting, markers] = [0, 0]
  const app = makeApp(t, {
    broker: {
      ...memory,
      async publish (group, payload) {
        if (payload.includes('subscription-update')) {
          waiting++
          await gate.promise
        } else markers++
        await memory.publish(group, payload)
      }
    }
  })
  app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, { group: 'todo-{id}', data: ['id'] })] })
  app.after(() => {
    app.rohrpost.handle('fill', async (_message, connection) => {
      for (let id = 1; id <= 200; id++) await connection.join(`todo-${id}`)
      for (let id = 1; id <= 200; id++) orm.em.create(Todo, { id, title: 'x' })
      await orm.em.flush()
    })
  })
  const server = await createTestApp(app)
  const client = await server.client()

  await client.call('fill')
  let isSettled = false
  const settled = server.settled().then(() => { isSettled = true })
  // without background work, `settled` sends markers to the groups after the first round trip
  for (let round = 0; round < 5; round++) await client.untilPong()
  assert.deepEqual([isSettled, waiting, markers, client.unread.length], [false, 128, 0, 0])
  gate.resolve()
  await settled

  assert.equal(client.unread.length, 200)
})

test('connects a subscriber that was passed to MikroORM.init', async (t) => {
  const subscriber = new ChangeSubscriber({ notify: [rule] })
  const orm = await openSqlite(t, [Todo], { subscribers: [subscriber] })
  const app = makeApp(t)

  app.register(rohrpostMikroOrm, { orm, subscriber })
  await app.ready()
  assert.equal(subscriber.isConnected, true)
  await app.close()

  assert.equal(subscriber.isConnected, false)
  assert.equal([...orm.em.getEventManager().getSubscribers()].length, 1)
  assert.equal(await orm.isConnected(), true)
})

test('replies to MikroORM errors of a handler with a code and without SQL', async (t) => {
  const Unique = defineEntity({ name: 'Unique', properties: { id: p.integer().primary(), name: p.string().unique(), version: p.integer().version() } })
  const orm = await openSqlite(t, [Unique])
  await orm.em.fork().insert(Unique, { id: 1, name: 'taken' })
  for (const errorHandler of [undefined, (error: unknown, { type }: { type: string }) => {
    return type === 'find' ? Object.assign(new Error(`Nothing there: ${String(error)}`), { statusCode: 410, code: 'gone' }) : undefined
  }]) {
    const app = makeApp(t)
    app.register(rohrpostMikroOrm, { orm, ...(errorHandler && { errorHandler }) })
    app.after(() => {
      app.rohrpost.handle('create', async () => {
        orm.em.create(Unique, { name: 'taken' })
        await orm.em.flush()
      })
      app.rohrpost.handle('find', () => orm.em.findOneOrFail(Unique, 99))
      app.rohrpost.handle('lock', () => orm.em.findOneOrFail(Unique, 1, { lockMode: LockMode.OPTIMISTIC, lockVersion: 7 }))
      app.rohrpost.handle('throw', () => { throw new Error('secret') })
    })
    await app.ready()
    const socket = await app.injectWS('/ws/rohrpost')
    t.after(() => socket.terminate())

    const answers: unknown[] = []
    for (const type of ['create', 'find', 'lock', 'throw']) answers.push((await ask(socket, { type })).map((frame) => pick(frame as object)))

    assert.deepEqual(answers, [
      [{ error: 'Already there.', code: 'conflict' }],
      [errorHandler === undefined ? { error: 'Not found.', code: 'not_found' } : { error: 'Nothing there: NotFoundError: Unique not found (99)', code: 'gone' }],
      [{ error: 'Changed by somebody else.', code: 'conflict' }],
      [{ error: 'Internal error.', code: 'internal' }]
    ])
    await app.close()
  }
})

test('announces the changes of a process that never listens', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const broker = memoryBroker()
  const app = makeApp(t, { broker })
  app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  await app.ready()
  const published = t.mock.method(broker, 'publish')

  const em = orm.em.fork()
  em.create(Todo, { title: 'one' })
  await em.flush()
  await app.close()

  assert.deepEqual(published.mock.calls.map(({ arguments: [group] }) => group), ['todo-1'])
})

test('app.close() waits for running transactions and announces them', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const published: string[] = []
  const app = Fastify()
  let isOpen = true
  const broker = memoryBroker()
  app.register(rohrpost, {
    broker: {
      ...broker,
      publish: (group) => { published.push(`${group} ${isOpen}`) },
      close () { isOpen = false }
    }
  })
  app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  await app.ready()

  const em = orm.em.fork()
  await em.begin()
  em.create(Todo, { title: 'one' })
  await em.flush()
  const closed = app.close()
  await em.commit()
  await closed

  assert.deepEqual(published, ['todo-1 true'])
})

test('app.close() waits no longer than drainTimeout for a transaction', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = Fastify()
  app.register(rohrpost, { drainTimeout: 20 })
  app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  await app.ready()
  const em = orm.em.fork()
  await em.begin()

  await app.close()

  await em.commit()
})

test('refuses to register an ORM twice', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const first = makeApp(t)
  await first.register(rohrpostMikroOrm, { orm, notify: [rule] })

  await assert.rejects(async () => { await makeApp(t).register(rohrpostMikroOrm, { orm }) }, { code: 'RP_ERR_ORM_ALREADY_REGISTERED', message: /'default'/ })
  await first.close()

  await makeApp(t).register(rohrpostMikroOrm, { orm })
})

test('refuses a subscriber that is connected to another ORM', async (t) => {
  const subscriber = new ChangeSubscriber({ notify: [rule] })
  const [orm, other] = [await openSqlite(t, [Todo], { subscribers: [subscriber] }), await openSqlite(t, [Todo], { contextName: 'other' })]
  const broker = memoryBroker()
  const app = makeApp(t, { broker })
  await app.register(rohrpostMikroOrm, { orm, subscriber })
  const published = t.mock.method(broker, 'publish')

  await assert.rejects(async () => { await makeApp(t).register(rohrpostMikroOrm, { orm: other, subscriber }) }, { code: 'RP_ERR_ORM_ALREADY_REGISTERED', message: /'default'/ })
  const em = orm.em.fork()
  em.create(Todo, { title: 'one' })
  await em.flush()

  assert.deepEqual(published.mock.calls.map(({ arguments: [group] }) => group), ['todo-1'])
})

test('registers two ORMs in one app', async (t) => {
  const one = await openSqlite(t, [Todo])
  const two = await openSqlite(t, [Todo], { contextName: 'two' })
  const app = makeApp(t)
  app.register(rohrpostMikroOrm, { orm: one })
  app.register(rohrpostMikroOrm, { orm: two })
  app.after(() => {
    app.rohrpost.handle('look', () => [one.em.getContext() === one.em, two.em.getContext() === two.em])
  })
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')
  t.after(() => socket.terminate())

  assert.deepEqual(await ask(socket, { type: 'look' }), [{ id: 'ask', type: 'look', data: [false, false] }])
})

test('requires fastify-rohrpost', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = Fastify()
  t.after(() => app.close())

  await assert.rejects(async () => { await app.register(rohrpostMikroOrm, { orm }) }, /fastify-rohrpost/)
})

test('refuses unknown and invalid options', async (t) => {
  const orm = await openSqlite(t, [Todo])

  for (const [options, code, message] of [
    [{ orm, notfy: [] }, 'RP_ERR_UNKNOWN_OPTION', /notfy/],
    [{}, 'RP_ERR_INVALID_OPTION', /'orm'/],
    [{ orm: {} }, 'RP_ERR_INVALID_OPTION', /'orm'/],
    [{ orm, notify: rule }, 'RP_ERR_INVALID_OPTION', /'notify'/],
    [{ orm, errorHandler: 'x' }, 'RP_ERR_INVALID_OPTION', /'errorHandler'/],
    [{ orm, subscriber: {} }, 'RP_ERR_INVALID_OPTION', /'subscriber'/],
    [{ orm, subscriber: null }, 'RP_ERR_INVALID_OPTION', /'subscriber'/]
  ] as const) {
    await assert.rejects(async () => { await makeApp(t).register(rohrpostMikroOrm, options as unknown as RohrpostMikroOrmOptions) }, { code, message })
  }
})

test('accepts the register options of Fastify', async (t) => {
  const orm = await openSqlite(t, [Todo])

  await makeApp(t).register(rohrpostMikroOrm, { orm, prefix: '/api', logLevel: 'warn', logSerializers: {} })
})

test('can be registered again after a failed registration', async (t) => {
  const orm = await MikroORM.init({ driver: SqliteDriver, dbName: ':memory:', driverOptions: new NodeSqliteDialect(':memory:'), entities: [Todo] })
  t.after(() => orm.close())

  await assert.rejects(async () => { await makeApp(t).register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, { group: '{nope}' })] }) }, { code: 'RP_ERR_UNKNOWN_PROPERTY' })

  await makeApp(t).register(rohrpostMikroOrm, { orm, notify: [rule] })
})

test('logs once that a broker refuses all notifications of a commit', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const broker = { ...memoryBroker(), publish: async () => { throw new Error('away') } }
  const { app, logs } = await start(t, { broker, with: (app) => app.register(rohrpostMikroOrm, { orm, notify: [rule] }) })

  const em = orm.em.fork()
  for (const title of ['a', 'b', 'c']) em.create(Todo, { title })
  await em.flush()
  await app.close()

  const lines = logs.filter(({ level, msg }) => level >= 40 && !msg.startsWith("clients can't subscribe"))
  assert.deepEqual(lines.map(({ msg, err }) => [msg, err?.message]), [
    ['the broker does not take changes: the members of their groups load again when it does', 'away']
  ])
})

test('a subscriber that is not connected publishes nothing', () => {
  assert.equal(new ChangeSubscriber().publishing, 0)
})
