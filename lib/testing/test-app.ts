/** `createTestApp`: an app that listens on a free port, with test clients that sign in the way the app demands. */
import type { FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import type { Contract } from '../protocol/contract.ts'
import { internalsOf } from '../server/internals.ts'
import { isThenable } from '../util/thenable.ts'
import type { RohrpostConnection } from '../server/types.ts'
import type { TestFrame } from './mailbox.ts'
import { poll } from './recorder.ts'
import { TestClient, type TestClientOptions } from './test-client.ts'

/** The credentials of a user, as the client sends them. */
export interface SignIn {
  /** Headers of the upgrade request: a cookie, or `authorization`. */
  readonly headers?: Readonly<Record<string, string>>
  /** The query of the upgrade request. */
  readonly query?: Readonly<Record<string, string>>
  /** Sent as `auth_jwt` with calls and subscriptions. */
  readonly token?: string
}

/** Options of `createTestApp`. */
export interface TestAppOptions<User> {
  /**
   * Returns the credentials of a user, in the form that the app's authentication expects. Required by `client({ user
   * })`.
   */
  signIn?: (user: User) => SignIn | Promise<SignIn>
  /** Path of the WebSocket route, including the prefix of the surrounding plugin. @defaultValue `'/ws/rohrpost'` */
  path?: string
  /** The option `timeout` of the test clients, in milliseconds. @defaultValue 4000 */
  timeout?: number
}

/** Header of the upgrade request that identifies the test client of a connection. */
const CLIENT_ID_HEADER = 'x-rohrpost-test-client'

/** Type of the marker messages that `settled` sends to groups. */
const MARKER = 'rohrpost-test-marker'

/** A test client whose `settled` covers the whole app. */
class AppClient<C extends Contract> extends TestClient<C, WebSocket> {
  readonly #app: { settled (): Promise<void> }
  /** Data of the markers that have arrived. */
  readonly #markers = new Set<unknown>()

  constructor (socket: WebSocket, options: TestClientOptions, app: { settled (): Promise<void> }) {
    super(socket, options)
    this.#app = app
  }

  get isOpen (): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  hasReceived (marker: string): boolean {
    return this.#markers.has(marker)
  }

  override async settled (): Promise<void> {
    if (!this.isOpen) await super.settled()
    await this.#app.settled()
  }

  /** Waits like `TestClient.settled`, but accepts that the connection closes meanwhile. */
  async settledAlone (): Promise<void> {
    await super.settled().catch((error) => { if (this.isOpen) throw error })
  }

  protected override isInternal ({ type, data }: TestFrame): boolean {
    if (type !== MARKER) return false
    this.#markers.add(data)
    return true
  }
}

/** A listening app and its test clients, made by {@link createTestApp}. */
export class TestApp<C extends Contract = Contract, User = string> {
  readonly app: FastifyInstance
  /** URL of the WebSocket route, such as `ws://127.0.0.1:40123/ws/rohrpost`. */
  readonly url: string
  readonly #options: TestAppOptions<User>
  readonly #clients = new Map<string, AppClient<C>>()
  /** Number of running handlers, including those that have replied. */
  #running = 0
  /** Number of handlers started so far. */
  #started = 0

  /** @param address the HTTP address at which the app listens */
  constructor (app: FastifyInstance, address: string, options: TestAppOptions<User>) {
    this.app = app
    this.url = address.replace('http', 'ws') + (options.path ?? '/ws/rohrpost')
    this.#options = options
    app.rohrpost.use((_message, _connection, next) => this.#watch(next))
  }

  /**
   * Connects a client, signed in if a user is given.
   *
   * @returns resolves after `onConnect` of the app; rejects if the app refuses the upgrade (the error names the HTTP
   * status) or closes the connection (the error names the close code)
   */
  async client ({ user }: { user?: User } = {}): Promise<TestClient<C, WebSocket>> {
    const { timeout, signIn = noSignIn } = this.#options
    const { headers, query, token }: SignIn = user === undefined ? {} : await signIn(user)
    const id = crypto.randomUUID()
    const url = `${this.url}?${new URLSearchParams(query)}`
    const socket = new WebSocket(url, { headers: { ...headers, [CLIENT_ID_HEADER]: id } })
    const client = new AppClient<C>(socket, { ...(timeout !== undefined && { timeout }), token }, this)
    this.#clients.set(id, client)
    await client.opened
    await client.settledAlone()
    if (!client.isOpen) {
      const { code, reason } = await client.closed
      throw new Error(`the server closed the connection with ${code} ${reason}`)
    }
    return client
  }

  /**
   * Resolves when every request of this app's clients has a reply, every handler and every `onDisconnect` has ended,
   * and all messages to their groups have arrived. docs/testing.md lists the exceptions.
   */
  async settled (): Promise<void> {
    const clients = [...this.#clients.values()].filter(({ isOpen }) => isOpen)
    await Promise.all(clients.map((client) => client.settledAlone()))
    // a handler or hook that has ended may have started another one, for example by closing a connection
    for (let before; before !== this.#state();) {
      before = this.#state()
      await poll('end of all handlers and onDisconnect hooks', () => !this.#isBusy())
      await this.#awaitMarkers()
      await Promise.all(clients.map((client) => client.settledAlone()))
    }
  }

  /** Closes the clients and the app. */
  async close (): Promise<void> {
    await Promise.all([...this.#clients.values()].map((client) => client.close()))
    await this.app.close()
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  /** Counts a handler while it runs. A synchronous handler stays synchronous. */
  #watch (next: () => unknown): unknown {
    this.#started++
    const result = next()
    return isThenable(result) ? this.#count(result) : result
  }

  async #count (result: PromiseLike<unknown>): Promise<unknown> {
    this.#running++
    try {
      return await result
    } finally {
      this.#running--
    }
  }

  /** Returns a text that changes when a handler starts, and when a client connects or disconnects. */
  #state (): string {
    return [this.#started, ...[...this.app.rohrpost.connections].map(({ id }) => id)].join()
  }

  /** Whether a handler or an `onDisconnect` runs, or is about to run after a disconnect. */
  #isBusy (): boolean {
    const { rohrpost } = this.app
    return this.#running > 0 ||
      internalsOf(rohrpost).backgroundWork.some((count) => count() > 0) ||
      [...rohrpost.connections].some((connection) => this.#clientOf(connection)?.isOpen === false)
  }

  #clientOf ({ request }: RohrpostConnection): AppClient<C> | undefined {
    return this.#clients.get(String(request.headers[CLIENT_ID_HEADER]))
  }

  /** Sends a marker through the broker to each group of the clients. Earlier messages of the group arrive before it. */
  async #awaitMarkers (): Promise<void> {
    const members = [...this.app.rohrpost.connections].flatMap((connection) => {
      const client = this.#clientOf(connection)
      return client === undefined ? [] : [...connection.groups].map((group) => ({ connection, client, group }))
    })
    // a pending join would miss the marker; joining again waits for it and changes nothing else
    await Promise.all(members.map(({ connection, group }) => connection.join(group)))

    const round = crypto.randomUUID()
    const marker = (group: string) => `${round} ${group}`
    const groups = new Set(members.map(({ group }) => group))
    await Promise.all([...groups].map((group) => {
      return this.app.rohrpost.sendToGroup(group, { type: MARKER, data: marker(group) })
    }))
    await poll('marker of each group', () => members.every(({ connection, client, group }) => {
      return client.hasReceived(marker(group)) || !client.isOpen || !connection.groups.has(group)
    }))
  }
}

/**
 * Starts an app for tests on a free port of 127.0.0.1. `client({ user })` of the result connects a test client.
 *
 * @param app the app as in production, with `fastify-rohrpost` registered
 * @throws if `fastify-rohrpost` is not registered
 */
export async function createTestApp<C extends Contract = Contract, User = string> (
  app: FastifyInstance,
  options: TestAppOptions<User> = {}
): Promise<TestApp<C, User>> {
  await app.ready()
  if (!app.hasDecorator('rohrpost')) {
    throw new Error('createTestApp needs an app with fastify-rohrpost: register the plugin first')
  }
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return new TestApp(app, address, options)
}

function noSignIn (): never {
  throw new Error("a client with a user needs the option 'signIn' of createTestApp")
}
