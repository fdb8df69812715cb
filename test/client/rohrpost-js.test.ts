/** Behaviour that the client has in common with rohrpost-js. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { WebSocket } from 'ws'
import Default, { RohrpostClient, RohrpostError } from '../../lib/client/index.ts'
import type { TestServer } from '../support/server.ts'
import { atEnd, change, connect, next, sent, serve as serveWith, until, urlOf } from './support/client.ts'
import { openLine } from './support/line.ts'
import { openFake } from './support/open.ts'

/** A server like that of an application: one group type that requires a password, and a few calls. */
function serve (t: TestContext): Promise<TestServer> {
  return serveWith(t, {
    with: (app) => {
      app.rohrpost
        .group('collection', { authorize: ({ auth_jwt: token }) => token === 'hunter2' })
        .group('lists', { authorize: () => true, id: false })
        .handle('increment', ({ data }) => ({ number: (data as { number: number }).number + 1 }))
        .handle('token', ({ auth_jwt: token }) => token)
        .handle('never', () => new Promise(() => {}))
        .handle('refuse', () => { throw Object.assign(new Error('There is no such thing.'), { statusCode: 404 }) })
        .handle('groups', (_, { groups }) => [...groups])
    }
  })
}

// tests with a mocked clock come first: the timers of real sockets must not meet it

test('a ping waits for the previous pong, and any message shows that the connection works', async (t) => {
  const { client, fake, tick } = await openFake(t, { pingInterval: 100 })
  const pings = () => fake.last.sent.filter(({ type }) => type === 'ping').length

  for (let beat = 0; beat < 3; beat++) {
    fake.last.receive({ type: 'news' })
    tick(100)
  }
  assert.deepEqual([pings(), client.state], [1, 'open'])

  fake.last.receive({ type: 'pong', id: 1 })
  tick(100)
  assert.deepEqual([pings(), client.state], [2, 'open'])

  tick(100)
  assert.equal(client.state, 'waiting')
})

test('a call times out after 2 s, or after its own timeout', async (t) => {
  const { client, tick } = await openFake(t)
  const patient = client.call('never', {}, { timeout: 2001 })
  const short = client.call('never', {}, { timeout: 500 })
  const usual = client.call('never')

  tick(500)
  await assert.rejects(short, { message: 'call timed out', code: 'timeout' })
  tick(1500)
  await assert.rejects(usual, { message: 'call timed out', code: 'timeout' })
  tick(1)
  await assert.rejects(patient, { message: 'call timed out', code: 'timeout' })
})

const kinds = { "Node's own WebSocket": undefined, ws: WebSocket }

for (const [kind, implementation] of Object.entries(kinds)) {
  suite(`with ${kind}`, () => {
    const open = async (t: TestContext, server: Pick<TestServer, 'http'>, options = {}) => {
      const client = connect(t, server, { token: 'hunter2', WebSocket: implementation, ...options })
      await next(client, 'open')
      return client
    }

    test('connects automatically and emits events', async (t) => {
      const server = await serve(t)

      const client = new RohrpostClient(urlOf(server), { pingInterval: 300, token: 'hunter2', WebSocket: implementation })
      atEnd(t, () => client.close())

      assert.equal(client.socketState, 'connecting')
      assert.deepEqual(await next(client, 'open'), [])
      assert.equal(client.socketState, 'open')
      assert.equal(Default, RohrpostClient)
    })

    test('pings repeatedly', async (t) => {
      const client = connect(t, await serve(t), { pingInterval: 150, WebSocket: implementation })
      const events: string[] = []
      client.on('ping', (...args) => events.push(`ping ${args.length}`)).on('pong', (...args) => events.push(`pong ${args.length}`))

      for (let count = 0; count < 3; count++) await next(client, 'pong')

      assert.deepEqual(events.slice(0, 6), ['ping 0', 'pong 0', 'ping 0', 'pong 0', 'ping 0', 'pong 0'])
    })

    test('subscribes, and resolves with the name of the group', async (t) => {
      const client = await open(t, await serve(t))

      assert.deepEqual(await client.subscribe({ type: 'collection', id: 52 }), { group: 'collection-52' })
    })

    test('rejects a refused subscription', async (t) => {
      const client = await open(t, await serve(t), { token: 'wrong' })

      await assert.rejects(client.subscribe({ type: 'collection', id: 52 }), { message: 'ACCESS_DENIED' })
      await assert.rejects(client.subscribe({ type: 'INVALID' }), (error) => String(error) === 'ACCESS_DENIED')
    })

    test('passes changes to the listeners of their group', async (t) => {
      const server = await serve(t)
      const client = await open(t, server)
      const { group } = await client.subscribe({ type: 'collection', id: 52 })
      const heard: unknown[][] = []
      const listener = (...args: unknown[]) => { heard.push(args) }
      client.once(group, listener).on(group, listener)

      await server.app.rohrpost.sendToGroup(group, change(group, 'update', 'obj'))
      await client.call('groups')
      client.off(group, listener)
      await server.app.rohrpost.sendToGroup(group, change(group, 'delete', 'obj'))
      await client.call('groups')

      const expected = [null, { group, type: 'update', object: 'obj' }]
      assert.deepEqual(heard, [expected, expected])
    })

    test('sends calls with the token', async (t) => {
      const client = await open(t, await serve(t))
      const messages = sent(client)

      assert.deepEqual(await client.call('increment', { number: 4 }), { number: 5 })
      assert.equal(await client.call('token'), 'hunter2')

      assert.deepEqual(messages.map(({ type, auth_jwt: token }) => [type, token]), [['increment', 'hunter2'], ['token', 'hunter2']])
    })

    test('rejects with the error text of the server', async (t) => {
      const client = await open(t, await serve(t))

      await assert.rejects(client.call('refuse'), (error: RohrpostError) => {
        assert.ok(error instanceof RohrpostError && error instanceof Error)
        assert.equal(String(error), 'There is no such thing.')
        assert.equal(error.code, 'not_found')
        return true
      })
    })

    test('detects a dead connection, reconnects and subscribes again', async (t) => {
      const server = await serve(t)
      const line = await openLine(t, server)
      const client = await open(t, line, { pingInterval: 150 })
      const { group } = await client.subscribe({ type: 'collection', id: 52 })
      const events: string[] = []
      for (const event of ['closed', 'reconnecting', 'open'] as const) client.on(event, (...args) => events.push(`${event} ${args.length}`))

      line.silence()
      const [, lost] = await next(client, 'state')
      await until(client, 'open')
      const heard = new Promise((resolve) => client.once(group, (error, data) => resolve([error, data])))
      while (!(await client.call('groups')).includes(group)) await next(client, 'message')
      await server.app.rohrpost.sendToGroup(group, change(group, 'update', 'obj'))

      assert.equal(lost.reason, 'silent')
      assert.deepEqual(await heard, [null, { group, type: 'update', object: 'obj' }])
      assert.deepEqual(events, ['closed 0', 'reconnecting 0', 'open 0'])
    })

    test('unsubscribes', async (t) => {
      const client = await open(t, await serve(t))
      await client.subscribe({ type: 'collection', id: 52 })
      await client.subscribe({ type: 'lists' })

      assert.equal(await client.unsubscribe({ id: 52, type: 'collection' }), undefined)
      assert.equal(await client.unsubscribe({ type: 'collection', id: 53 }), undefined)

      assert.deepEqual(await client.call('groups'), ['lists'])
    })

    test('settles unanswered requests over a reconnect', async (t) => {
      const server = await serve(t)
      const line = await openLine(t, server)
      const client = await open(t, line, { pingInterval: 150 })
      await client.subscribe({ type: 'collection', id: 52 })

      line.silence()
      const results = Promise.allSettled([
        client.subscribe({ type: 'collection', id: 1 }),
        client.subscribe({ type: 'collection', id: 2 }),
        client.unsubscribe({ type: 'collection', id: 52 }),
        client.call('increment', { number: 4 }, { timeout: 60_000 })
      ])
      await until(client, 'waiting')

      const [a, b, c, d] = await results
      assert.deepEqual([a, b, c], [
        { status: 'fulfilled', value: { group: 'collection-1' } },
        { status: 'fulfilled', value: { group: 'collection-2' } },
        { status: 'fulfilled', value: undefined }
      ])
      assert.equal(d.status === 'rejected' && d.reason.code, 'connection_lost')
      assert.deepEqual(await client.call('groups'), ['collection-1', 'collection-2'])
    })

    test('subscribes as soon as the connection opens', async (t) => {
      const server = await serve(t)
      const line = await openLine(t, server)
      const client = connect(t, line, { token: 'hunter2', WebSocket: implementation })

      const early = client.subscribe({ type: 'collection', id: 1 })
      assert.deepEqual(await early, { group: 'collection-1' })
      await line.break()
      if (client.state === 'open') await until(client, 'waiting')
      const offline = client.subscribe({ type: 'collection', id: 2 })
      await line.mend()

      assert.deepEqual(await offline, { group: 'collection-2' })
    })

    test('unsubscribes without a connection', async (t) => {
      const server = await serve(t)
      const line = await openLine(t, server)
      const client = await open(t, line)
      await client.subscribe({ type: 'collection', id: 52 })

      await Promise.all([until(client, 'waiting'), line.break()])
      assert.equal(await client.unsubscribe({ type: 'collection', id: 52 }), undefined)
      await line.mend()
      await until(client, 'open')

      assert.deepEqual(await client.call('groups'), [])
    })

    test('reconnects when the server closes', async (t) => {
      const server = await serve(t)
      const client = await open(t, server)

      for (const connection of server.app.rohrpost.connections) connection.close()
      await next(client, 'closed')
      assert.equal(client.socketState, 'closed')
      await next(client, 'reconnecting')
      await next(client, 'open')
    })

    test('closes, and stays closed', async (t) => {
      const server = await serve(t)
      const client = await open(t, server)
      client.on('reconnecting', () => assert.fail('it came back'))

      client.close()
      assert.deepEqual(await next(client, 'closed'), [])

      assert.equal(client.socketState, 'closed')
    })

    test('settles all promises on close', async (t) => {
      const client = await open(t, await serve(t))

      const results = Promise.allSettled([
        client.subscribe({ type: 'collection', id: 1 }),
        client.unsubscribe({ type: 'collection', id: 2 }),
        client.call('increment', { number: 1 })
      ])
      client.close()

      assert.deepEqual((await results).map((result) => result.status === 'rejected' ? String(result.reason) : result.value), [
        'Socket was closed', undefined, 'Socket was closed'
      ])
    })

    test('emits an error for a message that answers no request, and needs no listener for it', async (t) => {
      const server = await serve(t)
      const client = await open(t, server)
      const [connection] = server.app.rohrpost.connections
      assert.ok(connection)

      connection.send({ id: 'TRASH', type: 'TRASH' })
      await next(client, 'message')
      const trash = next(client, 'error')
      connection.send({ id: 'TRASH', type: 'subscribe' })

      assert.deepEqual(await trash, ['no saved request with id: TRASH', undefined])
      assert.deepEqual(await client.call('increment', { number: 1 }), { number: 2 })
    })

    test('emits every message, and logs sent and received ones', async (t) => {
      const client = await open(t, await serve(t))
      await next(client, 'pong')
      const events: unknown[] = []
      client.on('message', (message) => events.push(message)).on('log', (entry) => events.push(entry))

      await client.call('increment', { number: 1 })

      const reply = { id: 1, type: 'increment', data: { number: 2 } }
      assert.deepEqual(events, [
        { direction: 'send', data: '{"id":1,"type":"increment","auth_jwt":"hunter2","data":{"number":1}}' },
        reply,
        { direction: 'receive', data: JSON.stringify(reply) }
      ])
    })
  })
}
