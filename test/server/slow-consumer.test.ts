import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { suite, test, type TestContext } from 'node:test'
import type { WebSocket } from 'ws'
import { SlowWatch, type Watchable } from '../../lib/server/sending/slow-watch.ts'
import { record } from '../support/events.ts'
import type { Client, Setup, TestServer } from '../support/server.ts'
import { start } from '../support/server.ts'

/** A number of messages of 100 kB that exceeds the kernel's buffers on both sides of a loopback connection. */
const TOO_MUCH = 120
const INCOMPRESSIBLE = randomBytes(75_000).toString('base64')

/** A server whose clients are all in group `a`. */
async function startGroup (t: Parameters<typeof start>[0], setup: Setup): Promise<TestServer> {
  return start(t, { onConnect: (connection) => connection.join('a'), ...setup })
}

async function join (server: TestServer, ...args: Parameters<TestServer['connect']>): Promise<Client> {
  const client = await server.connect(...args)
  await client.call('ping')
  return client
}

/** Publishes so many messages in one turn. */
function burst ({ app: { rohrpost } }: TestServer, count: number, text = INCOMPRESSIBLE): void {
  for (let n = 0; n < count; n++) rohrpost.sendToGroup('a', { n, text })
}

async function reads (client: Client, count: number): Promise<void> {
  for (let n = 0; n < count; n++) assert.equal((await client.next()).n, n)
}

async function closing (server: TestServer): Promise<void> {
  const isTold = () => server.logs.some(({ msg }) => msg === 'closing a slow consumer: the client does not read what it is sent')
  while (!isTold()) await new Promise(setImmediate)
}

for (const [what, options] of [['', { perMessageDeflate: false }], [' with compression', {}]] as const) {
  test(`closes a client${what} with 4408 that reads nothing for slowTimeout, and no other`, async (t) => {
    const server = await startGroup(t, {
      slowTimeout: 3000, highWaterMark: 100_000, maxUnsent: 1e9, websocket: { options: { perMessageDeflate: { zlibDeflateOptions: { level: 1 } } } }
    })
    const [slow, healthy] = [await join(server, undefined, options), await join(server, undefined, options)]
    slow.socket.pause()

    burst(server, TOO_MUCH)
    await reads(healthy, TOO_MUCH)
    await closing(server)
    slow.socket.resume()

    await reads(slow, TOO_MUCH)
    assert.deepEqual(await slow.closed, { code: 4408, reason: 'slow consumer' })
    assert.equal((await healthy.call('ping')).type, 'pong')
  })
}

test('closes a client at once when more is sent beyond maxUnsent', async (t) => {
  const server = await startGroup(t, { maxUnsent: 1_000_000, slowTimeout: 60_000 })
  const slow = await join(server)
  slow.socket.pause()

  burst(server, TOO_MUCH)
  await new Promise(setImmediate)
  burst(server, 1)
  await closing(server)
  slow.socket.resume()

  await reads(slow, TOO_MUCH)
  assert.equal((await slow.closed).code, 4408)
})

test('terminates a client that does not even read the close', async (t) => {
  const server = await startGroup(t, { slowTimeout: 50, highWaterMark: 100_000 })
  const slow = await join(server)
  slow.socket.pause()

  burst(server, TOO_MUCH)
  await closing(server)
  while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)

  slow.socket.resume()
  assert.equal((await slow.closed).code, 1006)
})

test('keeps a client that pauses and resumes in time', async (t) => {
  const server = await startGroup(t, { slowTimeout: 2000, highWaterMark: 100_000, maxUnsent: 1e9 })
  const client = await join(server)
  for (let round = 0; round < 8; round++) {
    client.socket.pause()
    burst(server, TOO_MUCH)
    setTimeout(() => client.socket.resume(), 300)

    await reads(client, TOO_MUCH)
  }

  assert.equal((await client.call('ping')).type, 'pong')
})

test('closes no healthy client, however large the burst is', async (t) => {
  const server = await startGroup(t, { maxUnsent: 1_000_000 })
  const clients = await Promise.all(Array.from({ length: 20 }, () => join(server)))

  burst(server, 5000, 'x'.repeat(1000))

  await Promise.all(clients.map((client) => reads(client, 5000)))
  for (const client of clients) assert.equal((await client.call('ping')).type, 'pong')
})

test('reports a slow consumer once, however often it is detected', async (t) => {
  const events = record(t, 'drop')
  const server = await startGroup(t, { maxUnsent: 1_000_000, highWaterMark: 100_000, slowTimeout: 50 })
  const slow = await join(server)
  slow.socket.pause()

  burst(server, TOO_MUCH)
  await new Promise(setImmediate)
  burst(server, 1)
  burst(server, 1)
  while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)

  assert.deepEqual(events.drop.map(({ reason }) => reason), ['slow_consumer'])
})

test('closes a client that reads a little at a time at maxUnsent', async (t) => {
  const server = await startGroup(t, { maxUnsent: 4_000_000, highWaterMark: 100_000, slowTimeout: 60_000 })
  const client = await join(server)
  client.socket.pause()
  let sent = 0

  // the client reads a little between the bursts
  while (!server.logs.some(({ msg }) => msg === 'closing a slow consumer: the client does not read what it is sent')) {
    burst(server, 10)
    sent += 10
    client.socket.resume()
    await client.next()
    client.socket.pause()
  }

  assert.ok(sent <= 400, `${sent} messages`)
})

suite('progress', () => {
  const LIMITS = { highWaterMark: 16_000, slowTimeout: 1000 }

  /** A watched send queue. The test sets how many bytes its stream took. */
  function watched (t: TestContext, stream: 'TCP' | 'TLS' | 'injected' = 'TCP') {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const watch = new SlowWatch(LIMITS)
    const state = { slow: 0, unsent: 1_000_000, written: 2_000_000, queue: 1_000_000 }
    const handle = { get bytesWritten () { return state.written }, get writeQueueSize () { return state.queue } }
    const sendQueue: Watchable = {
      socket: { get bufferedAmount () { return state.unsent } } as unknown as WebSocket,
      stream: {
        get writableLength () { return state.queue },
        ...(stream === 'TCP' && { _handle: handle }),
        ...(stream === 'TLS' && { _handle: { bytesWritten: 1, writeQueueSize: 1, _parent: handle } })
      } as unknown as Duplex,
      onSlowConsumer: () => { state.slow++ }
    }
    t.after(() => watch.delete(sendQueue))
    watch.add(sendQueue)
    watch.add(sendQueue)
    return { state, watch, sendQueue, pass: (ms: number) => t.mock.timers.tick(ms) }
  }

  for (const stream of ['TCP', 'TLS', 'injected'] as const) {
    test(`during one large write, ${stream}: a client that reads a sixteenth of highWaterMark in time is not slow`, (t) => {
      const { state, pass } = watched(t, stream)

      for (let second = 0; second < 60; second++) {
        state.queue -= 1000
        pass(1000)
      }
      assert.equal(state.slow, 0)
      pass(1100)

      assert.equal(state.slow, 1)
    })
  }

  test('of fewer bytes does not count: the client is slow after slowTimeout, once', (t) => {
    const { state, pass } = watched(t)

    for (let step = 0; step < 9; step++) {
      state.queue -= 50
      pass(100)
    }
    assert.equal(state.slow, 0)
    pass(100)
    assert.equal(state.slow, 1)
    pass(10_000)

    assert.equal(state.slow, 1)
  })

  test('counts also if more is sent meanwhile', (t) => {
    const { state, pass } = watched(t)

    for (let second = 0; second < 10; second++) {
      state.written += 2000
      state.queue += 1000
      pass(1000)
    }

    assert.equal(state.slow, 0)
  })

  test('is not required of a client whose stream is empty: the server still compresses', (t) => {
    const { state, pass } = watched(t)
    state.queue = 0

    pass(60_000)

    assert.equal(state.slow, 0)
  })

  test('is not required of a client with less than highWaterMark unsent', (t) => {
    const { state, watch, sendQueue, pass } = watched(t)
    state.unsent = 16_000
    pass(60_000)
    assert.equal(state.slow, 0)

    state.unsent = 16_001
    watch.add(sendQueue)
    pass(1000)

    assert.equal(state.slow, 1)
  })

  test('is not required while the event loop is blocked', (t) => {
    const timers: (() => void)[] = []
    t.mock.method(globalThis, 'setInterval', (step: () => void) => {
      timers.push(step)
      return { unref () { return this } }
    })
    const watch = new SlowWatch(LIMITS)
    let slow = 0
    watch.add({ socket: { bufferedAmount: 1_000_000 } as WebSocket, stream: undefined, onSlowConsumer: () => { slow++ } })

    // a blocked loop calls a timer once, however late
    for (let late = 0; late < 9; late++) for (const step of timers) step()
    assert.equal(slow, 0)
    for (const step of timers) step()

    assert.equal(slow, 1)
  })
})
