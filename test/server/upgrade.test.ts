import assert from 'node:assert/strict'
import { test } from 'node:test'
import { start } from '../support/server.ts'

test('runs the hooks of the upgrade request in order, and their reply refuses it', async (t) => {
  const asked: string[] = []
  const server = await start(t, {
    onRequest: [
      async () => { asked.push('onRequest 1') },
      async (request, reply) => {
        asked.push('onRequest 2')
        if (request.headers.authorization === undefined) return reply.code(401).send()
      }
    ],
    preValidation: async () => { asked.push('preValidation') },
    preHandler: [async () => { asked.push('preHandler') }]
  })

  assert.equal(await server.refused(), 401)
  const client = await server.connect(undefined, { headers: { authorization: 'me' } })

  assert.equal((await client.call('ping')).type, 'pong')
  assert.deepEqual(asked, ['onRequest 1', 'onRequest 2', 'onRequest 1', 'onRequest 2', 'preValidation', 'preHandler'])
})

test('a hook that throws refuses the upgrade', async (t) => {
  const server = await start(t, {
    onRequest: async () => { throw Object.assign(new Error('who are you?'), { statusCode: 403 }) }
  })

  assert.equal(await server.refused(), 403)
})

test('gives handlers the upgrade request with the properties that hooks set', async (t) => {
  const server = await start(t, {
    onRequest: async (request) => { request.setDecorator('user', 'ada') },
    with (app) {
      app.decorateRequest('user', '')
      app.rohrpost.handle('whoami', (_message, { request }) => request.getDecorator('user'))
    }
  })

  const client = await server.connect()

  assert.equal((await client.call('whoami')).data, 'ada')
})

test('refuses other origins before the upgrade, and logs the reason', async (t) => {
  const asked: string[] = []
  const server = await start(t, { onRequest: async () => { asked.push('onRequest') } })
  const own = server.http

  assert.equal(await server.refused(undefined, { origin: 'https://evil.example' }), 403)
  assert.equal(await server.refused(undefined, { origin: 'null' }), 403)
  assert.deepEqual(asked, [])
  const [warning] = server.logs.filter(({ level }) => level === 40)
  assert.equal(warning?.origin, 'https://evil.example')
  assert.equal(warning?.host, own.slice('http://'.length))
  assert.match(warning?.msg ?? '', /allowedOrigins/)

  const client = await server.connect(undefined, { origin: own })
  assert.equal((await client.call('ping')).type, 'pong')
})

test('keeps messages that arrive while onConnect is running, and handles them in order', async (t) => {
  const admitted = Promise.withResolvers<void>()
  const server = await start(t, {
    onConnect: async (connection) => {
      connection.send({ type: 'welcome' })
      await admitted.promise
    },
    with: (app) => app.rohrpost.handle('echo', ({ data }) => data)
  })
  const client = await server.connect()
  for (let i = 0; i < 5; i++) client.send({ id: i, type: 'echo', data: i })

  assert.deepEqual(await client.next(), { type: 'welcome' })
  await client.read()
  admitted.resolve()

  for (let i = 0; i < 5; i++) assert.equal((await client.next()).data, i)
})

test('pauses the socket while too many messages wait for onConnect', async (t) => {
  const admitted = Promise.withResolvers<void>()
  const server = await start(t, {
    onConnect: () => admitted.promise,
    maxPending: { messages: 2, bytes: 1000 },
    with: (app) => app.rohrpost.handle('echo', () => {})
  })
  const client = await server.connect()
  client.send({ id: 0, type: 'echo' })
  await client.read()
  client.send({ id: 1, type: 'echo' })
  client.send('x'.repeat(900_000))
  client.send({ id: 'last', type: 'echo' })
  // larger than one read of the socket, so that the rest stays unread until the socket is resumed
  await server.paused()

  admitted.resolve()

  assert.equal((await client.next()).id, 0)
  assert.equal((await client.next()).id, 1)
  assert.equal((await client.next()).code, 'invalid_json')
  assert.equal((await client.next()).id, 'last')
})

test('answers ping while onConnect is running, within the rate limit', async (t) => {
  const admitted = Promise.withResolvers<void>()
  const server = await start(t, {
    onConnect: () => admitted.promise,
    rateLimit: { max: 2, interval: 60_000 },
    with: (app) => app.rohrpost.handle('echo', ({ data }) => data)
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'echo' })
  client.send('{"id":1,')
  client.socket.send(Buffer.from('{"id":2,"type":"ping"}'))
  client.send({ id: 3, type: 'ping', data: 'x'.repeat(1024) })
  for (const id of [4, 5, 6]) client.send({ id, type: 'ping' })

  assert.deepEqual(await client.next(), { id: 4, type: 'pong' })
  assert.deepEqual(await client.next(), { id: 5, type: 'pong' })
  assert.equal((await client.next()).code, 'rate_limited')
  admitted.resolve()
  assert.equal((await client.next()).id, 1)
})

test('does not call a ping handler of the application while onConnect is running', async (t) => {
  const admitted = Promise.withResolvers<void>()
  let isAdmitted = false
  const server = await start(t, {
    onConnect: () => admitted.promise,
    with: (app) => app.rohrpost.handle('ping', () => ({ isAdmitted }))
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'ping' })
  await client.read()
  isAdmitted = true
  admitted.resolve()

  assert.deepEqual((await client.next()).data, { isAdmitted: true })
})

test('closes with 4403 when onConnect throws, and handles no message', async (t) => {
  const banned = Promise.withResolvers<void>()
  const server = await start(t, {
    onConnect: () => banned.promise,
    onDisconnect: () => assert.fail('never let in'),
    with: (app) => app.rohrpost.handle('do', () => assert.fail('handled'))
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'do' })
  await client.read()
  banned.reject(new Error('banned'))

  assert.deepEqual(await client.closed, { code: 4403, reason: 'Forbidden' })
  assert.ok(server.logs.some(({ err }) => err?.message === 'banned'))
})

test('calls onDisconnect with the connection, its groups, code and reason', async (t) => {
  const left = Promise.withResolvers<unknown[]>()
  const server = await start(t, {
    onConnect: (connection) => connection.join('lobby'),
    onDisconnect: (connection, code, reason) => left.resolve([connection.id, code, reason, [...connection.groups]])
  })
  const client = await server.connect()
  await client.call('ping')
  const [connection] = server.app.rohrpost.connections

  client.socket.close(4000, 'bye')

  assert.deepEqual(await left.promise, [connection?.id, 4000, 'bye', ['lobby']])
  assert.equal(server.app.rohrpost.connections.size, 0)
})

test('calls onDisconnect after onConnect, even if the client disconnected meanwhile', async (t) => {
  const admitted = Promise.withResolvers<void>()
  const order: string[] = []
  const gone = Promise.withResolvers<void>()
  const server = await start(t, {
    onConnect: async (connection) => {
      await admitted.promise
      connection.join('lobby')
      order.push(`connected ${connection.groups.size}`)
    },
    onDisconnect: () => {
      order.push('disconnected')
      gone.resolve()
    }
  })
  const client = await server.connect()
  client.socket.terminate()
  while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)

  admitted.resolve()
  await gone.promise

  assert.deepEqual(order, ['connected 0', 'disconnected'])
})

test('logs an onDisconnect that throws', async (t) => {
  const server = await start(t, { onDisconnect: async () => { throw new Error('no farewell') } })
  const client = await server.connect()
  client.socket.close()
  await client.closed

  await server.app.close()

  assert.ok(server.logs.some(({ level, err }) => level === 50 && err?.message === 'no farewell'))
})
