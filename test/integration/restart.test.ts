/** A process with thousands of clients is restarted: every running handler answers, and the clients come back spread over time. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { readFileLimit } from '../../bench/lib/cpu.ts'
import { Remote } from '../../bench/lib/remote.ts'
import { RohrpostClient, type StateChange } from '../../lib/client/index.ts'
import type { RestartHost } from './support/restart-host.ts'

const HOST = fileURLToPath(new URL('support/restart-host.ts', import.meta.url))
/** Fewer where a process may not have as many files open. */
const CLIENTS = Math.min(Number(process.env['RESTART_CLIENTS'] ?? 5000), Math.max(100, readFileLimit() - 500))
/** Clients that connect at once, so that the queue of the kernel is long enough. */
const WAVE = 500
const BACKOFF = { min: 500, max: 20_000 }

interface Watcher {
  client: RohrpostClient
  changes: unknown[]
  states: StateChange[]
}

test(`${CLIENTS} clients survive a restart`, async (t) => {
  const port = await findPort()
  const first = await start(t, port)
  const watchers: Watcher[] = []
  while (watchers.length < CLIENTS) {
    const wave = Array.from({ length: Math.min(WAVE, CLIENTS - watchers.length) }, () => watch(t, port))
    await Promise.all(wave.map(({ client }) => client.subscribe({ type: 'all' })))
    watchers.push(...wave)
  }
  const asked = first.call('asked', CLIENTS)
  const answers = watchers.map(({ client }, index) => client.call('slow', index, { timeout: 120_000 }))
  await asked
  await first.call('publish', { n: 1 })

  const begun = performance.now()
  const ended = Promise.all(watchers.map(({ client }) => next(client, 'waiting')))
  const connections = await first.call('stop')

  assert.equal(connections, CLIENTS)
  assert.deepEqual(await Promise.all(answers), watchers.map((_, index) => index), 'running handlers answer')
  await ended
  t.diagnostic(`${CLIENTS} connections were drained and closed in ${Math.round(performance.now() - begun)} ms`)
  await first.stop()
  const lost = watchers.map(({ states }) => states.find(({ state }) => state === 'waiting'))
  assert.deepEqual(new Set(lost.map((change) => change?.code)), new Set([1012]))
  assertSpread(t, lost.map((change) => change?.delay ?? NaN), BACKOFF.min, 2 * BACKOFF.min)

  const second = await start(t, port)
  await second.call('joined', CLIENTS)
  const heard = Promise.all(watchers.map(({ client }) => new Promise<void>((resolve) => client.once('all', () => resolve()))))
  await second.call('publish', { n: 2 })
  await heard

  assert.deepEqual(new Set(watchers.map(({ changes }) => JSON.stringify(changes))), new Set(['[{"n":1},{"n":2}]']), 'each message once')
  t.diagnostic(`all were back, and in their group, ${Math.round(performance.now() - begun)} ms after the stop began`)
})

function watch (t: TestContext, port: number): Watcher {
  const client = new RohrpostClient(`ws://127.0.0.1:${port}/ws/rohrpost`, {
    WebSocket, backoff: BACKOFF, pingInterval: 60_000, connectTimeout: 60_000
  })
  t.after(() => client.close())
  const watcher: Watcher = { client, changes: [], states: [] }
  client.on('state', (_state, change) => watcher.states.push(change))
  client.on('all', (_error, change) => watcher.changes.push(change?.object))
  return watcher
}

function next (client: RohrpostClient, wanted: string): Promise<void> {
  return new Promise((resolve) => {
    client.on('state', (state) => { if (state === wanted) resolve() })
  })
}

/** Each tenth of the time must have about a tenth of the clients: off by six standard deviations is no accident. */
function assertSpread (t: TestContext, delays: number[], from: number, to: number): void {
  const tenths = Array.from({ length: 10 }, () => 0)
  for (const delay of delays) {
    assert.ok(delay >= from && delay <= to, `${delay}`)
    const index = Math.min(9, Math.floor((delay - from) / (to - from) * 10))
    tenths[index] = (tenths[index] ?? 0) + 1
  }
  t.diagnostic(`attempts to come back in each ${(to - from) / 10} ms from ${from} ms on: ${tenths.join(', ')}`)

  const tolerance = 6 * Math.sqrt(delays.length * 0.1 * 0.9)
  for (const count of tenths) assert.ok(Math.abs(count - delays.length / 10) < tolerance, `${tenths}`)
}

async function start (t: TestContext, port: number): Promise<Remote<RestartHost>> {
  const host = await Remote.start<RestartHost>('the server', [HOST, String(port)])
  t.after(() => host.stop())
  return host
}

/** A free port below those that the kernel hands out: a client that calls a closed port from that very port would connect to itself. */
async function findPort (): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const server = createServer().listen(port, '127.0.0.1')
    try {
      await once(server, 'listening')
      server.close()
      await once(server, 'close')
      return port
    } catch {
      // taken
    }
  }
}
