/**
 * The messages that one client sends. They are read in order and handled in two queues: ordered requests run `concurrency` at a time, by default one
 * after another; parallel requests run beside them. What waits is bounded, then the client is not read.
 */
import { TokenBucket } from 'limiter'
import type { WebSocket } from 'ws'
import { CloseCode, ErrorCode } from '../../protocol/codes.ts'
import { decode, Malformed, type Envelope } from '../../protocol/decode.ts'
import { toText } from '../sending/envelope.ts'
import { Observation } from './observation.ts'
import { readOn, stopReading } from './receiver.ts'
import type { Registration, Registry } from './registry.ts'
import { Request, type RequestConnection, type RequestHost } from './request.ts'
import type { OutgoingMessage } from '../types.ts'

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

/** Parallel requests of one connection that run at once. Ordered requests whose handlers are overdue are bounded by the same number. */
const MAX_PARALLEL = 16

/** A request that waits for its turn. */
interface Waiting {
  request: Request
  bytes: number
}

/** Bytes of the largest `ping` that is answered while `onConnect` runs. */
const MAX_PING = 1024

/** See the file's head. */
export class Inbox implements RequestHost {
  readonly #context: InboxContext
  readonly #socket: WebSocket
  readonly #connection: RequestConnection
  // what an idle connection does not need is made when it is needed: there may be very many of them
  #drained: PromiseWithResolvers<void> | undefined
  /** Whether `onConnect` let the client in. */
  #opened = false
  /** Whether the connection is about to end: nothing is taken any more. */
  #ending = false
  /** Messages that came while `onConnect` still ran. */
  #early: { raw: Buffer, isBinary: boolean }[] | undefined
  /** Requests whose handlers have not settled. */
  #running: Set<Request> | undefined
  /** How many of them are ordered, how many of those are past their deadline, and how many are parallel. */
  #ordered = 0
  #overdue = 0
  #parallel = 0
  #waitingOrdered: Waiting[] | undefined
  #waitingParallel: Waiting[] | undefined
  /** Bytes of the messages that came early or wait. */
  #held = 0
  /** Holds a token for each message that the client may send now. */
  #bucket: TokenBucket | undefined

  constructor (context: InboxContext, socket: WebSocket, connection: RequestConnection) {
    this.#context = context
    this.#socket = socket
    this.#connection = connection
  }

  /** Whether a request that runs has no answer yet. */
  get isAwaited (): boolean {
    for (const request of this.#running ?? []) {
      if (request.open) return true
    }
    return false
  }

  /** Takes a message, unless the connection is about to end. */
  receive (raw: Buffer, isBinary: boolean): void {
    if (this.#ending || this.#socket.readyState !== this.#socket.OPEN) return
    if (raw.length > this.#context.limits.maxPayload) return this.#connection.close(CloseCode.TOO_LARGE)
    if (!this.#opened && !this.#isPing(raw, isBinary)) {
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

  /**
   * Whether a message is a `ping` for the built-in handler, which is answered while `onConnect` still runs: a client that waits long for a sign
   * of life gives the connection up. A handler of the application, and messages that are large for a ping, wait.
   */
  #isPing (raw: Buffer, isBinary: boolean): boolean {
    if (isBinary || raw.length > MAX_PING) return false
    const message = decode(raw.toString())
    return !(message instanceof Malformed) && this.#context.registry.get(message.type)?.role === 'ping'
  }

  /** The client was let in: handles the messages that came meanwhile. */
  open (): void {
    this.#opened = true
    this.#held = 0
    const early = this.#early
    this.#early = undefined
    for (const { raw, isBinary } of early ?? []) this.receive(raw, isBinary)
    this.#readOn()
  }

  /**
   * Starts no more handlers: requests that wait, and those that still come, are turned away.
   *
   * @returns resolves when no handler runs any more
   */
  drain (): Promise<void> {
    this.#drained ??= Promise.withResolvers()
    for (const { request } of this.#waitingOrdered?.splice(0) ?? []) request.turnAway()
    for (const { request } of this.#waitingParallel?.splice(0) ?? []) request.turnAway()
    if (this.#opened) this.#held = 0
    this.#readOn()
    this.#checkDrained()
    return this.#drained.promise
  }

  /** Drops the messages that wait and those that still come. Handlers that run may still answer. */
  end (): void {
    this.#ending = true
    this.#early = undefined
    this.#waitingOrdered = undefined
    this.#waitingParallel = undefined
    // the client's close, or its answer to the server's, stands behind what was not read
    readOn(this.#socket)
  }

  /** The client has gone: tells the handlers that still run. */
  abandon (): void {
    this.end()
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

  /** An ordered request whose handler missed its deadline gives up its turn: a handler that never settles must not block the connection. */
  overdue (request: Request): void {
    if (request.isParallel) return
    this.#overdue++
    this.#startWaiting()
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

  /** Answers a message that has no handler. */
  #refuse (answer: OutgoingMessage & { code: string }, message: Envelope | undefined, bytes: number): void {
    const text = toText(answer)
    this.#connection.transmit(text)
    const observation = Observation.of(this.#connection, undefined, message, bytes)
    observation?.run(() => observation.end('error', answer.code, text))
  }

  #accept (message: Envelope, registration: Registration, bytes: number): void {
    const request = new Request(message, registration, this.#connection, bytes)
    if (registration.role === 'ping') {
      request.run(this.#context, this)
    } else if (this.#drained !== undefined) {
      request.turnAway()
    } else if (this.#mayStart(request.isParallel)) {
      this.#start(request)
    } else {
      const waiting = request.isParallel ? this.#waitingParallel ??= [] : this.#waitingOrdered ??= []
      waiting.push({ request, bytes })
      this.#hold(bytes)
    }
  }

  #mayStart (isParallel: boolean): boolean {
    if (isParallel) return this.#parallel < MAX_PARALLEL
    return this.#ordered - Math.min(this.#overdue, MAX_PARALLEL) < this.#context.limits.concurrency
  }

  #start (request: Request): void {
    this.#running ??= new Set()
    this.#running.add(request)
    if (request.isParallel) this.#parallel++
    else this.#ordered++
    const running = request.run(this.#context, this)
    if (running === undefined) this.#leave(request)
    else running.then(() => this.#ended(request))
  }

  #leave (request: Request): void {
    this.#running?.delete(request)
    if (request.isParallel) this.#parallel--
    else this.#ordered--
    if (request.isOverdue && !request.isParallel) this.#overdue--
  }

  #ended (request: Request): void {
    this.#leave(request)
    this.#checkDrained()
    this.#startWaiting()
  }

  #checkDrained (): void {
    if (this.#ordered + this.#parallel === 0) this.#drained?.resolve()
  }

  #startWaiting (): void {
    this.#startNext(false)
    this.#startNext(true)
    this.#readOn()
  }

  #startNext (isParallel: boolean): void {
    while (this.#mayStart(isParallel)) {
      const next = (isParallel ? this.#waitingParallel : this.#waitingOrdered)?.shift()
      if (next === undefined) return
      this.#held -= next.bytes
      this.#start(next.request)
    }
  }

  #hold (bytes: number): void {
    this.#held += bytes
    if (this.#isFull(1)) stopReading(this.#socket)
  }

  /** Reads on once half of what may wait is handled: to stop and to go on costs more than a small message. */
  #readOn (): void {
    if (this.#socket.isPaused && !this.#isFull(0.5)) readOn(this.#socket)
  }

  /** Whether a part of what may wait does. */
  #isFull (part: number): boolean {
    const { messages, bytes } = this.#context.limits.maxPending
    const count = (this.#early?.length ?? 0) + (this.#waitingOrdered?.length ?? 0) + (this.#waitingParallel?.length ?? 0)
    return this.#held >= bytes * part || count >= messages * part
  }
}
