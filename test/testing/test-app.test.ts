import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost, { memoryBroker, type Broker, type RohrpostOptions } from '../../lib/index.ts'
import { createTestApp, TestClient, type TestAppOptions } from '../../lib/testing/index.ts'

/** Builds an app whose users are identified by a header and are members of a group each. */
async function buildApp (options: RohrpostOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(rohrpost, {
    async onRequest ({ headers }, reply) {
      if (headers.authorization === undefined) return reply.code(401).send({ error: 'Unauthorized' })
    },
    async onConnect (connection) {
      await connection.join(`user:${connection.request.headers.authorization}`)
    },
    ...options
  })
  app.rohrpost.handle('tell', ({ data }) => { app.rohrpost.sendToGroup(`user:${data}`, { type: 'told' }) })
  return app
}

async function serve (t: TestContext, app: FastifyInstance, options: TestAppOptions<string> = {}) {
  const server = await createTestApp(app, { signIn: (user) => ({ headers: { authorization: user } }), ...options })
  t.after(() => server.close())
  return server
}

/** A broker that delays deliveries until `release`, like a broker behind a network. */
function slowBroker (history = false) {
  const memory = memoryBroker(history ? { history: { size: 10, ttl: 60_000 } } : {})
  const held: (() => void)[] = []
  let isHeld = false
  const broker: Broker = {
    ...memory,
    publish (group, payload) {
      if (isHeld) held.push(() => memory.publish(group, payload))
      else memory.publish(group, payload)
    },
    subscribe: async (group) => {
      await new Promise(setImmediate)
      return memory.subscribe(group)
    }
  }
  return {
    broker,
    hold: () => { isHeld = true },
    /** Number of delayed messages. */
    get waiting () { return held.length },
    release: () => {
      isHeld = false
      for (const publish of held.splice(0)) publish()
    }
  }
}

/** Resolves when a condition holds. */
async function until (holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise(setImmediate)
}

suite('the clients of a test app', () => {
  test('sign in the way the app demands, and are connected after onConnect', async (t) => {
    const server = await serve(t, await buildApp())

    const ada = await server.client({ user: 'ada' })
    await server.app.rohrpost.sendToGroup('user:ada', { type: 'welcome' })

    assert.deepEqual(await ada.next(), { type: 'welcome' })
  })

  test('sign in by query and by token', async (t) => {
    const app = await buildApp({ path: '/socket', onRequest: [], onConnect: (connection) => { connection.join('all') } })
    app.rohrpost.handle('who', ({ auth_jwt: token }, { request }) => [token, request.query])
    const server = await serve(t, app, { path: '/socket', timeout: 10_000, signIn: async (user) => ({ query: { user }, token: `token of ${user}` }) })

    const [ada, anybody] = [await server.client({ user: 'ada' }), await server.client()]

    assert.deepEqual((await ada.call('who')).data, ['token of ada', { user: 'ada' }])
    assert.deepEqual((await anybody.call('who')).data, [null, {}])
  })

  test('reject with the HTTP status or the close code of a refusal', async (t) => {
    const server = await serve(t, await buildApp({
      onConnect: ({ request }) => { if (request.headers.authorization === 'eve') throw new Error('Go away.') }
    }))

    await assert.rejects(server.client(), /closed with 1006 before it was open: Unexpected server response: 401/)
    await assert.rejects(server.client({ user: 'eve' }), /the server closed the connection with 4403 Forbidden/)
  })

  test('reject a user without the option signIn', async (t) => {
    const app = await buildApp()
    const server = await createTestApp(app)
    t.after(() => server.close())

    await assert.rejects(server.client({ user: 'ada' }), /needs the option 'signIn'/)
  })
})

test('createTestApp refuses an app without the plugin', async (t) => {
  const app = Fastify()
  t.after(() => app.close())

  await assert.rejects(createTestApp(app), /needs an app with fastify-rohrpost/)
})

test('a test app is disposable', async () => {
  const app = await buildApp()
  {
    await using server = await createTestApp(app, { signIn: (user) => ({ headers: { authorization: user } }) })
    await server.client({ user: 'ada' })
  }

  assert.equal(app.server.listening, false)
})

suite('settled', () => {
  for (const history of [false, true]) {
    test(`waits for messages that the broker has not delivered yet, ${history ? 'with' : 'without'} history`, async (t) => {
      const slow = slowBroker(history)
      const server = await serve(t, await buildApp({ broker: slow.broker }))
      const [ada, bob, eve] = await Promise.all(['ada', 'bob', 'eve'].map((user) => server.client({ user })))
      assert.ok(ada && bob && eve)

      slow.hold()
      await ada.call('tell', 'bob')
      let isSettled = false
      const settled = ada.settled().then(() => { isSettled = true })
      // the message of the handler, and a marker for each client
      await until(() => slow.waiting === 4)
      assert.deepEqual([isSettled, bob.unread], [false, []])
      slow.release()
      await settled

      assert.deepEqual(bob.unread, [{ type: 'told' }])
      assert.deepEqual([ada.unread, eve.unread], [[], []])
    })
  }

  test('waits for handlers that continue after their reply', async (t) => {
    const app = await buildApp()
    const finish = Promise.withResolvers<void>()
    app.rohrpost.handle('late', async (message) => {
      message.reply('soon')
      await finish.promise
      app.rohrpost.sendToGroup('user:eve', { type: 'late' })
    })
    const server = await serve(t, app)
    const [ada, eve] = [await server.client({ user: 'ada' }), await server.client({ user: 'eve' })]

    assert.equal((await ada.call('late')).data, 'soon')
    let isSettled = false
    const settled = ada.settled().then(() => { isSettled = true })
    await eve.untilPong()
    assert.equal(isSettled, false)
    finish.resolve()
    await settled

    assert.deepEqual(eve.unread, [{ type: 'late' }])
  })

  test('waits for onDisconnect, and for the messages that it sends', async (t) => {
    const finish = Promise.withResolvers<void>()
    const app = await buildApp({
      async onDisconnect ({ request }) {
        if (request.headers.authorization !== 'ada') return
        await finish.promise
        app.rohrpost.sendToGroup('user:eve', { type: 'ada left' })
      }
    })
    const server = await serve(t, app)
    const [ada, eve] = [await server.client({ user: 'ada' }), await server.client({ user: 'eve' })]

    await ada.close()
    let isSettled = false
    const settled = ada.settled().then(() => { isSettled = true })
    await eve.untilPong()
    assert.equal(isSettled, false)
    finish.resolve()
    await settled

    assert.deepEqual(eve.unread, [{ type: 'ada left' }])
  })

  test('waits for the effects of a client that the server disconnects meanwhile', async (t) => {
    const app = await buildApp({
      async onDisconnect () {
        await new Promise(setImmediate)
        app.rohrpost.sendToGroup('user:eve', { type: 'left' })
      }
    })
    app.rohrpost.handle('expel', ({ data }) => { app.rohrpost.disconnect(`user:${data}`, 4403) })
    const server = await serve(t, app)
    const [ada, bob, eve] = await Promise.all(['ada', 'bob', 'eve'].map((user) => server.client({ user })))
    assert.ok(ada && bob && eve)

    ada.send({ id: 'a', type: 'expel', data: 'bob' })
    await ada.settled()

    assert.deepEqual(await bob.closed, { code: 4403, reason: '' })
    assert.deepEqual(eve.unread, [{ type: 'left' }])
    assert.deepEqual(ada.unread, [{ id: 'a', type: 'expel' }])
  })

  test('does not change what other clients receive', async (t) => {
    const server = await serve(t, await buildApp({ onRequest: [], onConnect: (connection) => { connection.join('all') } }))
    const [ada, other] = [await server.client({ user: 'ada' }), await TestClient.connect(server.url)]

    await ada.settled()
    await server.app.rohrpost.sendToGroup('all', { type: 'news' })

    assert.equal((await other.next()).type, 'rohrpost-test-marker')
    assert.deepEqual(await other.next(), { type: 'news' })
    assert.deepEqual(await ada.next(), { type: 'news' })
    await other.close()
  })

  test('waits for groups that a handler joins without await', async (t) => {
    const slow = slowBroker()
    const app = await buildApp({ broker: slow.broker })
    app.rohrpost.handle('enter', (_message, connection) => { connection.join('room') })
    const server = await serve(t, app)
    const ada = await server.client({ user: 'ada' })

    ada.send({ id: 1, type: 'enter' })
    await ada.settled()
    await app.rohrpost.sendToGroup('room', { type: 'in the room' })
    await ada.settled()

    assert.deepEqual(ada.unread, [{ id: 1, type: 'enter' }, { type: 'in the room' }])
  })

  test('rejects if a request of the client gets no reply', async (t) => {
    const app = await buildApp()
    app.rohrpost.handle('never', ({ signal }) => new Promise<void>((resolve) => { signal.onabort = () => resolve() }))
    const server = await serve(t, app, { timeout: 50 })
    const ada = await server.client({ user: 'ada' })

    ada.send({ id: 1, type: 'never' })

    await assert.rejects(ada.settled(), /no answers to \[1\] came within 50 ms/)
  })

  test('does not wait for a member that leaves its group or disconnects', async (t) => {
    const slow = slowBroker()
    const server = await serve(t, await buildApp({ broker: slow.broker }))
    const [ada, bob] = [await server.client({ user: 'ada' }), await server.client({ user: 'bob' })]

    slow.hold()
    const settled = ada.settled()
    await until(() => slow.waiting === 2)
    for (const connection of server.app.rohrpost.connections) {
      if (connection.groups.has('user:ada')) connection.leave('user:ada')
    }
    bob.socket.terminate()
    slow.release()

    await settled
  })
})
