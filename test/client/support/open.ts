/** A client with an open connection whose other end is the test. */
import type { TestContext } from 'node:test'
import { RohrpostClient, type ClientOptions } from '../../../lib/client/index.ts'
import { fakeSockets, settled } from './fake-socket.ts'

export interface Errors extends Array<[text: string, cause?: unknown]> {}

/** Time stands still until it is moved on, that of `performance` too. */
export function stopClock (t: TestContext): void {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  t.mock.method(performance, 'now', () => Date.now())
}

/** Time stands still until `tick`. */
export async function openFake (t: TestContext, options: ClientOptions = {}) {
  stopClock(t)
  const fake = fakeSockets()
  const client = new RohrpostClient('ws://host', { WebSocket: fake.WebSocket, ...options })
  t.after(() => client.close())
  const errors: Errors = []
  client.on('error', (...args) => errors.push(args))
  await settled()
  fake.last.open()

  return {
    client,
    fake,
    errors,
    tick: (ms: number) => t.mock.timers.tick(ms),
    /** The connection breaks. */
    async drop () {
      fake.last.end()
      await settled()
    },
    /** The next attempt comes and succeeds. */
    async reopen () {
      t.mock.timers.tick(20_000)
      await settled()
      fake.last.open()
    },
    /** What was asked for on this connection, in words. */
    asked: () => fake.last.requests.map(({ type, data }) => `${String(type)} ${Object.values(data ?? {}).join('-')}`)
  }
}
