/** An app under test: it listens on a free port, and its clients are signed in as the app itself demands. */
import type { FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import type { Contract } from '../protocol/contract.ts'
import { internalsOf } from '../server/internals.ts'
import { isThenable } from '../util/thenable.ts'
import type { RohrpostConnection } from '../server/types.ts'
import type { TestFrame } from './mailbox.ts'
import { poll } from './recorder.ts'
import { TestClient, type TestClientOptions } from './test-client.ts'

/** How a client shows to the server which user it is. */
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
  /** Signs a user in, as the app's authentication demands. Needed where `client({ user })` is called with a user. */
  signIn?: (user: User) => SignIn | Promise<SignIn>
  /** The path of the WebSocket route, with the prefix of the plugin around it. @defaultValue `'/ws/rohrpost'` */
  path?: string
  /** Milliseconds after which a wait of a client fails, see `TestClientOptions`. @defaultValue 4000 */
  timeout?: number
}

/** By this header of the upgrade request the connection of a test client is found. */
const HEADER = 'x-rohrpost-test-client'

/** The type of the messages that follow all others through the broker. */
const MARKER = 'rohrpost-test-marker'

/** A client whose app knows when it is settled. */
class AppClient<C extends Contract> extends TestClient<C, WebSocket> {
  readonly #app: { settled (): Promise<void> }
  /** Markers that came. */
  readonly #markers = new Set<unknown>()

  constructor (socket: WebSocket, options: TestClientOptions, app: { settled (): Promise<void> }) {
    super(socket, options)
    this.#app = app
  }

  get isOpen (): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  /** Takes a marker that came, if it did. */
  hasHeard (marker: string): boolean {
    return this.#markers.has(marker)
  }

  override async settled (): Promise<void> {
    if (!this.isOpen) await super.settled()
    await this.#app.settled()
  }

  /** What `settled` means for this client alone; a connection that closes meanwhile is settled. */
  async settledAlone (): Promise<void> {
    await super.settled().catch((error) => { if (this.isOpen) throw error })
  }

  protected override isInternal ({ type, data }: TestFrame): boolean {
    if (type !== MARKER) return false
    this.#markers.add(data)
    return true
  }
}

/** An app that listens, with its clients. Made by {@link createTestApp}. */
export class TestApp<C extends Contract = Contract, User = string> {
  readonly app: FastifyInstance
  /** The address for other clients, such as `ws://127.0.0.1:40123/ws/rohrpost`. */
  readonly url: string
  readonly #options: TestAppOptions<User>
  readonly #clients = new Map<string, AppClient<C>>()
  /** Handlers that run, also those whose request is answered. */
  #running = 0
  /** Handlers that were started. */
  #started = 0

  /** Takes an app that listens at an address. */
  constructor (app: FastifyInstance, address: string, options: TestAppOptions<User>) {
    this.app = app
    this.url = address.replace('http', 'ws') + (options.path ?? '/ws/rohrpost')
    this.#options = options
    app.rohrpost.use((_message, _connection, next) => this.#watch(next))
  }

  /**
   * Connects a client, signed in as a user if one is given.
   *
   * @returns resolves when `onConnect` has let the client in; rejects when the upgrade is refused (the error names the status), or
   * `onConnect` refuses (the error names the close code)
   */
  async client ({ user }: { user?: User } = {}): Promise<TestClient<C, WebSocket>> {
    const { timeout, signIn = noSignIn } = this.#options
    const { headers, query, token }: SignIn = user === undefined ? {} : await signIn(user)
    const id = crypto.randomUUID()
    const socket = new WebSocket(`${this.url}?${new URLSearchParams(query)}`, { headers: { ...headers, [HEADER]: id } })
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
   * Resolves when all that the clients of this app have sent is answered, every handler and every `onDisconnect` has ended, and the messages
   * that they sent have come to all clients that are to get them. docs/testing.md says what this proves.
   */
  async settled (): Promise<void> {
    const clients = [...this.#clients.values()].filter(({ isOpen }) => isOpen)
    await Promise.all(clients.map((client) => client.settledAlone()))
    // what came to an end may have begun something else, such as the end of another connection
    for (let before; before !== this.#state();) {
      before = this.#state()
      await poll('end of all handlers and onDisconnect hooks', () => !this.#isBusy())
      await this.#passBroker()
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

  /** Runs a handler; one that answers at once still does. */
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

  /** Text that changes when a handler starts, and when a client comes or goes. */
  #state (): string {
    return [this.#started, ...[...this.app.rohrpost.connections].map(({ id }) => id)].join()
  }

  /** Whether a handler or an `onDisconnect` runs, or will run because a client has gone. */
  #isBusy (): boolean {
    const { rohrpost } = this.app
    return this.#running > 0 ||
      internalsOf(rohrpost).backgroundWork.some((count) => count() > 0) ||
      [...rohrpost.connections].some((connection) => this.#clientOf(connection)?.isOpen === false)
  }

  #clientOf ({ request }: RohrpostConnection): AppClient<C> | undefined {
    return this.#clients.get(String(request.headers[HEADER]))
  }

  /** Sends a marker through the broker to each group of the clients, and waits for it: what was sent to a group before has come then. */
  async #passBroker (): Promise<void> {
    const members = [...this.app.rohrpost.connections].flatMap((connection) => {
      const client = this.#clientOf(connection)
      return client === undefined ? [] : [...connection.groups].map((group) => ({ connection, client, group }))
    })
    // a member that is about to join would miss the marker; for all others nothing changes
    await Promise.all(members.map(({ connection, group }) => connection.join(group)))

    const pass = crypto.randomUUID()
    const marker = (group: string) => `${pass} ${group}`
    const groups = new Set(members.map(({ group }) => group))
    await Promise.all([...groups].map((group) => this.app.rohrpost.sendToGroup(group, { type: MARKER, data: marker(group) })))
    await poll('marker of each group', () => members.every(({ connection, client, group }) => {
      return client.hasHeard(marker(group)) || !client.isOpen || !connection.groups.has(group)
    }))
  }
}

/**
 * Makes an app ready for tests: it listens on a free port of 127.0.0.1, and `client({ user })` gives a connected client. The app has registered
 * `fastify-rohrpost` and everything that belongs to it, as in production.
 *
 * @throws if the app has no `fastify-rohrpost`
 */
export async function createTestApp<C extends Contract = Contract, User = string> (
  app: FastifyInstance,
  options: TestAppOptions<User> = {}
): Promise<TestApp<C, User>> {
  await app.ready()
  if (!app.hasDecorator('rohrpost')) throw new Error('the app has no fastify-rohrpost: register it before createTestApp')
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return new TestApp(app, address, options)
}

function noSignIn (): never {
  throw new Error("a client with a user needs the option 'signIn' of createTestApp")
}
