/**
 * Inbox of one connection: decodes the client's messages in order and runs them in two queues. Ordered requests run
 * `concurrency` at a time, by default one after another; parallel requests run next to them. The queues are bounded:
 * when they are full, the socket is paused.
 */
import { TokenBucket } from 'limiter'
import type { WebSocket } from 'ws'
import { CloseCode, ErrorCode } from '../../protocol/codes.ts'
import { decode, Malformed, type Envelope } from '../../protocol/decode.ts'
import { toText } from '../sending/envelope.ts'
import type { OutgoingMessage } from '../types.ts'
import type { MiddlewareChain } from './middleware.ts'
import { Observation } from './observation.ts'
import type { Registration, Registry } from './registry.ts'
import { IncomingRequest, type RequestConnection, type RequestHost } from './request.ts'
import { pauseReading, resumeReading } from './ws-receiver.ts'

/** Limits of one inbox: the options of the same names. */
export interface InboxLimits {
  /** Bytes. */
  maxPayload: number
  concurrency: number
  maxPending: { messages: number, bytes: number }
  /** Milliseconds. */
  handlerTimeout: number
  /** `max` messages, refilled in each `interval` of milliseconds. */
  rateLimit?: { max: number, interval: number }
}

/** Parts of the server that all inboxes share. */
export interface InboxContext {
  readonly registry: Registry
  readonly middlewares: MiddlewareChain
  readonly limits: InboxLimits
}

/**
 * Maximum running parallel requests of a connection, and maximum overdue ordered requests that have given up their
 * slot.
 */
const MAX_PARALLEL = 16

/** Request in a queue, with the bytes of its message. */
interface QueuedRequest {
  request: IncomingRequest
  bytes: number
}

/** Maximum bytes of a `ping` that is handled while `onConnect` runs. */
const MAX_EARLY_PING = 1024

/** Queues and running requests of one connection. */
export class Inbox implements RequestHost {
  readonly #context: InboxContext
  readonly #socket: WebSocket
  readonly #connection: RequestConnection
  // fields of an idle connection stay undefined until they are needed, to save memory with very many connections
  #drained: PromiseWithResolvers<void> | undefined
  /** Whether `onConnect` has admitted the client. */
  #opened = false
  /** Whether the connection is closing: further messages are dropped. */
  #ending = false
  /** Messages that arrived while `onConnect` was running. */
  #early: { raw: Buffer, isBinary: boolean }[] | undefined
  /** Requests whose handlers have not settled. */
  #running: Set<IncomingRequest> | undefined
  /** Running ordered requests. */
  #ordered = 0
  /** Running ordered requests whose deadline has passed. */
  #overdue = 0
  /** Running parallel requests. */
  #parallel = 0
  #queueOrdered: QueuedRequest[] | undefined
  #queueParallel: QueuedRequest[] | undefined
  /** Bytes of early messages and queued requests. */
  #pendingBytes = 0
  /** Rate limit: one token for each message that the client may send now. */
  #bucket: TokenBucket | undefined

  constructor (context: InboxContext, socket: WebSocket, connection: RequestConnection) {
    this.#context = context
    this.#socket = socket
    this.#connection = connection
  }

  /** Whether a running request has no reply yet. */
  get hasOpenRequest (): boolean {
    for (const request of this.#running ?? []) {
      if (request.isOpen) return true
    }
    return false
  }

  /** Handles a message from the socket. It is dropped if the connection is closing. */
  receive (raw: Buffer, isBinary: boolean): void {
    if (this.#ending || this.#socket.readyState !== this.#socket.OPEN) return
    if (raw.length > this.#context.limits.maxPayload) return this.#connection.close(CloseCode.TOO_LARGE)
    if (!this.#opened && !this.#isEarlyPing(raw, isBinary)) {
      this.#early ??= []
      this.#early.push({ raw, isBinary })
      return this.#addPending(raw.length)
    }

    const isAllowed = this.#takeToken()
    const message = decode(isBinary ? '' : raw.toString())
    if (message instanceof Malformed) {
      return this.#refuse({ id: message.id, error: message.error, code: message.code }, undefined, raw.length)
    }

    const { id, type } = message
    if (!isAllowed) {
      const reply = { id, type, error: 'Too many messages.', code: ErrorCode.RATE_LIMITED, retry: true }
      return this.#refuse(reply, message, raw.length)
    }

    const registration = this.#context.registry.get(type)
    if (registration === undefined) {
      const reply = { id, type, error: `Unknown message type '${type}'.`, code: ErrorCode.UNKNOWN_TYPE }
      return this.#refuse(reply, message, raw.length)
    }
    this.#accept(message, registration, raw.length)
  }

  /**
   * Whether a message is a `ping` for the built-in handler. It is answered while `onConnect` is still running, because
   * a client closes a connection on which no `pong` arrives. A `ping` for a handler of the application, and a large
   * one, wait.
   */
  #isEarlyPing (raw: Buffer, isBinary: boolean): boolean {
    if (isBinary || raw.length > MAX_EARLY_PING) return false
    const message = decode(raw.toString())
    return !(message instanceof Malformed) && this.#context.registry.get(message.type)?.role === 'ping'
  }

  /** Handles the early messages: `onConnect` has admitted the client. */
  open (): void {
    this.#opened = true
    this.#pendingBytes = 0
    const early = this.#early
    this.#early = undefined
    for (const { raw, isBinary } of early ?? []) this.receive(raw, isBinary)
    this.#resumeReading()
  }

  /**
   * Graceful stop: queued and further requests get the error `unavailable`.
   *
   * @returns resolves when no handler is running
   */
  drain (): Promise<void> {
    this.#drained ??= Promise.withResolvers()
    for (const { request } of this.#queueOrdered?.splice(0) ?? []) request.turnAway()
    for (const { request } of this.#queueParallel?.splice(0) ?? []) request.turnAway()
    if (this.#opened) this.#pendingBytes = 0
    this.#resumeReading()
    this.#checkDrained()
    return this.#drained.promise
  }

  /** Drops queued and further messages, because the connection is closing. Running handlers may still reply. */
  end (): void {
    this.#ending = true
    this.#early = undefined
    this.#queueOrdered = undefined
    this.#queueParallel = undefined
    // the close frame of the client is behind the messages that are not read yet
    resumeReading(this.#socket)
  }

  /** Aborts the running requests, because the client has disconnected. */
  abandon (): void {
    this.end()
    if (this.#running === undefined || this.#running.size === 0) return

    const reason = new DOMException('The client has gone.', 'AbortError')
    for (const request of this.#running) request.abandon(reason)
  }

  /** Settles the open request whose id a sent message carries: such a message is its reply. */
  settle (message: OutgoingMessage, text: string): void {
    for (const request of this.#running ?? []) {
      if (request.isOpen && request.envelope.id === message.id) return request.settle(message, text)
    }
  }

  /** Frees the slot of an overdue ordered request: a handler that never settles must not block the connection. */
  overdue (request: IncomingRequest): void {
    if (request.isParallel) return
    this.#overdue++
    this.#startQueued()
  }

  /** Takes one token of the rate limit. @returns `false` if none is left */
  #takeToken (): boolean {
    const { rateLimit } = this.#context.limits
    if (rateLimit === undefined) return true

    if (this.#bucket === undefined) {
      const { max, interval } = rateLimit
      this.#bucket = new TokenBucket({ bucketSize: max, tokensPerInterval: max, interval })
      this.#bucket.content = max
    }
    return this.#bucket.tryRemoveTokens(1)
  }

  /** Sends an error reply for a message that reaches no handler. */
  #refuse (reply: OutgoingMessage & { code: string }, message: Envelope | undefined, bytes: number): void {
    const text = toText(reply)
    this.#connection.transmit(text)
    const observation = Observation.of(this.#connection, undefined, message, bytes)
    observation?.run(() => observation.end('error', reply.code, text))
  }

  #accept (message: Envelope, registration: Registration, bytes: number): void {
    const request = new IncomingRequest(message, registration, this.#connection, bytes)
    if (registration.role === 'ping') {
      request.run(this.#context.middlewares, this.#context.limits.handlerTimeout, this)
    } else if (this.#drained !== undefined) {
      request.turnAway()
    } else if (this.#hasSlot(request.isParallel)) {
      this.#start(request)
    } else {
      const queue = request.isParallel ? this.#queueParallel ??= [] : this.#queueOrdered ??= []
      queue.push({ request, bytes })
      this.#addPending(bytes)
    }
  }

  #hasSlot (isParallel: boolean): boolean {
    if (isParallel) return this.#parallel < MAX_PARALLEL
    return this.#ordered - Math.min(this.#overdue, MAX_PARALLEL) < this.#context.limits.concurrency
  }

  #start (request: IncomingRequest): void {
    this.#running ??= new Set()
    this.#running.add(request)
    if (request.isParallel) this.#parallel++
    else this.#ordered++
    const running = request.run(this.#context.middlewares, this.#context.limits.handlerTimeout, this)
    if (running === undefined) this.#remove(request)
    else running.then(() => this.#finish(request))
  }

  #remove (request: IncomingRequest): void {
    this.#running?.delete(request)
    if (request.isParallel) this.#parallel--
    else this.#ordered--
    if (request.isOverdue && !request.isParallel) this.#overdue--
  }

  #finish (request: IncomingRequest): void {
    this.#remove(request)
    this.#checkDrained()
    this.#startQueued()
  }

  #checkDrained (): void {
    if (this.#ordered + this.#parallel === 0) this.#drained?.resolve()
  }

  #startQueued (): void {
    this.#startNext(false)
    this.#startNext(true)
    this.#resumeReading()
  }

  #startNext (isParallel: boolean): void {
    while (this.#hasSlot(isParallel)) {
      const next = (isParallel ? this.#queueParallel : this.#queueOrdered)?.shift()
      if (next === undefined) return
      this.#pendingBytes -= next.bytes
      this.#start(next.request)
    }
  }

  #addPending (bytes: number): void {
    this.#pendingBytes += bytes
    if (this.#isFilled(1)) pauseReading(this.#socket)
  }

  /**
   * Resumes a paused socket once the queues are half empty: a pause for each message would cost more than the message.
   */
  #resumeReading (): void {
    if (this.#socket.isPaused && !this.#isFilled(0.5)) resumeReading(this.#socket)
  }

  /** Whether the pending messages reach a fraction of `maxPending`. */
  #isFilled (fraction: number): boolean {
    const { messages, bytes } = this.#context.limits.maxPending
    const count = (this.#early?.length ?? 0) + (this.#queueOrdered?.length ?? 0) + (this.#queueParallel?.length ?? 0)
    return this.#pendingBytes >= bytes * fraction || count >= messages * fraction
  }
}
