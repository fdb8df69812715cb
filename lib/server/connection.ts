/** One client: reads its messages, runs their handlers, knows its groups. */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import { TokenBucket } from 'limiter'
import type { WebSocket } from 'ws'
import type { Position } from '../brokers/broker.ts'
import { diagnostics } from '../diagnostics.ts'
import { errors } from '../errors.ts'
import { CloseCode, ErrorCode } from '../protocol/codes.ts'
import { decode, Malformed, type Envelope } from '../protocol/decode.ts'
import { checkClose } from './close.ts'
import { checkError, checkSuccess, toText } from './envelope.ts'
import { Frame } from './frame.ts'
import type { Start } from './group.ts'
import { checkName, type Groups } from './groups.ts'
import { Observation } from './observation.ts'
import { Outbox, type OutboxLimits, type Peer, type Turn } from './outbox.ts'
import type { Registration, Registry } from './registry.ts'
import { Request, type RequestConnection } from './request.ts'
import type { Subscriber } from './subscriptions.ts'
import type { OutgoingMessage, RohrpostConnection } from './types.ts'

/** What all connections of a server share. */
export interface ConnectionContext {
  readonly registry: Registry
  readonly groups: Groups
  readonly turn: Turn
  readonly limits: ConnectionLimits
  /** Called once for each connection, when its socket has closed and it has left all groups. */
  onClose (connection: Connection, code: number, reason: string): void
}

/** Limits of one connection; the options of the same names. */
export interface ConnectionLimits extends OutboxLimits {
  /** Bytes. */
  maxPayload: number
  maxGroups: number
  concurrency: number
  maxPending: { messages: number, bytes: number }
  /** Milliseconds. */
  handlerTimeout: number
  /** Messages, at once and then in each interval of milliseconds. */
  rateLimit?: { max: number, interval: number }
}

/** By this a socket knows its connection: so all sockets share their listeners, instead of having each its own. */
const kConnection = Symbol('connection')

interface Carrier extends WebSocket {
  [kConnection]: Connection
}

/** A request that waits for a slot. */
interface Waiting {
  request: Request
  bytes: number
}

/** See {@link RohrpostConnection}; the rest is for the server. */
export class Connection implements RequestConnection, Subscriber, Peer {
  readonly request: FastifyRequest
  readonly #context: ConnectionContext
  readonly #socket: WebSocket
  readonly #outbox: Outbox
  readonly #openedAt = performance.now()
  // what an idle connection does not need is made when it is needed: there may be very many of them
  #id: string | undefined
  #groups: Set<string> | undefined

  #closed = false
  #drained: PromiseWithResolvers<void> | undefined
  /** Heartbeats since the client's last sign of life. */
  #silence = 0
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

  constructor (context: ConnectionContext, socket: WebSocket, request: FastifyRequest) {
    this.#context = context
    this.#socket = socket
    this.request = request
    this.#outbox = new Outbox(socket, request.raw.socket, context.turn, context.limits, this)

    const carrier = Object.assign(socket, { [kConnection]: this })
    carrier.on('message', Connection.#onMessage)
    carrier.on('pong', Connection.#onSignOfLife)
    carrier.on('ping', Connection.#onSignOfLife)
    carrier.on('close', Connection.#onClose)
    // what a client does wrong closes its own connection, with the code of RFC 6455 that `ws` chose: nothing to terminate
    carrier.removeAllListeners('error')
    carrier.on('error', Connection.#onError)
  }

  static #onMessage (this: WebSocket, raw: Buffer, isBinary: boolean): void {
    (this as Carrier)[kConnection].#receive(raw, isBinary)
  }

  static #onSignOfLife (this: WebSocket): void {
    (this as Carrier)[kConnection].#silence = 0
  }

  static #onClose (this: WebSocket, code: number, reason: Buffer): void {
    (this as Carrier)[kConnection].#close(code, reason)
  }

  static #onError (this: WebSocket, err: Error): void {
    (this as Carrier)[kConnection].log.info({ err }, 'a connection failed')
  }

  get id (): string {
    this.#id ??= randomUUID()
    return this.#id
  }

  get log (): FastifyBaseLogger {
    return this.request.log
  }

  get groups (): ReadonlySet<string> {
    this.#groups ??= new Set()
    return this.#groups
  }

  /** Whether the connection is in a group, without making what an idle connection does not need. */
  isIn (group: string): boolean {
    return this.#groups?.has(group) === true
  }

  join (group: string): Promise<void> | undefined {
    return this.joinThen(group)
  }

  joinThen (group: string, joined?: () => void): Promise<void> | undefined {
    return this.#enter(group, (groups) => groups.join(group, this.#outbox, joined))
  }

  follow (group: string, after: Position | undefined, started: (start: Start) => boolean): Promise<void> | undefined {
    return this.#enter(group, (groups) => groups.follow(group, this.#outbox, after, started))
  }

  replayed (): Promise<void> {
    return new Promise((resolve) => this.#outbox.replay(() => {
      resolve()
      return undefined
    }))
  }

  #enter (group: string, enter: (groups: Groups) => Promise<void> | undefined): Promise<void> | undefined {
    checkName(group)
    if (this.#closed) return

    const { limits, groups } = this.#context
    const own = this.#groups ??= new Set()
    if (!own.has(group) && own.size >= limits.maxGroups) throw new errors.RP_ERR_TOO_MANY_GROUPS(group, own.size)
    own.add(group)
    const joining = enter(groups)
    joining?.catch(() => {
      // unless somebody tried again in the meantime
      if (!groups.has(group, this.#outbox)) own.delete(group)
    })
    return joining
  }

  leave (group: string): void {
    if (this.#groups?.delete(group)) this.#context.groups.leave(group, this.#outbox)
  }

  send (message: OutgoingMessage): void {
    const text = toText(message)
    if (message.id !== undefined) this.#settle(message, text)
    this.transmit(text)
  }

  sendSuccess (message: Parameters<RohrpostConnection['sendSuccess']>[0]): void {
    const { id, type, data } = message
    checkSuccess(id, type)
    this.send({ id, type, data })
  }

  sendError (message: Parameters<RohrpostConnection['sendError']>[0]): void {
    checkError(message.error)
    this.send({ ...message })
  }

  close (code: number = CloseCode.NORMAL, reason = ''): void {
    checkClose(code, reason)
    this.#waiting = undefined
    this.#socket.close(code, reason)
    // the client's answer to the close must be read
    this.#socket.resume()
  }

  transmit (text: string): void {
    this.#outbox.send(new Frame(text))
  }

  /** `onConnect` let the client in: works off what came meanwhile. */
  open (): void {
    this.#opened = true
    this.#held = 0
    const early = this.#early
    this.#early = undefined
    for (const { raw, isBinary } of early ?? []) this.#receive(raw, isBinary)
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

  /** Closes, and cuts the line if the client does not answer the close within a grace period, in milliseconds. */
  end (code: number, reason: string, grace: number): void {
    this.close(code, reason)
    setTimeout(() => this.#socket.terminate(), grace).unref()
  }

  /** Asks for a sign of life. A client that gave none after two such calls is cut off. */
  beat (): void {
    // an answer would not be read, but only who writes learns that the other end has gone
    if (this.#socket.isPaused) return this.#socket.ping()
    if (this.#silence === 2) return this.#socket.terminate()
    this.#silence++
    this.#socket.ping()
  }

  slow (): void {
    const unsent = this.#socket.bufferedAmount
    this.log.info({ unsent }, 'closing a connection that does not read what it is sent')
    if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish({ reason: 'slow_consumer', connection: this, unsent })
    this.end(CloseCode.SLOW_CONSUMER, 'slow consumer', this.#context.limits.slowTimeout)
  }

  /** The socket has closed: leaves all groups, tells running handlers. */
  #close (code: number, reason: Buffer): void {
    this.#closed = true
    this.#waiting = undefined
    this.#outbox.stop()
    if (this.#running !== undefined && this.#running.size > 0) {
      const gone = new DOMException('The client has gone.', 'AbortError')
      for (const request of this.#running) request.abandon(gone)
    }
    for (const group of this.#groups ?? []) this.#context.groups.leave(group, this.#outbox)
    const told = reason.toString()
    if (diagnostics.disconnect.hasSubscribers) {
      diagnostics.disconnect.publish({ connection: this, code, reason: told, duration: performance.now() - this.#openedAt })
    }
    this.#context.onClose(this, code, told)
  }

  #receive (raw: Buffer, isBinary: boolean): void {
    this.#silence = 0
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (raw.length > this.#context.limits.maxPayload) return this.close(CloseCode.TOO_LARGE)
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
    this.transmit(text)
    const observation = Observation.of(this, undefined, message, bytes)
    observation?.run(() => observation.end('error', answer.code, text))
  }

  #accept (message: Envelope, registration: Registration, bytes: number): void {
    const request = new Request(message, registration, this, bytes)
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

  /** A message with the id of a running request is its answer. */
  #settle (message: OutgoingMessage, text: string): void {
    for (const request of this.#running ?? []) {
      if (request.open && request.envelope.id === message.id) return request.settle(message, text)
    }
  }
}
