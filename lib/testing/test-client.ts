/** A client for tests of applications: replies go to the calls that they answer, and every other frame is kept until a test asks for it. */
import type { Change, GroupName } from '../client/index.ts'
import { RohrpostError } from '../client/error.ts'
import type { CallData, CallName, CallReply, Contract, GroupId, GroupObject, GroupType } from '../protocol/contract.ts'
import { Mailbox, type Incoming, type TestFrame } from './mailbox.ts'

/** A frame that answers a call. `error` and `code` are there if the call failed, and `data` if it succeeded with some. */
export type TestReply<Data = unknown> = TestFrame & {
  readonly type: string
  readonly data: Data
  readonly error?: string
  readonly code?: string
}

/** The data of a call; it may be left out where the contract says nothing about it. */
export type TestCallData<Data> = unknown extends Data ? [data?: unknown] : [data: Data]

/** What a socket must have: that of browsers and Node.js, that of `ws`, or what `app.injectWS()` of `@fastify/websocket` resolves to. */
export interface TestSocket {
  readonly readyState: number
  send (text: string): void
  close (code?: number, reason?: string): void
  addEventListener (type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener (type: 'open', listener: () => void): void
  addEventListener (type: 'close', listener: (event: { code: number, reason: string }) => void): void
  addEventListener (type: 'error', listener: (event: object) => void): void
}

/** Options of a test client. */
export interface TestClientOptions {
  /**
   * Milliseconds after which a wait for a frame fails, with an error that says what did not come and what came instead.
   *
   * @defaultValue 4000: less than the 5 seconds that Jest and Vitest give a test
   */
  timeout?: number
  /** Sent as `auth_jwt` with calls and subscriptions, as the option `token` of `RohrpostClient` is. @defaultValue none */
  token?: string | undefined
}

/** The type of the message that ends a round trip. No server has a handler for it: each one answers in order of arrival, with an error. */
const ROUND_TRIP = 'rohrpost-test-round-trip'

/** `readyState` of a socket that is open. */
const OPEN = 1

/** A connection whose frames wait in a queue until the test asks for them. `TestClient<typeof api>` is typed by a contract. */
export class TestClient<C extends Contract = Contract, Socket extends TestSocket = TestSocket> {
  readonly socket: Socket
  /** Resolves when the connection is open; rejects when it could not be made. */
  readonly opened: Promise<void>
  /** Resolves when the connection is closed. */
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #mailbox: Mailbox
  readonly #token: string | undefined
  /** Ids of the requests that are not answered yet. */
  readonly #unanswered: unknown[] = []
  #ids = 0

  /** Takes a socket, open or about to be. */
  constructor (socket: Socket, { timeout = 4000, token }: TestClientOptions = {}) {
    this.socket = socket
    this.#token = token
    this.#mailbox = new Mailbox(timeout)
    const opened = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<{ code: number, reason: string }>()
    this.opened = opened.promise
    this.closed = closed.promise
    this.opened.catch(() => {})

    if (socket.readyState === OPEN) opened.resolve()
    socket.addEventListener('open', () => opened.resolve())
    let trouble = ''
    socket.addEventListener('error', (event: { message?: string }) => { trouble = `: ${event.message}` })
    socket.addEventListener('close', ({ code, reason }) => {
      opened.reject(new Error(`closed with ${code} before it was open${trouble}`))
      this.#mailbox.close(`closed with ${code}`)
      closed.resolve({ code, reason })
    })
    socket.addEventListener('message', ({ data }) => this.#receive(String(data)))
  }

  /** Connects to a server, such as `ws://127.0.0.1:3000/ws/rohrpost`. */
  static async connect<C extends Contract = Contract> (url: string | URL, options?: TestClientOptions): Promise<TestClient<C>> {
    const client = new TestClient<C>(new WebSocket(url), options)
    await client.opened
    return client
  }

  /** The frames that came and that nobody has asked for yet, parsed; they stay where they are. */
  get unread (): TestFrame[] {
    return this.#mailbox.unread.map(({ frame, text }) => frame ?? { text })
  }

  /** Sends an object as JSON, text as it is. */
  send (message: unknown): void {
    const text = typeof message === 'string' ? message : JSON.stringify(message)
    const { id } = Object(parse(text))
    this.socket.send(text)
    if (typeof id === 'string' || typeof id === 'number') this.#unanswered.push(id)
  }

  /** The next frame, parsed; rejects if the connection closes first. Several calls at once get one frame after another. */
  async next (): Promise<TestFrame> {
    return JSON.parse(await this.nextText())
  }

  /** The next frame as text; rejects if the connection closes first. */
  async nextText (): Promise<string> {
    const { text } = await this.#mailbox.take('frame')
    return text
  }

  /**
   * The next change of a group that nobody has asked for yet, as `RohrpostClient.changes` gives it; other frames are kept. A group that
   * `subscribe` returned knows the type of its objects.
   */
  async change<Item = GroupObject<Contract, string>> (group: GroupName<Item>): Promise<Change<Item>> {
    const { frame } = await this.#mailbox.take(`change of group '${group}'`, ({ frame }) => isUpdate(frame) && Object(frame?.data).group === group)
    return frame?.data as Change<Item>
  }

  /** Sends a message and returns the next frame, whatever it answers. */
  async ask (message: unknown): Promise<TestFrame> {
    this.send(message)
    return await this.next()
  }

  /** Calls a handler and returns its reply, also one with an `error`. Frames that come before it are kept for `next`. */
  async call<Name extends CallName<C>> (type: Name, ...[data]: TestCallData<CallData<C, Name>>): Promise<TestReply<CallReply<C, Name>>> {
    return await this.#request(type, data) as TestReply<CallReply<C, Name>>
  }

  /**
   * Joins a group.
   *
   * @returns the group's name, for {@link change}. Rejects with a `RohrpostError` where the server refuses
   */
  async subscribe<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>
  ): Promise<{ group: GroupName<GroupObject<C, Type>> }> {
    return await this.#succeed('subscribe', group) as { group: string }
  }

  /** Leaves a group that `subscribe` joined. */
  async unsubscribe<Type extends GroupType<C>> (group: { readonly type: Type } & GroupId<C, Type>): Promise<void> {
    await this.#succeed('unsubscribe', group)
  }

  /**
   * Resolves when every request that this client has sent is answered, and everything that the server had put on its way to this client
   * before that has come: a round trip follows the last answer. On a closed connection that is at once. Messages of groups that are still on
   * their way through a broker may come later: clients of `createTestApp` wait for them too.
   *
   * @throws if the connection closes before all requests are answered
   */
  async settled (): Promise<void> {
    await this.#mailbox.until(() => `answers to ${JSON.stringify(this.#unanswered)}`, () => this.#unanswered.length === 0)
    // nothing comes after the close
    if (this.socket.readyState !== OPEN) {
      await this.closed
      return
    }
    const id = `round trip ${++this.#ids}`
    this.socket.send(JSON.stringify({ id, type: ROUND_TRIP }))
    await this.#mailbox.take('answer to a round trip', answers(id)).catch((error) => {
      if (!this.#mailbox.isClosed) throw error
    })
  }

  /** Every frame up to the answer of a ping: those that the server sent before have come. */
  async untilPong (): Promise<TestFrame[]> {
    const id = `sync ${++this.#ids}`
    this.send({ id, type: 'ping' })
    const { before } = await this.#mailbox.take('pong', answers(id), true)
    return before.map(({ text }) => JSON.parse(text))
  }

  /** Closes the connection, and resolves when it is closed. */
  async close (code?: number, reason?: string): Promise<void> {
    this.socket.close(code, reason)
    await this.closed
  }

  async #request (type: string, data: unknown): Promise<TestFrame> {
    const id = ++this.#ids
    this.send({ id, type, data, ...(this.#token !== undefined && { auth_jwt: this.#token }) })
    const { frame } = await this.#mailbox.take(`reply to '${type}'`, answers(id))
    return frame as TestFrame
  }

  async #succeed (type: string, group: object): Promise<unknown> {
    const { data, error, code } = await this.#request(type, group) as TestReply
    if (error !== undefined) throw new RohrpostError(error, { code })
    return data
  }

  /** Whether a frame is none of the app's, so that no test reads it. */
  protected isInternal (_frame: TestFrame): boolean {
    return false
  }

  #receive (text: string): void {
    const frame = parse(text)
    if (frame !== undefined && this.isInternal(frame)) return
    if (!isUpdate(frame)) {
      const index = this.#unanswered.indexOf(frame?.id)
      if (index >= 0) this.#unanswered.splice(index, 1)
    }
    this.#mailbox.add({ text, frame })
  }
}

/** A frame as an object; `undefined` for text that is none. */
function parse (text: string): TestFrame | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value as TestFrame : undefined
  } catch {
    return undefined
  }
}

/** The ids of updates are random, and may be those of requests. */
function isUpdate (frame: TestFrame | undefined): boolean {
  return frame?.type === 'subscription-update' && frame.error === undefined
}

function answers (id: unknown): (incoming: Incoming) => boolean {
  return ({ frame }) => frame?.id === id && !isUpdate(frame)
}
