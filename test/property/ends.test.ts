/**
 * All ways in which a connection ends: it leaves its groups, and its running handlers have no effect on other
 * connections.
 */
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { memoryBroker, type RohrpostOptions } from '../../lib/index.ts'
import { check } from './support/check.ts'
import { fragments, frame, Opcode } from './support/frames.ts'
import type { RawSocket } from './support/raw-socket.ts'
import { ask, start, type Server } from './support/server.ts'

/** The ways in which clients end their connection. */
const ends = {
  'closes properly': (client: RawSocket) => client.write(frame(Buffer.from([0x03, 0xe8]), { opcode: Opcode.CLOSE })),
  'ends its half of the line': (client: RawSocket) => client.half(),
  vanishes: (client: RawSocket) => client.destroy(),
  'vanishes halfway through a header': (client: RawSocket) => cut(client, frame('x'.repeat(200)), 3),
  'vanishes halfway through a frame': (client: RawSocket) => cut(client, frame('{"id":1,"type":"echo"}'), 15),
  'vanishes between two fragments': (client: RawSocket) => cut(client, Buffer.concat(fragments('{"id":1,"type":"echo"}', 8)), 14),
  'vanishes with many answers on their way': (client: RawSocket) => {
    client.write(...Array.from({ length: 200 }, () => frame(`{"id":1,"type":"echo","data":"${'x'.repeat(5000)}"}`)))
    client.destroy()
  },
  'vanishes in the middle of a handler': (client: RawSocket) => cut(client, frame('{"id":1,"type":"wait"}'), Infinity),
  'breaks the protocol': (client: RawSocket) => client.write(frame('', { opcode: 3 })),
  'sends what is no UTF-8': (client: RawSocket) => client.write(frame(Buffer.from([0xff]))),
  'sends too much': (client: RawSocket) => client.write(frame('', { length: 2n ** 40n })),
  'is closed by a handler': (client: RawSocket) => client.write(frame('{"id":1,"type":"close"}'))
}
type End = keyof typeof ends
const allEnds = Object.keys(ends) as End[]

function cut (client: RawSocket, bytes: Buffer, at: number): void {
  client.write(bytes.subarray(0, Math.min(at, bytes.length)))
  client.destroy()
}

interface ObservedServer extends Server {
  /** `disconnect` when a connection has ended, `waited` (with the connection) when the handler `wait` continues. */
  events: EventEmitter
  /** The groups to which the broker was subscribed, and from which it was unsubscribed. */
  entered: string[]
  left: string[]
  /** Resolves when so many connections remain. */
  empty (size: number): Promise<void>
}

/** A server that reports ended connections, with handlers that wait for the end or cause it. */
async function startObserved (t: TestContext, options: RohrpostOptions = {}): Promise<ObservedServer> {
  const events = new EventEmitter()
  const entered: string[] = []
  const left: string[] = []
  const broker = memoryBroker()
  const server = await start(t, {
    broker: {
      ...broker,
      subscribe (group) {
        entered.push(group)
        return broker.subscribe(group)
      },
      unsubscribe (group) {
        left.push(group)
        return broker.unsubscribe(group)
      }
    },
    onDisconnect: () => { events.emit('disconnect') },
    ...options
  })
  // the internal group of the server
  entered.splice(0)
  server.app.rohrpost
    .handle('close', (_message, connection) => connection.close(4001))
    .handle('wait', async (message, connection) => {
      if (!message.signal.aborted) await once(message.signal, 'abort')
      await connection.join('too-late')
      connection.sendSuccess({ id: message.id, type: message.type })
      message.reply('too late')
      events.emit('waited', connection)
      throw new Error('nobody hears it')
    })

  return {
    ...server,
    events,
    entered,
    left,
    async empty (size) {
      while (server.app.rohrpost.connections.size > size) await once(events, 'disconnect', { signal: AbortSignal.timeout(5000) })
    }
  }
}

test('a group reaches exactly the remaining members, however the others ended', async (t) => {
  const server = await startObserved(t)
  const fate = fc.option(fc.constantFrom(...allEnds), { nil: 'stays', freq: 3 })

  await check(fc.asyncProperty(fc.array(fate, { minLength: 1, maxLength: 12 }), async (fates) => {
    const clients = await Promise.all(fates.map(async (fate, n) => {
      const client = await server.raw()
      await client.ask('{"id":1,"type":"join","data":"all"}')
      await client.ask(`{"id":1,"type":"join","data":"own-${n}"}`)
      return { fate, client, n }
    }))
    const stay = clients.filter(({ fate }) => fate === 'stays')
    const go = clients.filter(({ fate }) => fate !== 'stays')
    server.left.splice(0)

    for (const { fate, client } of go) ends[fate as End](client)
    await server.empty(stay.length)
    await server.app.rohrpost.sendToGroup('all', { to: 'all' })

    assert.deepEqual(await Promise.all(stay.map(({ client }) => client.take(1))), stay.map(() => ['{"to":"all"}']))
    assert.equal(server.app.rohrpost.connections.size, stay.length)
    assert.deepEqual(server.left.filter((group) => group.startsWith('own-')).sort(), go.map(({ n }) => `own-${n}`).sort())
    assert.equal(server.entered.includes('too-late'), false)

    for (const { client } of stay) client.destroy()
    await server.empty(0)
  }), { numRuns: 100 })
})

test('aborts a running handler whose client vanished, and ignores its joins and messages', { timeout: 10_000 }, async (t) => {
  const server = await startObserved(t)
  const client = await server.raw()
  client.write(frame('{"id":1,"type":"wait"}'))
  await client.ask('{"id":2,"type":"ping"}')
  const waited = once(server.events, 'waited')

  client.destroy()

  const [connection] = await waited
  assert.deepEqual([...connection.groups], [])
  assert.deepEqual(server.entered, [])
  assert.equal(server.app.rohrpost.connections.size, 0)
})

test('starts no more handlers for a client that vanished', { timeout: 10_000 }, async (t) => {
  const server = await startObserved(t, { concurrency: 1 })
  const started: unknown[] = []
  server.app.rohrpost.handle('count', ({ id }) => { started.push(id) })
  const client = await server.raw()
  client.write(frame('{"id":1,"type":"wait"}'), frame('{"id":2,"type":"count"}'))
  await client.ask('{"id":3,"type":"ping"}')
  const waited = once(server.events, 'waited')

  client.destroy()
  await waited
  await server.empty(0)

  assert.deepEqual(started, [])
})

test('detects a client that vanishes while its socket is paused when its handlers have ended', { timeout: 10_000 }, async (t) => {
  const server = await startObserved(t, { concurrency: 1, maxPending: { messages: 1, bytes: 1000 } })
  const gate = Promise.withResolvers<void>()
  const entered = Promise.withResolvers<void>()
  server.app.rohrpost.handle('gate', () => { entered.resolve(); return gate.promise })
  const client = await server.raw()
  await client.ask('{"id":0,"type":"join","data":"all"}')
  client.write(frame('{"id":1,"type":"gate"}'), frame('{"id":2,"type":"echo"}'), frame('{"id":3,"type":"echo"}'))
  await entered.promise

  client.destroy()
  gate.resolve()
  await server.empty(0)

  assert.deepEqual(server.left, ['all'])
})

test('does not add a client that vanishes while the broker subscribes', { timeout: 10_000 }, async (t) => {
  const subscribing = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const left = Promise.withResolvers<string>()
  const broker = memoryBroker()
  const server = await startObserved(t, {
    broker: {
      ...broker,
      subscribe: async (group) => { asked.resolve(); await subscribing.promise; broker.subscribe(group) },
      unsubscribe: async (group) => { await broker.unsubscribe(group); left.resolve(group) }
    }
  })
  const client = await server.raw()
  client.write(frame('{"id":1,"type":"join","data":"slow"}'))
  await asked.promise

  client.destroy()
  await server.empty(0)
  subscribing.resolve()

  assert.equal(await left.promise, 'slow')
})

test('terminates a client that gives no sign of life, and removes it from its groups', { timeout: 10_000 }, async (t) => {
  const server = await startObserved(t, { heartbeatInterval: 20 })
  const client = await server.raw()
  const witness = await server.connect()
  await client.ask('{"id":1,"type":"join","data":"silent"}')

  await server.empty(1)

  assert.deepEqual(server.left, ['silent'])
  assert.equal(await client.closed, 1006)
  assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
})
