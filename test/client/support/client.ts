/** Clients that are closed at the end of a test, and functions that wait for their events. */
import type { TestContext } from 'node:test'
import { RohrpostClient, type ClientEvents, type ClientOptions, type State } from '../../../lib/client/index.ts'
import type { Contract } from '../../../lib/protocol/contract.ts'
import { start, type Setup, type TestServer } from '../../support/server.ts'

/** Functions that run before the server of a test closes: a client that reconnects would prevent that. */
const endings = new WeakMap<TestContext, (() => void)[]>()

/** Starts a server; the clients and proxies of the test end before it. */
export function serve (t: TestContext, setup: Setup = {}): Promise<TestServer> {
  t.after(() => {
    for (const end of endings.get(t) ?? []) end()
  })
  return start(t, setup)
}

/** Runs a function at the end of a test, before the server closes. */
export function atEnd (t: TestContext, end: () => void): void {
  endings.set(t, [...endings.get(t) ?? [], end])
}

/** The URL of a server for clients. */
export function urlOf ({ http }: Pick<TestServer, 'http'>): string {
  return `${http.replace('http', 'ws')}/ws/rohrpost`
}

/** Creates a client of a test server with short retry delays. */
export function connect<C extends Contract = Contract> (t: TestContext, server: Pick<TestServer, 'http'>, options: ClientOptions = {}): RohrpostClient<C> {
  const client = new RohrpostClient<C>(urlOf(server), { backoff: { min: 1, max: 10 }, ...options })
  atEnd(t, () => client.close())
  return client
}

/** Resolves with the arguments of the next event of a client, or of the next one that matches. */
export function next<Name extends keyof ClientEvents> (
  client: RohrpostClient,
  event: Name,
  fits: (...args: ClientEvents[Name]) => boolean = () => true
): Promise<ClientEvents[Name]> {
  return new Promise((resolve) => {
    const listener = (...args: ClientEvents[Name]) => {
      if (!fits(...args)) return
      client.off(event, listener)
      resolve(args)
    }
    client.on(event, listener)
  })
}

/** Resolves when a client is in a state. */
export async function until (client: RohrpostClient, state: State): Promise<void> {
  if (client.state !== state) await next(client, 'state', (name) => name === state)
}

/** Records all messages that a client sends from now on, parsed. */
export function sent (client: RohrpostClient): Record<string, unknown>[] {
  const messages: Record<string, unknown>[] = []
  client.on('log', ({ direction, data }) => {
    if (direction === 'send') messages.push(JSON.parse(data))
  })
  return messages
}

/** The message of a change. */
export function change (group: string, type: 'create' | 'update' | 'delete', object: unknown) {
  return { id: 7, type: 'subscription-update', data: { group, type, object } }
}
