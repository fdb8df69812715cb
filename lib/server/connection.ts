/** One client: what applications see of it, its groups, its end. What it sends goes to its inbox, what it is sent through its outbox. */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { diagnostics } from '../diagnostics.ts'
import { errors } from '../errors.ts'
import { CloseCode } from '../protocol/codes.ts'
import { checkClose } from './close.ts'
import { checkError, checkSuccess, toText } from './sending/envelope.ts'
import { Frame } from './sending/frame.ts'
import type { Recover, Start } from './groups/catch-up.ts'
import { checkName, type Groups } from './groups/groups.ts'
import { Inbox, type InboxLimits } from './requests/inbox.ts'
import { Outbox, type OutboxLimits, type Peer, type Turn } from './sending/outbox.ts'
import { PendingSubscribe } from './groups/pending-subscribe.ts'
import type { MiddlewareChain } from './requests/middleware.ts'
import { mergeChunks } from './requests/ws-receiver.ts'
import type { Registry } from './requests/registry.ts'
import { report } from './report.ts'
import type { RequestConnection } from './requests/request.ts'
import type { Subscriber } from './groups/subscriptions.ts'
import type { OutgoingMessage, RohrpostConnection } from './types.ts'

/** What all connections of a server share. */
export interface ConnectionContext {
  readonly registry: Registry
  readonly middlewares: MiddlewareChain
  readonly groups: Groups
  readonly turn: Turn
  readonly limits: ConnectionLimits
  /** Called once for each connection, when its socket has closed and it has left all groups. */
  onClose (connection: Connection, code: number, reason: string): void
}

/** Limits of one connection; the options of the same names. */
export interface ConnectionLimits extends InboxLimits, OutboxLimits {
  maxGroups: number
}

/** The close of a connection that was expelled. */
interface Expulsion {
  readonly code: number
  readonly reason: string
  readonly grace: number
  readonly deadline: NodeJS.Timeout
}

/** The client sent something by itself, so that it needs no ping. A pong does not count: lines are kept open by pings. */
const HEARD = -1

/** By this a socket knows its connection: so all sockets share their listeners, instead of having each its own. */
const kConnection = Symbol('connection')

interface Carrier extends WebSocket {
  [kConnection]: Connection
}

/** See {@link RohrpostConnection}; the rest is for the server. */
export class Connection implements RequestConnection, Subscriber, Peer {
  readonly request: FastifyRequest
  readonly #context: ConnectionContext
  readonly #socket: WebSocket
  readonly #inbox: Inbox
  readonly #outbox: Outbox
  readonly #openedAt = performance.now()
  // what an idle connection does not need is made when it is needed: there may be very many of them
  #id: string | undefined
  #groups: Set<string> | undefined
  /** The subscribes that are not answered yet. */
  #pending: Set<PendingSubscribe> | undefined

  /** Whether the close has begun, or the connection was expelled: it has left its groups, and joins no others. */
  #hasLeft = false
  /** The close that is due when running handlers have answered. */
  #expulsion: Expulsion | undefined
  /** Heartbeats since the client's last sign of life; {@link HEARD} after a message. */
  #silence = 0

  constructor (context: ConnectionContext, socket: WebSocket, request: FastifyRequest) {
    this.#context = context
    this.#socket = socket
    this.request = request
    this.#inbox = new Inbox(context, socket, this)
    this.#outbox = new Outbox(socket, request.raw.socket, context.turn, context.limits, this)

    mergeChunks(socket)
    const carrier = Object.assign(socket, { [kConnection]: this })
    carrier.on('message', Connection.#onMessage)
    carrier.on('pong', Connection.#onPong)
    carrier.on('ping', Connection.#onPing)
    carrier.on('close', Connection.#onClose)
    // what a client does wrong closes its own connection, with the code of RFC 6455 that `ws` chose: nothing to terminate
    carrier.removeAllListeners('error')
    carrier.on('error', Connection.#onError)
  }

  static #onMessage (this: WebSocket, raw: Buffer, isBinary: boolean): void {
    (this as Carrier)[kConnection].#receive(raw, isBinary)
  }

  static #onPing (this: WebSocket): void {
    (this as Carrier)[kConnection].#silence = HEARD
  }

  static #onPong (this: WebSocket): void {
    (this as Carrier)[kConnection].#silence = 0
  }

  static #onClose (this: WebSocket, code: number, reason: Buffer): void {
    (this as Carrier)[kConnection].#close(code, reason)
  }

  static #onError (this: WebSocket, err: Error): void {
    report((this as Carrier)[kConnection].log, 'info', err, {}, 'a connection failed')
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

  /** Whether the connection is in a group, or about to join it: also if its `subscribe` is not answered yet. */
  isIn (group: string): boolean {
    if (this.#groups?.has(group)) return true
    for (const pending of this.#pending ?? []) if (pending.group === group) return true
    return false
  }

  join (group: string): Promise<void> | undefined {
    checkName(group)
    if (this.#hasLeft) return

    this.#reserve(group)
    const { groups } = this.#context
    const joining = groups.join(group, this.#outbox)
    joining?.catch(() => this.#forget(group))
    return joining
  }

  leave (group: string): void {
    this.unsubscribe(group)
    for (const pending of this.#pending ?? []) if (pending.group === group) pending.cancel()
  }

  unsubscribe (group: string): void {
    if (this.#groups?.delete(group)) this.#context.groups.leave(group, this.#outbox)
  }

  beginSubscribe (group: string): PendingSubscribe {
    const pending = new PendingSubscribe(group, this.#outbox, (pending, isCancelled) => {
      this.#pending?.delete(pending)
      if (this.#pending?.size === 0) this.#pending = undefined
      if (!isCancelled) return
      this.#context.groups.cancel(group, pending)
      this.#forget(group)
    })
    this.#pending ??= new Set()
    this.#pending.add(pending)
    return pending
  }

  subscribe (pending: PendingSubscribe, recover: Recover | undefined, reply: (start: Start | undefined) => void): Promise<void> {
    return pending.enter(() => {
      const { group } = pending
      this.#reserve(group)
      pending.recover = recover
      this.#context.groups.subscribe(group, pending)
    }, reply)
  }

  async replayed (pending: PendingSubscribe): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const turn = () => {
      resolve()
      return undefined
    }
    this.#outbox.replay(turn)
    await pending.wait(promise).finally(() => this.#outbox.dropReplay(turn))
  }

  /** Counts a group. @throws RP_ERR_TOO_MANY_GROUPS */
  #reserve (group: string): void {
    const own = this.#groups ??= new Set()
    if (!own.has(group) && own.size >= this.#context.limits.maxGroups) throw new errors.RP_ERR_TOO_MANY_GROUPS(group, own.size)
    own.add(group)
  }

  /** Counts a group no more, unless the connection is in it or about to join it after all. */
  #forget (group: string): void {
    if (!this.#hasLeft && !this.#context.groups.has(group, this.#outbox)) this.#groups?.delete(group)
  }

  /** Ends all memberships and pending subscribes, for good. `groups` still has those that the connection was in. */
  #leaveAll (): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    // the memberships first: a subscribe that is cancelled sends a member what was held back
    for (const group of this.#groups ?? []) this.#context.groups.leave(group, this.#outbox)
    for (const pending of this.#pending ?? []) pending.cancel()
  }

  send (message: OutgoingMessage): void {
    const text = toText(message)
    if (message.id !== undefined) this.#inbox.settle(message, text)
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
    this.#leaveAll()
    this.#socket.close(code, reason)
    this.#inbox.end()
  }

  /** Tells the client of each large message before it comes. */
  announce (): void {
    this.#outbox.announce()
  }

  transmit (text: string): void {
    this.#outbox.send(new Frame(text))
    if (this.#expulsion !== undefined) this.#checkExpulsion(this.#expulsion)
  }

  /** `onConnect` let the client in: works off what came meanwhile. */
  open (): void {
    this.#inbox.open()
  }

  /**
   * Starts no more handlers: what waits, and what still comes, is turned away, and so are pending subscribes.
   *
   * @returns resolves when no handler runs any more
   */
  drain (): Promise<void> {
    for (const pending of this.#pending ?? []) pending.cancel(new errors.RP_ERR_UNAVAILABLE(pending.group))
    return this.#inbox.drain()
  }

  /**
   * Closes, and cuts the line if the client does not answer the close within a grace period, in milliseconds. A connection that was expelled closes
   * with the code of that.
   */
  end (code: number, reason: string, grace: number): void {
    const due = this.#expulsion
    this.#expulsion = undefined
    clearTimeout(due?.deadline)
    this.close(due?.code ?? code, due?.reason ?? reason)
    setTimeout(() => this.#socket.terminate(), grace).unref()
  }

  /**
   * Takes the connection out of its groups and handles none of its messages any more, at once. It closes as `end` does as soon as the handlers that run
   * have answered, at the latest after the grace period. `groups` stays as it is, for `onDisconnect`.
   */
  expel (code: number, reason: string, grace: number): void {
    if (this.#expulsion !== undefined) return
    this.#leaveAll()
    this.#inbox.end()
    if (!this.#inbox.hasOpenRequest) return this.end(code, reason, grace)

    const deadline = setTimeout(() => this.end(code, reason, grace), grace).unref()
    this.#expulsion = { code, reason, grace, deadline }
  }

  /** Asks for a sign of life, unless the client gave one by itself. A client that gave none in two intervals is cut off. */
  beat (): void {
    // an answer would not be read, but only a write tells that the other end has gone
    if (this.#socket.isPaused) return this.#socket.ping()
    if (this.#silence === 2) return this.#socket.terminate()
    if (this.#silence === HEARD) {
      this.#silence = 1
      return
    }
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
    clearTimeout(this.#expulsion?.deadline)
    this.#outbox.stop()
    this.#inbox.abandon()
    this.#leaveAll()
    const told = reason.toString()
    if (diagnostics.disconnect.hasSubscribers) {
      diagnostics.disconnect.publish({ connection: this, code, reason: told, duration: performance.now() - this.#openedAt })
    }
    this.#context.onClose(this, code, told)
  }

  /** Closes an expelled connection when no handler owes an answer any more. What the handler still sends in this turn goes out. */
  #checkExpulsion (expulsion: Expulsion): void {
    if (this.#inbox.hasOpenRequest) return
    setImmediate(() => {
      if (this.#expulsion === expulsion) this.end(expulsion.code, expulsion.reason, expulsion.grace)
    })
  }

  #receive (raw: Buffer, isBinary: boolean): void {
    this.#silence = HEARD
    this.#inbox.receive(raw, isBinary)
  }
}
