/** What one client sends: read in order, and worked off by so many handlers at once. What waits is bounded, then the socket is paused. */
import { TokenBucket } from 'limiter'
import type { WebSocket } from 'ws'
import { CloseCode, ErrorCode } from '../protocol/codes.ts'
import { decode, Malformed, type Envelope } from '../protocol/decode.ts'
import { toText } from './envelope.ts'
import { Observation } from './observation.ts'
import type { Registration, Registry } from './registry.ts'
import { Request, type RequestConnection } from './request.ts'
import type { OutgoingMessage } from './types.ts'

/** How much of one client is taken at once; the options of the same names. */
export interface InboxLimits {
  /** Bytes. */
  maxPayload: number
  concurrency: number
  maxPending: { messages: number, bytes: number }
  /** Milliseconds. */
  handlerTimeout: number
  /** Messages, at once and then in each interval of milliseconds. */
  rateLimit?: { max: number, interval: number }
}

/** What all inboxes of a server share. */
export interface InboxContext {
  readonly registry: Registry
  readonly limits: InboxLimits
}

/** A request that waits for a slot. */
interface Waiting {
  request: Request
  bytes: number
}

/** The messages of one client. */
export class Inbox {
  readonly #context: InboxContext
  readonly #socket: WebSocket
  readonly #connection: RequestConnection
  // what an idle connection does not need is made when it is needed: there may be very many of them
  #drained: PromiseWithResolvers<void> | undefined
  /** Whether `onConnect` let the client in. */
  #opened = false
  /** What came while `onConnect` still ran. */
  #early: { raw: Buffer, isBinary: boolean }[] | undefined
  /** Whose handlers run now. */
  #running: Set<Request> | undefined
  #waiting: Waiting[] | undefined
  /** Bytes of what came early or waits. */
  #held = 0
  /** Holds a token for each message that the client may send now. */
  #bucket: TokenBucket | undefined

  constructor (context: InboxContext, socket: WebSocket, connection: RequestConnection) {
    this.#context = context
    this.#socket = socket
    this.#connection = connection
  }

  /** Takes a message, unless the close has begun. */
  receive (raw: Buffer, isBinary: boolean): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (raw.length > this.#context.limits.maxPayload) return this.#connection.close(CloseCode.TOO_LARGE)
    if (!this.#opened) {
      this.#early ??= []
      this.#early.push({ raw, isBinary })
      return this.#hold(raw.length)
    }

    const isAllowed = this.#count()
    const message = decode(isBinary ? '' : raw.toString())
    if (message instanceof Malformed) return this.#refuse({ id: message.id, error: message.error, code: message.code }, undefined, raw.length)

    const { id, type } = message
    if (!isAllowed) return this.#refuse({ id, type, error: 'Too many messages.', code: ErrorCode.RATE_LIMITED, retry: true }, message, raw.length)

    const registration = this.#context.registry.get(type)
    if (registration === undefined) {
      return this.#refuse({ id, type, error: `Unknown message type '${type}'.`, code: ErrorCode.UNKNOWN_TYPE }, message, raw.length)
    }
    this.#accept(message, registration, raw.length)
  }

  /** The client was let in: works off what came meanwhile. */
  open (): void {
    this.#opened = true
    this.#held = 0
    const early = this.#early
    this.#early = undefined
    for (const { raw, isBinary } of early ?? []) this.receive(raw, isBinary)
    this.#readOn()
  }

  /**
   * Starts no more handlers: what waits, and what still comes, is turned away.
   *
   * @returns resolves when no handler runs any more
   */
  drain (): Promise<void> {
    this.#drained ??= Promise.withResolvers()
    for (const { request } of this.#waiting?.splice(0) ?? []) request.turnAway()
    if (this.#opened) this.#held = 0
    this.#readOn()
    if (this.#active === 0) this.#drained.resolve()
    return this.#drained.promise
  }

  /** Forgets what waits. */
  clear (): void {
    this.#waiting = undefined
  }

  /** The client has gone: tells the handlers that still run. */
  abandon (): void {
    this.clear()
    if (this.#running === undefined || this.#running.size === 0) return

    const gone = new DOMException('The client has gone.', 'AbortError')
    for (const request of this.#running) request.abandon(gone)
  }

  /** A message with the id of a running request is its answer. */
  settle (message: OutgoingMessage, text: string): void {
    for (const request of this.#running ?? []) {
      if (request.open && request.envelope.id === message.id) return request.settle(message, text)
    }
  }

  /** Counts a message. @returns whether the client may send it */
  #count (): boolean {
    const { rateLimit } = this.#context.limits
    if (rateLimit === undefined) return true

    if (this.#bucket === undefined) {
      const { max, interval } = rateLimit
      this.#bucket = new TokenBucket({ bucketSize: max, tokensPerInterval: max, interval })
      this.#bucket.content = max
    }
    return this.#bucket.tryRemoveTokens(1)
  }

  /** Answers a message of which nobody takes care. */
  #refuse (answer: OutgoingMessage & { code: string }, message: Envelope | undefined, bytes: number): void {
    const text = toText(answer)
    this.#connection.transmit(text)
    const observation = Observation.of(this.#connection, undefined, message, bytes)
    observation?.run(() => observation.end('error', answer.code, text))
  }

  #accept (message: Envelope, registration: Registration, bytes: number): void {
    const request = new Request(message, registration, this.#connection, bytes)
    if (registration.role === 'ping') {
      request.run(this.#context)
    } else if (this.#drained !== undefined) {
      request.turnAway()
    } else if (this.#active < this.#context.limits.concurrency) {
      this.#start(request)
    } else {
      this.#waiting ??= []
      this.#waiting.push({ request, bytes })
      this.#hold(bytes)
    }
  }

  get #active (): number {
    return this.#running?.size ?? 0
  }

  #start (request: Request): void {
    this.#running ??= new Set()
    this.#running.add(request)
    const running = request.run(this.#context)
    if (running === undefined) {
      this.#running.delete(request)
    } else {
      running.then(() => this.#ended(request))
    }
  }

  #ended (request: Request): void {
    this.#running?.delete(request)
    if (this.#active === 0) this.#drained?.resolve()
    while (this.#active < this.#context.limits.concurrency) {
      const next = this.#waiting?.shift()
      if (next === undefined) break
      this.#held -= next.bytes
      this.#start(next.request)
    }
    this.#readOn()
  }

  #hold (bytes: number): void {
    this.#held += bytes
    if (this.#full()) this.#socket.pause()
  }

  #readOn (): void {
    if (this.#socket.isPaused && !this.#full()) this.#socket.resume()
  }

  #full (): boolean {
    const { messages, bytes } = this.#context.limits.maxPending
    return this.#held >= bytes || ((this.#opened ? this.#waiting : this.#early)?.length ?? 0) >= messages
  }
}
