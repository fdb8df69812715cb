/**
 * A client's connection: its API for applications, its heartbeat and its close. Messages go through its inbox and its
 * send queue.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { diagnostics } from '../diagnostics.ts'
import { CloseCode } from '../protocol/codes.ts'
import { checkClose } from './close.ts'
import type { Groups } from './groups/groups.ts'
import { Memberships } from './groups/memberships.ts'
import type { SubscribeConnection } from './groups/subscriptions.ts'
import { report } from './report.ts'
import { Inbox, type InboxLimits } from './requests/inbox.ts'
import { mergeChunks } from './requests/ws-receiver.ts'
import type { MiddlewareChain } from './requests/middleware.ts'
import type { Registry } from './requests/registry.ts'
import type { RequestConnection } from './requests/request.ts'
import { checkError, checkSuccess, toText } from './sending/envelope.ts'
import type { FlushScheduler } from './sending/flush-scheduler.ts'
import { Frame } from './sending/frame.ts'
import { SendQueue, type SendQueueLimits } from './sending/send-queue.ts'
import type { OutgoingMessage, RohrpostConnection } from './types.ts'

/** Shared by all connections of a server. */
export interface ConnectionContext {
  readonly registry: Registry
  readonly middlewares: MiddlewareChain
  readonly groups: Groups
  readonly scheduler: FlushScheduler
  readonly limits: ConnectionLimits
  /** Called once for each connection, when its socket has closed and it has left all groups. */
  onClose (connection: Connection, code: number, reason: string): void
}

/** Limits of one connection; the options of the same names. */
export interface ConnectionLimits extends InboxLimits, SendQueueLimits {
  maxGroups: number
}

/** A disconnect that waits for running handlers. */
interface PendingDisconnect {
  readonly code: number
  readonly reason: string
  readonly grace: number
  readonly deadline: NodeJS.Timeout
}

/**
 * The value of `#silentBeats` when the client has sent a message or a ping: the next heartbeat needs no ping. After a
 * pong it does, since pings keep idle connections open at proxies.
 */
const ACTIVE = -1

/** The key by which a socket finds its connection, so that all sockets share their event listeners. */
const kConnection = Symbol('connection')

interface ConnectionSocket extends WebSocket {
  [kConnection]: Connection
}

/** Implements {@link RohrpostConnection}; all other methods are internal. */
export class Connection implements RequestConnection, SubscribeConnection {
  readonly request: FastifyRequest
  readonly #context: ConnectionContext
  readonly #socket: WebSocket
  readonly #inbox: Inbox
  readonly #sendQueue: SendQueue
  readonly #memberships: Memberships
  readonly #openedAt = performance.now()
  #id: string | undefined
  #pendingDisconnect: PendingDisconnect | undefined
  /** Heartbeats since the client's last sign of life; {@link ACTIVE} after a message. */
  #silentBeats = 0

  constructor (context: ConnectionContext, socket: WebSocket, request: FastifyRequest) {
    this.#context = context
    this.#socket = socket
    this.request = request
    this.#inbox = new Inbox(context, socket, this)
    this.#sendQueue = new SendQueue(socket, request.raw.socket, context.scheduler, context.limits, this)
    this.#memberships = new Memberships(context.groups, this.#sendQueue, context.limits.maxGroups)

    mergeChunks(socket)
    const ownSocket = Object.assign(socket, { [kConnection]: this })
    ownSocket.on('message', Connection.#onMessage)
    ownSocket.on('pong', Connection.#onPong)
    ownSocket.on('ping', Connection.#onPing)
    ownSocket.on('close', Connection.#onClose)
    // `ws` closes the socket itself after a violation of the protocol, with a code of RFC 6455; the listener of
    // @fastify/websocket would terminate it
    ownSocket.removeAllListeners('error')
    ownSocket.on('error', Connection.#onError)
  }

  static #onMessage (this: WebSocket, raw: Buffer, isBinary: boolean): void {
    (this as ConnectionSocket)[kConnection].#receive(raw, isBinary)
  }

  static #onPing (this: WebSocket): void {
    (this as ConnectionSocket)[kConnection].#silentBeats = ACTIVE
  }

  static #onPong (this: WebSocket): void {
    (this as ConnectionSocket)[kConnection].#silentBeats = 0
  }

  static #onClose (this: WebSocket, code: number, reason: Buffer): void {
    (this as ConnectionSocket)[kConnection].#closed(code, reason.toString())
  }

  static #onError (this: WebSocket, err: Error): void {
    report((this as ConnectionSocket)[kConnection].log, 'info', err, {}, 'a connection failed')
  }

  get id (): string {
    this.#id ??= randomUUID()
    return this.#id
  }

  get log (): FastifyBaseLogger {
    return this.request.log
  }

  get groups (): ReadonlySet<string> {
    return this.#memberships.names
  }

  get memberships (): Memberships {
    return this.#memberships
  }

  join (group: string): Promise<void> | undefined {
    return this.#memberships.join(group)
  }

  leave (group: string): void {
    this.#memberships.leave(group)
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
    this.#memberships.leaveAll()
    this.#socket.close(code, reason)
    this.#inbox.end()
  }

  /** From now on an `incoming` message precedes each large message to the client. */
  announceLargeMessages (): void {
    this.#sendQueue.announceLargeFrames()
  }

  /** Sends a text frame. */
  transmit (text: string): void {
    this.#sendQueue.send(new Frame(text))
    if (this.#pendingDisconnect !== undefined) this.#checkDisconnect(this.#pendingDisconnect)
  }

  /** Handles the messages that arrived while `onConnect` ran: it has admitted the client. */
  open (): void {
    this.#inbox.open()
  }

  /**
   * Starts no more handlers: waiting and later messages, and pending `subscribe` requests, are answered with an error.
   *
   * @returns resolves when no handler runs any more
   */
  drain (): Promise<void> {
    this.#memberships.cancelPending()
    return this.#inbox.drain()
  }

  /**
   * Closes the connection, and destroys the socket if the client does not answer the close in time. The code and reason
   * of a pending disconnect take precedence.
   *
   * @param grace milliseconds
   */
  closeWithin (code: number, reason: string, grace: number): void {
    const pending = this.#pendingDisconnect
    this.#pendingDisconnect = undefined
    clearTimeout(pending?.deadline)
    this.close(pending?.code ?? code, pending?.reason ?? reason)
    setTimeout(() => this.#socket.terminate(), grace).unref()
  }

  /**
   * Leaves all groups and stops handling messages, at once. The close follows, as by `closeWithin`, when the running
   * handlers have replied, or after the grace period. `groups` stays as it is, for `onDisconnect`.
   */
  disconnect (code: number, reason: string, grace: number): void {
    if (this.#pendingDisconnect !== undefined) return
    this.#memberships.leaveAll()
    this.#inbox.end()
    if (!this.#inbox.hasOpenRequest) return this.closeWithin(code, reason, grace)

    const deadline = setTimeout(() => this.closeWithin(code, reason, grace), grace).unref()
    this.#pendingDisconnect = { code, reason, grace, deadline }
  }

  /**
   * Pings the client, unless it has sent a message since the last heartbeat. A client that was silent for two intervals
   * is terminated.
   */
  beat (): void {
    // pongs of a paused socket are not read, but a failing write shows that the client has gone
    if (this.#socket.isPaused) return this.#socket.ping()
    if (this.#silentBeats === 2) return this.#socket.terminate()
    if (this.#silentBeats === ACTIVE) {
      this.#silentBeats = 1
      return
    }
    this.#silentBeats++
    this.#socket.ping()
  }

  /** Closes the connection of a client that does not read its messages. */
  onSlowConsumer (): void {
    const unsent = this.#socket.bufferedAmount
    this.log.info({ unsent }, 'closing a slow consumer: the client does not read what it is sent')
    if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish({ reason: 'slow_consumer', connection: this, unsent })
    this.closeWithin(CloseCode.SLOW_CONSUMER, 'slow consumer', this.#context.limits.slowTimeout)
  }

  /** Called when the socket has closed: leaves all groups and aborts running handlers. */
  #closed (code: number, reason: string): void {
    clearTimeout(this.#pendingDisconnect?.deadline)
    this.#sendQueue.stop()
    this.#inbox.abandon()
    this.#memberships.leaveAll()
    if (diagnostics.disconnect.hasSubscribers) {
      diagnostics.disconnect.publish({ connection: this, code, reason, duration: performance.now() - this.#openedAt })
    }
    this.#context.onClose(this, code, reason)
  }

  /**
   * Closes a disconnected connection after the last reply. Other messages that the handler sends in this turn still
   * leave.
   */
  #checkDisconnect (pending: PendingDisconnect): void {
    if (this.#inbox.hasOpenRequest) return
    setImmediate(() => {
      if (this.#pendingDisconnect === pending) this.closeWithin(pending.code, pending.reason, pending.grace)
    })
  }

  #receive (raw: Buffer, isBinary: boolean): void {
    this.#silentBeats = ACTIVE
    this.#inbox.receive(raw, isBinary)
  }
}
