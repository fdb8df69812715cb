import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import type { Client, Setup, TestServer } from '../support/server.ts'
import { start } from '../support/server.ts'

/** Messages of 100 kB that are more than the kernel's buffers take, on both sides of a loopback connection. */
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
  const isTold = () => server.logs.some(({ msg }) => msg === 'closing a connection that does not read what it is sent')
  while (!isTold()) await new Promise(setImmediate)
}

for (const [what, options] of [['', { perMessageDeflate: false }], [' with compression', {}]] as const) {
  test(`closes a client${what} with 4408 that reads nothing for too long, and only that one`, async (t) => {
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

test('closes a client at once that is sent more while too much is unsent', async (t) => {
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

test('cuts a client off that reads nothing even then', async (t) => {
  const server = await startGroup(t, { slowTimeout: 50, highWaterMark: 100_000 })
  const slow = await join(server)
  slow.socket.pause()

  burst(server, TOO_MUCH)
  await closing(server)
  while (server.app.rohrpost.connections.size > 0) await new Promise(setImmediate)

  slow.socket.resume()
  assert.equal((await slow.closed).code, 1006)
})

test('keeps a client that paused and read on in time', async (t) => {
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

test('closes no healthy client, however large a burst', async (t) => {
  const server = await startGroup(t, { maxUnsent: 1_000_000 })
  const clients = await Promise.all(Array.from({ length: 20 }, () => join(server)))

  burst(server, 5000, 'x'.repeat(1000))

  await Promise.all(clients.map((client) => reads(client, 5000)))
  for (const client of clients) assert.equal((await client.call('ping')).type, 'pong')
})
