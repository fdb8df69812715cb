/** `TestClient`: a client for the tests of an application. It gives each call its reply, and keeps all other frames. */
import type { Change, GroupName } from '../client/index.ts'
import { RohrpostError } from '../client/error.ts'
import type { CallData, CallName, CallReply, Contract, GroupId, GroupObject, GroupType } from '../protocol/contract.ts'
import { Mailbox, type ReceivedFrame, type TestFrame } from './mailbox.ts'

/** The reply to a call, with `error` and `code` if the call failed, else with the `data` of the handler. */
export type TestReply<Data = unknown> = TestFrame & {
  readonly type: string
  readonly data: Data
  readonly error?: string
  readonly code?: string
}

/** The data of a call, optional if the contract has no schema for it. */
export type TestCallData<Data> = unknown extends Data ? [data?: unknown] : [data: Data]

/**
 * Structural type of a WebSocket: that of browsers and Node.js, that of `ws`, and that of `app.injectWS()` of
 * `@fastify/websocket`.
 */
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
   * Milliseconds after which a wait for a frame fails. The error names the expected frame and the unread ones.
   *
   * @defaultValue 4000, less than the test timeout of Jest and Vitest (5000)
   */
  timeout?: number
  /**
   * Sent as `auth_jwt` with calls and subscriptions, like the option `token` of `RohrpostClient`.
   *
   * @defaultValue none
   */
  token?: string | undefined
}

/**
 * Message type of a round trip. No server has a handler for it, so that the server replies at once, in order of
 * arrival.
 */
const ROUND_TRIP = 'rohrpost-test-round-trip'

/** `readyState` of an open socket. */
const OPEN = 1

/**
 * A connection that keeps received frames until the test reads them. `TestClient<typeof api>` is typed by a contract.
 */
export class TestClient<C extends Contract = Contract, Socket extends TestSocket = TestSocket> {
  readonly socket: Socket
  /** Resolves when the connection is open; rejects if the server refuses it. */
  readonly opened: Promise<void>
  /** Resolves when the connection is closed. */
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #mailbox: Mailbox
  readonly #token: string | undefined
  /** Ids of the requests without a reply. */
  readonly #unanswered: unknown[] = []
  #ids = 0

  /** @param socket an open or connecting socket */
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
  static async connect<C extends Contract = Contract> (
    url: string | URL, options?: TestClientOptions
  ): Promise<TestClient<C>> {
    const client = new TestClient<C>(new WebSocket(url), options)
    await client.opened
    return client
  }

  /** The received frames that no call has read, parsed. They remain unread. */
  get unread (): TestFrame[] {
    return this.#mailbox.unread.map(({ frame, text }) => frame ?? { text })
  }

  /** Sends an object as JSON, and a string unchanged. */
  send (message: unknown): void {
    const text = typeof message === 'string' ? message : JSON.stringify(message)
    const { id } = Object(parse(text))
    this.socket.send(text)
    if (typeof id === 'string' || typeof id === 'number') this.#unanswered.push(id)
  }

  /** Reads the next frame, parsed; rejects if the connection closes first. Concurrent calls get different frames. */
  async next (): Promise<TestFrame> {
    return JSON.parse(await this.nextText())
  }

  /** Reads the next frame as text; rejects if the connection closes first. */
  async nextText (): Promise<string> {
    const { text } = await this.#mailbox.take('frame')
    return text
  }

  /**
   * Reads the next unread change of a group, in the form of `RohrpostClient.changes`; other frames are kept. The group
   * name that `subscribe` returns carries the type of the objects.
   */
  async change<Item = GroupObject<Contract, string>> (group: GroupName<Item>): Promise<Change<Item>> {
    const isChange = ({ frame }: ReceivedFrame) => isUpdate(frame) && Object(frame?.data).group === group
    const { frame } = await this.#mailbox.take(`change of group '${group}'`, isChange)
    return frame?.data as Change<Item>
  }

  /** Sends a message and reads the next frame, which need not be its reply. */
  async ask (message: unknown): Promise<TestFrame> {
    this.send(message)
    return await this.next()
  }

  /** Calls a handler and reads its reply, which may have an `error`. Frames before it are kept. */
  async call<Name extends CallName<C>> (
    type: Name, ...[data]: TestCallData<CallData<C, Name>>
  ): Promise<TestReply<CallReply<C, Name>>> {
    return await this.#request(type, data) as TestReply<CallReply<C, Name>>
  }

  /**
   * Joins a group.
   *
   * @returns the group's name, for {@link change}. Rejects with a `RohrpostError` if the server refuses
   */
  async subscribe<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>
  ): Promise<{ group: GroupName<GroupObject<C, Type>> }> {
    return await this.#succeed('subscribe', group) as { group: string }
  }

  /** Leaves a group. */
  async unsubscribe<Type extends GroupType<C>> (group: { readonly type: Type } & GroupId<C, Type>): Promise<void> {
    await this.#succeed('unsubscribe', group)
  }

  /**
   * Resolves when every request of this client has a reply, and every frame that the server sent before the last reply
   * has arrived: a round trip follows that reply. On a closed connection it resolves at once. Group messages that a
   * broker has not delivered yet may arrive later; only clients of `createTestApp` wait for them.
   *
   * @throws if the connection closes before all requests have a reply
   */
  async settled (): Promise<void> {
    const what = () => `answers to ${JSON.stringify(this.#unanswered)}`
    await this.#mailbox.until(what, () => this.#unanswered.length === 0)
    // no frame arrives after the close
    if (this.socket.readyState !== OPEN) {
      await this.closed
      return
    }
    const id = `round trip ${++this.#ids}`
    this.socket.send(JSON.stringify({ id, type: ROUND_TRIP }))
    await this.#mailbox.take('answer to a round trip', isReplyTo(id)).catch((error) => {
      if (!this.#mailbox.isClosed) throw error
    })
  }

  /** Sends a ping, and reads every frame that the server sent before the pong. */
  async untilPong (): Promise<TestFrame[]> {
    const id = `sync ${++this.#ids}`
    this.send({ id, type: 'ping' })
    const { before } = await this.#mailbox.take('pong', isReplyTo(id), true)
    return before.map(({ text }) => JSON.parse(text))
  }

  /** Closes the connection. Resolves when it is closed. */
  async close (code?: number, reason?: string): Promise<void> {
    this.socket.close(code, reason)
    await this.closed
  }

  async #request (type: string, data: unknown): Promise<TestFrame> {
    const id = ++this.#ids
    this.send({ id, type, data, ...(this.#token !== undefined && { auth_jwt: this.#token }) })
    const { frame } = await this.#mailbox.take(`reply to '${type}'`, isReplyTo(id))
    return frame as TestFrame
  }

  async #succeed (type: string, group: object): Promise<unknown> {
    const { data, error, code } = await this.#request(type, group) as TestReply
    if (error !== undefined) throw new RohrpostError(error, { code })
    return data
  }

  /** Whether a frame belongs to the test client itself, so that it is hidden from tests. */
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

/** Parses a frame. @returns `undefined` for text that is not a JSON object or array */
function parse (text: string): TestFrame | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value as TestFrame : undefined
  } catch {
    return undefined
  }
}

/** Whether a frame is a change of a group. Its id is random and may equal the id of a request. */
function isUpdate (frame: TestFrame | undefined): boolean {
  return frame?.type === 'subscription-update' && frame.error === undefined
}

/** Returns a function that recognizes the reply to a request. */
function isReplyTo (id: unknown): (received: ReceivedFrame) => boolean {
  return ({ frame }) => frame?.id === id && !isUpdate(frame)
}
