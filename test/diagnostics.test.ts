import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { execFile } from 'node:child_process'
import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import { suite, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Type } from '@sinclair/typebox'
import { diagnostics, memoryBroker, type Broker, type Receiver } from '../lib/index.ts'
import { record } from './support/events.ts'
import { start } from './support/server.ts'

test('the channels are those of Node.js by their names', (t) => {
  const heard: unknown[] = []
  const listener = (event: unknown) => { heard.push(event) }
  subscribe('rohrpost:deliver', listener)
  t.after(() => unsubscribe('rohrpost:deliver', listener))

  diagnostics.deliver.publish({ group: 'a', size: 1, members: 1 })

  assert.deepEqual(heard, [{ group: 'a', size: 1, members: 1 }])
  for (const [key, { name }] of Object.entries(diagnostics)) {
    assert.equal(name, `rohrpost:${key}`)
    assert.equal(channel(name), diagnostics[key as keyof typeof diagnostics])
  }
})

suite('connections', () => {
  test('publish one event when they open and one when they close', async (t) => {
    const events = record(t, 'connect', 'disconnect')
    const server = await start(t, { onConnect: (connection) => { connection.join('a') } })
    const client = await server.connect()
    await client.call('ping')
    const [connection] = server.app.rohrpost.connections

    client.socket.close(4000, 'enough')
    await client.closed
    await server.app.close()

    assert.deepEqual(events.order, ['connect', 'disconnect'])
    assert.equal(events.connect[0]?.connection, connection)
    const { duration, ...rest } = events.disconnect[0] ?? assert.fail()
    assert.deepEqual(rest, { connection, code: 4000, reason: 'enough' })
    assert.deepEqual([...rest.connection.groups], ['a'])
    assert.ok(duration > 0 && duration < 60_000)
  })

  test('publish both events if they are refused', async (t) => {
    const events = record(t, 'connect', 'disconnect')
    const server = await start(t, { onConnect () { throw new Error('not today') } })
    const client = await server.connect()
    await client.closed
    await server.app.close()

    assert.deepEqual(events.disconnect.map(({ code }) => code), [4403])
    assert.equal(events.connect[0]?.connection, events.disconnect[0]?.connection)
  })

  test('publish a drop event if they do not read', async (t) => {
    const events = record(t, 'drop', 'disconnect')
    const server = await start(t, { maxUnsent: 1, onConnect: (connection) => connection.join('a') })
    const client = await server.connect()
    client.socket.pause()
    await server.app.rohrpost.sendToGroup('a', { data: 'x'.repeat(25_000_000) })
    await setImmediate()
    await server.app.rohrpost.sendToGroup('a', { data: 'y' })
    await setImmediate()

    const [event, ...more] = events.drop
    assert.ok(event?.reason === 'slow_consumer' && more.length === 0)
    assert.ok(event.unsent > 1)
    assert.deepEqual([...server.app.rohrpost.connections], [event.connection])
  })
})

suite('messages', () => {
  test('publish their outcome', async (t) => {
    const events = record(t, 'message', 'reply')
    const server = await start(t, {
      handlerTimeout: 20,
      drainTimeout: 10,
      with: (app) => app.rohrpost
        .handle('add', { data: Type.Object({ a: Type.Number() }) }, ({ data }) => data.a + 1)
        .handle('fail', () => { throw new Error('no') })
        .handle('late', () => new Promise(() => {}))
        .handle('sends', ({ id, type }, connection) => connection.sendSuccess({ id, type, data: 'é' }))
        .handle('refuses', ({ id, type }, connection) => connection.sendError({ id, type, error: 'no', code: 'never' }))
        .group('closed', { authorize: () => false })
    })
    const client = await server.connect()
    const told: unknown[] = []
    for (const text of [
      '{"id":1,"type":"ping"}', '{"id":1,"type":"add","data":{"a":1}}', '{"id":1,"type":"add"}', '{"id":1,"type":"fail"}', '{"id":1,"type":"late"}',
      '{"id":1,"type":"sends"}', '{"id":1,"type":"refuses"}', '{"id":1,"type":"subscribe","data":{"type":"closed","id":1}}',
      '{"id":1,"type":"nothing"}', '{"id":1}', 'é'
    ]) {
      client.send(text)
      const answer = await client.nextText()

      const [message, reply] = [events.message.pop(), events.reply.pop()]
      assert.ok(message && reply && events.message.length === 0 && events.reply.length === 0, text)
      assert.equal(reply.message, message)
      assert.equal(message.connection, [...server.app.rohrpost.connections][0])
      assert.deepEqual([message.size, reply.size], [Buffer.byteLength(text), Buffer.byteLength(answer)])
      assert.ok(reply.duration >= 0 && reply.duration < 60_000)
      told.push([message.type, message.message?.type, reply.outcome, reply.code])
    }

    assert.deepEqual(told, [
      ['ping', 'ping', 'success', undefined],
      ['add', 'add', 'success', undefined],
      ['add', 'add', 'error', 'invalid_data'],
      ['fail', 'fail', 'error', 'internal'],
      ['late', 'late', 'error', 'timeout'],
      ['sends', 'sends', 'success', undefined],
      ['refuses', 'refuses', 'error', 'never'],
      ['subscribe', 'subscribe', 'error', 'access_denied'],
      [undefined, 'nothing', 'error', 'unknown_type'],
      [undefined, undefined, 'error', 'invalid_envelope'],
      [undefined, undefined, 'error', 'invalid_json']
    ])
  })

  test('publish all fields that the client sent', async (t) => {
    const events = record(t, 'message')
    const server = await start(t)
    const client = await server.connect()

    await client.ask({ id: 1, type: 'ping', traceparent: '00-1-2-01' })

    assert.deepEqual(events.message[0]?.message, { id: 1, type: 'ping', traceparent: '00-1-2-01' })
  })

  test('publish no type beyond the rate limit', async (t) => {
    const events = record(t, 'reply')
    const server = await start(t, { rateLimit: { max: 1, interval: 60_000 } })
    const client = await server.connect()

    for (const id of [1, 2]) await client.ask({ id, type: 'ping' })

    assert.deepEqual(events.reply.map(({ message, outcome, code }) => [message.type, message.message?.type, outcome, code]), [
      ['ping', 'ping', 'success', undefined], [undefined, 'ping', 'error', 'rate_limited']
    ])
  })

  test('publish one reply event if the client disconnects before the reply', async (t) => {
    const events = record(t, 'reply')
    const [started, release, left] = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const server = await start(t, {
      concurrency: 2,
      onDisconnect: () => left.resolve(),
      with: (app) => app.rohrpost
        .handle('answered', async (message) => {
          message.reply()
          await release.promise
        })
        .handle('slow', async () => {
          started.resolve()
          await release.promise
        })
    })
    const client = await server.connect()
    for (const [id, type] of ['answered', 'slow', 'slow'].entries()) client.send({ id, type })
    await started.promise

    client.socket.terminate()
    await left.promise
    release.resolve()
    await setImmediate()

    assert.deepEqual(events.reply.map(({ message, outcome, code, size }) => [message.message?.id, outcome, code, size]), [
      [0, 'success', undefined, 26], [1, 'gone', undefined, 0]
    ])
  })

  test('publish both events if they are refused during the stop', async (t) => {
    const events = record(t, 'message', 'reply')
    const release = Promise.withResolvers<void>()
    const server = await start(t, { concurrency: 1, with: (app) => app.rohrpost.handle('slow', () => release.promise) })
    const client = await server.connect()
    for (const id of [1, 2]) client.send({ id, type: 'slow' })
    await client.untilPong()

    const drained = server.app.rohrpost.drain()
    await client.next()
    release.resolve()
    await drained

    const slow = events.reply.filter(({ message }) => message.type === 'slow')
    assert.deepEqual(slow.map(({ message, outcome, code }) => [message.message?.id, outcome, code]), [[2, 'error', 'unavailable'], [1, 'success', undefined]])
    assert.equal(events.message.length, events.reply.length)
  })

  test('run inside the stores that are bound to their channel, each in its own', async (t) => {
    const store = new AsyncLocalStorage<unknown>()
    diagnostics.message.bindStore(store, ({ message }) => message?.id)
    t.after(() => diagnostics.message.unbindStore(store))
    const release = Promise.withResolvers<void>()
    const server = await start(t, {
      with: (app) => app.rohrpost
        .use((_message, _connection, next) => {
          assert.notEqual(store.getStore(), undefined)
          return next()
        })
        .handle('which', async () => {
          await release.promise
          return store.getStore()
        })
        .group('which', { id: false, authorize: () => store.getStore() === 3 })
    })
    const client = await server.connect()

    for (const id of [1, 2]) client.send({ id, type: 'which' })
    client.send({ id: 3, type: 'subscribe', data: { type: 'which' } })
    await client.read()
    release.resolve()

    // a subscription runs in parallel to the calls
    assert.deepEqual((await client.next()).data, { group: 'which' })
    assert.deepEqual([await client.next(), await client.next()].map(({ data }) => data), [1, 2])
  })
})

suite('groups', () => {
  test('publish events for published messages, and for deliveries with the number of members', async (t) => {
    const events = record(t, 'publish', 'deliver')
    const server = await start(t, { onConnect: (connection) => { connection.join('a') } })
    const clients = [await server.connect(), await server.connect()]
    await Promise.all(clients.map((client) => client.call('ping')))

    await server.app.rohrpost.sendToGroup('a', 'é')
    await server.app.rohrpost.sendToGroup('b', 'nobody')

    assert.deepEqual(events.deliver, [{ group: 'a', size: 2, members: 2 }])
    assert.deepEqual(events.publish.map(({ duration, ...rest }) => rest), [
      { group: 'a', size: 2, error: undefined }, { group: 'b', size: 6, error: undefined }
    ])
    for (const { duration } of events.publish) assert.ok(duration >= 0 && duration < 60_000)
  })

  test('publish the duration and the error of a slow or failing broker', async (t) => {
    const events = record(t, 'publish')
    const failure = new Error('the broker is away')
    const publish: Broker['publish'][] = [
      async () => { await setImmediate() },
      async () => { throw failure },
      () => { throw failure }
    ]
    const server = await start(t, { broker: { ...memoryBroker(), publish: (...args) => publish.shift()?.(...args) } })

    const first = server.app.rohrpost.sendToGroup('a', 'x')
    assert.equal(events.publish.length, 0, 'the broker does not have it yet')
    await first
    await assert.rejects(server.app.rohrpost.sendToGroup('a', 'x'), failure)
    await assert.rejects(server.app.rohrpost.sendToGroup('a', 'x'), failure)

    assert.deepEqual(events.publish.map(({ error }) => error), [undefined, failure, failure])
  })

  test('publish a drop event for lost messages', async (t) => {
    const events = record(t, 'drop')
    let receiver: Receiver | undefined
    await start(t, { broker: { ...memoryBroker(), open: (given) => { receiver = given } } })

    receiver?.lost('a')

    assert.deepEqual(events.drop, [{ reason: 'lost', group: 'a' }])
  })
})

test('the server behaves the same without subscribers', async (t) => {
  const events = record(t)
  let receiver: Receiver | undefined
  const broker = memoryBroker()
  const server = await start(t, { broker: { ...broker, open: (given) => broker.open(receiver = given) }, onConnect: (connection) => { connection.join('a') } })
  const client = await server.connect()

  receiver?.lost('a')
  assert.equal((await client.call('ping')).type, 'pong')
  await server.app.rohrpost.sendToGroup('a', { data: 1 })

  assert.deepEqual(await client.next(), { data: 1 })
  assert.deepEqual(events.order, [])
})

test('an error in a subscriber is an uncaught exception, and the server continues if that is handled', async () => {
  const script = `
    import Fastify from 'fastify'
    import { WebSocket } from 'ws'
    import rohrpost, { diagnostics } from './lib/index.ts'
    if (process.argv[1] === 'caught') process.on('uncaughtException', ({ message }) => console.log(message))
    for (const channel of Object.values(diagnostics)) channel.subscribe((_event, name) => { throw new Error(name) })
    const app = Fastify()
    await app.register(rohrpost, { onConnect: (connection) => connection.join('a') })
    app.rohrpost.handle('tell', () => { app.rohrpost.sendToGroup('a', '"told"') })
    const socket = new WebSocket((await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws') + '/ws/rohrpost')
    socket.on('open', () => socket.send('{"id":1,"type":"tell"}'))
    socket.on('message', (data) => {
      console.log(String(data))
      if (String(data).includes('tell')) app.close()
    })
  `
  const run = (...args: string[]) => promisify(execFile)(process.execPath, ['--input-type=module-typescript', '--eval', script, ...args])

  const { stdout } = await run('caught')

  assert.deepEqual(stdout.trim().split('\n').sort(), [
    '"told"', 'rohrpost:connect', 'rohrpost:deliver', 'rohrpost:disconnect', 'rohrpost:message', 'rohrpost:publish', 'rohrpost:reply',
    '{"id":1,"type":"tell"}'
  ])
  await assert.rejects(run(), /rohrpost:connect/)
})
