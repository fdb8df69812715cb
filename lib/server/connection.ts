/** One client: what applications see of it, its groups, its end. What it sends goes to its inbox, what it is sent through its outbox. */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { diagnostics } from '../diagnostics.ts'
import { errors } from '../errors.ts'
import { CloseCode } from '../protocol/codes.ts'
import { checkClose } from './close.ts'
import { checkError, checkSuccess, toText } from './envelope.ts'
import { Frame } from './frame.ts'
import type { Recover, Start } from './followers.ts'
import { checkName, type Groups } from './groups.ts'
import { Inbox, type InboxLimits } from './inbox.ts'
import { Outbox, type OutboxLimits, type Peer, type Turn } from './outbox.ts'
import { PendingSubscribe } from './pending-subscribe.ts'
import type { Registry } from './registry.ts'
import { report } from './report.ts'
import type { RequestConnection } from './request.ts'
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
export interface ConnectionLimits extends InboxLimits, OutboxLimits {
  maxGroups: number
}

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

  /** Whether the close has begun: the connection has left its groups, and joins no others. */
  #hasLeft = false
  /** Heartbeats since the client's last sign of life. */
  #silence = 0

  constructor (context: ConnectionContext, socket: WebSocket, request: FastifyRequest) {
    this.#context = context
    this.#socket = socket
    this.request = request
    this.#inbox = new Inbox(context, socket, this)
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
    this.#inbox.clear()
    this.#socket.close(code, reason)
    // the client's answer to the close must be read
    this.#socket.resume()
  }

  transmit (text: string): void {
    this.#outbox.send(new Frame(text))
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
    this.#outbox.stop()
    this.#inbox.abandon()
    this.#leaveAll()
    const told = reason.toString()
    if (diagnostics.disconnect.hasSubscribers) {
      diagnostics.disconnect.publish({ connection: this, code, reason: told, duration: performance.now() - this.#openedAt })
    }
    this.#context.onClose(this, code, told)
  }

  #receive (raw: Buffer, isBinary: boolean): void {
    this.#silence = 0
    this.#inbox.receive(raw, isBinary)
  }
}
