import assert from 'node:assert/strict'
import { test } from 'node:test'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import rohrpost, { memoryBroker } from '../lib/index.ts'
import { checkOptions } from '../lib/options.ts'
import { createApp, listen, start } from './support/server.ts'

test('serves the default path with and without a trailing slash', async (t) => {
  const server = await start(t)

  const plain = await server.connect('/ws/rohrpost')
  const slashed = await server.connect('/ws/rohrpost/')

  assert.equal((await plain.call('ping')).type, 'pong')
  assert.equal((await slashed.call('ping')).type, 'pong')
})

test('serves a configured path, with any number of trailing slashes', async (t) => {
  for (const path of ['/live', '/live/', '/']) {
    const server = await start(t, { path })

    const client = await server.connect(path)

    assert.equal((await client.call('ping')).type, 'pong', path)
  }
})

test('serves its path in an app that ignores trailing slashes', async (t) => {
  for (const options of [{ routerOptions: { ignoreTrailingSlash: true } }, { ignoreTrailingSlash: true }]) {
    const app = Fastify(options)
    t.after(() => app.close())
    await app.register(rohrpost)
    const server = await listen(t, app)

    const client = await server.connect('/ws/rohrpost/')

    assert.equal((await client.call('ping')).type, 'pong')
  }
})

test('answers 404 on other paths and 426 to plain HTTP', async (t) => {
  const server = await start(t)

  const response = await fetch(`${server.http}/ws/rohrpost`)

  assert.equal(response.status, 426)
  assert.equal(response.headers.get('upgrade'), 'websocket')
  assert.equal((await fetch(`${server.http}/ws/rohrpost`, { method: 'HEAD' })).status, 404)
  assert.equal(await server.refused('/elsewhere'), 404)
})

test('is available in the app, its child plugins and plugins that are registered later', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  await app.register(rohrpost)
  await app.register(async (child) => { child.rohrpost.handle('child', () => 1) })
  app.rohrpost.handle('parent', () => 2)
  const server = await listen(t, app)

  const client = await server.connect()

  assert.equal((await client.call('child')).data, 1)
  assert.equal((await client.call('parent')).data, 2)
  assert.equal(app.rohrpost, app.rohrpost)
})

test('runs handlers, middlewares and authorize with the instance on which they were registered', async (t) => {
  const seen: unknown[] = []
  const server = await start(t, {
    with: (app) => app.register(async (child) => {
      child.decorate('name', 'child')
      const nameOf = (instance: unknown) => (instance as { name?: string }).name
      child.rohrpost.use(function (_message, _connection, next) {
        seen.push(nameOf(this))
        return next()
      })
      child.rohrpost.handle('who', function () { return nameOf(this) })
      child.rohrpost.group('todo', { authorize () { return nameOf(this) === 'child' } })
    })
  })
  const client = await server.connect()

  assert.equal((await client.call('who')).data, 'child')
  assert.deepEqual((await client.call('subscribe', { type: 'todo', id: 1 })).data, { group: 'todo-1' })
  assert.deepEqual(seen, ['child', 'child'])
})

test('uses a @fastify/websocket that the app registered before', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  await app.register(websocket)
  await app.register(rohrpost, { maxPayload: 100 })
  app.get('/other', { websocket: true }, (socket) => socket.send('{"other":true}'))
  const server = await listen(t, app)

  const other = await server.connect('/other')
  const client = await server.connect()

  assert.deepEqual(await other.next(), { other: true })
  client.send({ id: 1, type: 'ping', data: 'x'.repeat(100) })
  assert.equal((await client.closed).code, 1009)
})

test('passes the option websocket to @fastify/websocket', async (t) => {
  const server = await start(t, { websocket: { options: { perMessageDeflate: true } } })

  const client = await server.connect()

  assert.match(client.socket.extensions, /permessage-deflate/)
  assert.equal((await client.call('ping', 'x'.repeat(5000))).data, 'x'.repeat(5000))
})

test('refuses a second registration and names its path', async (t) => {
  for (const [options, path] of [[{ path: '/again' }, /'\/again'/], [{}, /'\/ws\/rohrpost'/]] as const) {
    const app = createApp()
    t.after(() => app.close())
    await app.register(rohrpost)

    await assert.rejects(async () => { await app.register(rohrpost, options) }, { code: 'RP_ERR_ALREADY_REGISTERED', message: path })
  }
})

test('refuses unknown and invalid options, and names them', async (t) => {
  const wrong: [object, RegExp][] = [
    [{ paht: '/ws' }, /Unknown option 'paht', the options are: path, /],
    [{ path: 'ws' }, /Invalid option 'path': expected a path that starts with '\/', got "ws"/],
    [{ path: 5 }, /'path'.*got 5/],
    [{ broker: { publish () {}, subscribe () {} } }, /'broker'/],
    [{ broker: {} }, /'broker': expected a broker such as memoryBroker\(\), got \{\}/],
    [{ onConnect: 1 }, /'onConnect': expected a function, got 1/],
    [{ onRequest: [() => {}, 'x'] }, /'onRequest': expected a hook or a list of hooks/],
    [{ websocket: [] }, /'websocket'/],
    [{ allowedOrigins: '*' }, /'allowedOrigins': .*got "\*"/],
    [{ allowedOrigins: ['https://example.org/'] }, /'allowedOrigins'/],
    [{ allowedOrigins: ['example.org'] }, /'allowedOrigins'/],
    [{ maxPayload: 0 }, /'maxPayload': expected a whole number from 1, got 0/],
    [{ concurrency: 1.5 }, /'concurrency'.*got 1\.5/],
    [{ maxPending: { messages: 1 } }, /'maxPending': expected an object \{ messages, bytes \}/],
    [{ maxPending: 5 }, /'maxPending'/],
    [{ handlerTimeout: 2 ** 31 }, /'handlerTimeout': expected a whole number of milliseconds from 1 to 2147483647, got 2147483648/],
    [{ drainTimeout: -1 }, /'drainTimeout'.*got -1/]
  ]
  for (const [options, message] of wrong) {
    const app = createApp()
    t.after(() => app.close())

    await assert.rejects(async () => { await app.register(rohrpost, options) }, { code: /^RP_ERR_(?:INVALID|UNKNOWN)_OPTION$/, message })
  }
})

test('accepts the earlier names of options, with a process warning', async (t) => {
  const warnings: Error[] = []
  const hear = (warning: Error) => warnings.push(warning)
  process.on('warning', hear)
  t.after(() => process.off('warning', hear))

  assert.equal(checkOptions({ drain: 7 }).drainTimeout, 7)
  assert.equal(checkOptions({ heartbeat: 8 }).heartbeatInterval, 8)
  assert.throws(() => checkOptions({ drain: 7, drainTimeout: 9 }), { code: 'RP_ERR_UNKNOWN_OPTION' })
  await new Promise(setImmediate)

  assert.deepEqual(warnings.map(({ name, message }) => `${name}: ${message}`), [
    "DeprecationWarning: the option 'drain' of fastify-rohrpost has been renamed to 'drainTimeout'",
    "DeprecationWarning: the option 'heartbeat' of fastify-rohrpost has been renamed to 'heartbeatInterval'"
  ])
})

test('fails to register when the broker fails to open', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  const broker = { ...memoryBroker(), open: () => Promise.reject(new Error('no route to broker')) }

  await assert.rejects(async () => { await app.register(rohrpost, { broker }) }, /no route to broker/)
})

test('logs what a broker reports', async (t) => {
  const server = await start(t, {
    broker: {
      ...memoryBroker(),
      open (receiver) {
        receiver.error(new Error('went away'), { stage: 'connect' })
        receiver.lost('news')
      }
    }
  })

  const [failed, lost] = server.logs
  assert.deepEqual([failed?.level, failed?.stage, failed?.err?.message], [50, 'connect', 'went away'])
  assert.deepEqual([lost?.level, lost?.group], [40, 'news'])
})

test('shows the schemas of envelopes and handlers', async (t) => {
  const { app } = await start(t, { with: (app) => app.rohrpost.handle('constructor', () => 1) })

  const { request, reply, error, subscriptionUpdate, handlers } = app.rohrpost.schemas

  for (const schema of [request, reply, error, subscriptionUpdate]) assert.match(schema.$id ?? '', /^rohrpost\./)
  assert.deepEqual(Object.keys(handlers).sort(), ['constructor', 'ping', 'subscribe', 'unsubscribe'])
  assert.ok(handlers.subscribe?.data)
})

test('accepts deliveries and notices of a broker before it is open', async (t) => {
  const broker = memoryBroker()
  const server = await start(t, {
    broker: {
      ...broker,
      async open (receiver) {
        await null
        receiver.deliver('rohrpost disconnect', '{"group":"user:7","code":4401,"reason":""}')
        receiver.deliver('todo-5', '{}')
        receiver.lost('todo-5')
        receiver.notice?.('all is well again', { stage: 'connect', failures: 3 })
        await broker.open(receiver)
      }
    }
  })

  assert.equal((await (await server.connect()).call('ping')).type, 'pong')
  assert.deepEqual(server.logs.filter(({ msg }) => msg === 'all is well again').map(({ level, stage, failures }) => [level, stage, failures]), [[40, 'connect', 3]])
  assert.deepEqual(server.logs.filter(({ level }) => Number(level) >= 50), [])
})

test('is healthy while its broker is healthy', async (t) => {
  const broker = memoryBroker()
  const server = await start(t, { broker })
  await server.connect()

  assert.deepEqual(server.app.rohrpost.health(), { ok: true, broker: { ok: true }, connections: 1, draining: false })
  broker.health = () => ({ ok: false, detail: 'away' })
  assert.equal(server.app.rohrpost.health().ok, false)
})
