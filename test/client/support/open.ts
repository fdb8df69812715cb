/** A client with an open connection whose server is the test. */
import type { TestContext } from 'node:test'
import { RohrpostClient, type ClientOptions } from '../../../lib/client/index.ts'
import { fakeSockets, settled } from './fake-socket.ts'

export interface Errors extends Array<[text: string, cause?: unknown]> {}

/** Mocks the timers and `performance.now()`; time passes only when the test says so. */
export function stopClock (t: TestContext): void {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  t.mock.method(performance, 'now', () => Date.now())
}

/** Mocks time, which passes only with `tick`. */
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
    /** Breaks the connection. */
    async drop () {
      fake.last.end()
      await settled()
    },
    /** Runs the next attempt, which succeeds. */
    async reopen () {
      t.mock.timers.tick(20_000)
      await settled()
      fake.last.open()
    },
    /** The requests on this connection, as text. */
    asked: () => fake.last.requests.map(({ type, data }) => `${String(type)} ${Object.values(data ?? {}).join('-')}`)
  }
}
