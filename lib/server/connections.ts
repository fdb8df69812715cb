/** All connections of one server: `onConnect` and `onDisconnect`, disconnects, and the graceful stop. */
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { diagnostics } from '../diagnostics.ts'
import { CloseCode } from '../protocol/codes.ts'
import { closeFor, RESTART } from './upgrade/admission.ts'
import { Connection, type ConnectionContext } from './connection.ts'
import { Heartbeat } from './heartbeat.ts'
import { report } from './report.ts'
import type { RohrpostConnection } from './types.ts'

/** Hooks of the application for the start and the end of a connection. */
export interface ConnectionHooks {
  /**
   * Runs for each new connection; a thrown error closes it: with code 1013 if the error is temporary, with 1011 if it
   * is a bug, otherwise with 4403. Messages that arrive meanwhile are kept and handled afterwards.
   */
  onConnect?: ((connection: RohrpostConnection) => void | Promise<void>) | undefined
  /** Runs once for each connection that `onConnect` admitted, after the connection has left all groups. */
  onDisconnect?: ((connection: RohrpostConnection, code: number, reason: string) => void | Promise<void>) | undefined
}

/** The options of the same names. */
export interface ConnectionsOptions extends ConnectionHooks {
  /** Milliseconds. */
  heartbeatInterval: number
  /** Milliseconds that running handlers have to reply when the server stops. */
  drainTimeout: number
}

/** Time in which a client must answer a close before its socket is destroyed, in milliseconds. */
const CLOSE_GRACE = 1000

/** Opens connections for upgraded sockets, and keeps them until their `onDisconnect` has run. */
export class Connections {
  readonly #context: ConnectionContext
  readonly #options: ConnectionsOptions
  readonly #log: FastifyBaseLogger
  readonly #live = new Set<Connection>()
  /** For each connection, resolves when `onConnect` has ended, to whether it admitted the client. */
  readonly #admissions = new Map<Connection, Promise<boolean>>()
  readonly #heartbeat: Heartbeat
  /** Closed connections whose `onDisconnect` still runs. */
  #leaving = 0
  #drained: Promise<void> | undefined
  /** Resolves when no connection is left, or when the time of the graceful stop is over. */
  #emptied: PromiseWithResolvers<void> | undefined

  constructor (context: Omit<ConnectionContext, 'onClose'>, options: ConnectionsOptions, log: FastifyBaseLogger) {
    this.#context = { ...context, onClose: (connection, code, reason) => { this.#onClose(connection, code, reason) } }
    this.#log = log
    this.#options = options
    this.#heartbeat = new Heartbeat(options.heartbeatInterval)
  }

  /** The open connections, including those whose `onConnect` still runs. */
  get live (): ReadonlySet<Connection> {
    return this.#live
  }

  /** The number of `onDisconnect` hooks that still run. */
  get leaving (): number {
    return this.#leaving
  }

  /** Whether the graceful stop has begun. */
  get draining (): boolean {
    return this.#drained !== undefined
  }

  /** Opens a connection for a socket that was just upgraded. */
  accept (socket: WebSocket, request: FastifyRequest): void {
    const connection = new Connection(this.#context, socket, request)
    this.#live.add(connection)
    this.#heartbeat.add(connection)
    if (diagnostics.connect.hasSubscribers) diagnostics.connect.publish({ connection })
    if (this.draining) connection.closeWithin(RESTART.code, RESTART.reason, CLOSE_GRACE)
    else if (this.#options.onConnect === undefined) connection.open()
    else this.#admissions.set(connection, this.#admit(connection, this.#options.onConnect))
  }

  /** Disconnects the selected connections: they close when their running handlers have replied. */
  disconnect (isSelected: (connection: Connection) => boolean, code: number, reason: string): void {
    for (const connection of [...this.#live].filter(isSelected)) connection.disconnect(code, reason, CLOSE_GRACE)
  }

  /**
   * The graceful stop: running handlers reply, then all connections are closed with 1012.
   *
   * @returns resolves when all connections are closed and every `onDisconnect` has ended, at the latest two seconds
   * after `drainTimeout`
   */
  drain (): Promise<void> {
    this.#drained ??= this.#drain()
    return this.#drained
  }

  async #drain (): Promise<void> {
    this.#heartbeat.stop()
    const [deadline, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const { drainTimeout } = this.#options
    const timers = [setTimeout(deadline.resolve, drainTimeout), setTimeout(end.resolve, drainTimeout + 2 * CLOSE_GRACE)]

    for (const connection of this.#live) this.#retire(connection, deadline.promise)
    this.#emptied = end
    this.#checkEmptied()
    await end.promise
    for (const timer of timers) clearTimeout(timer)
    const count = this.#leaving
    if (count > 0) this.#log.warn({ count }, 'stopped before every onConnect and onDisconnect had ended')
  }

  async #retire (connection: Connection, deadline: Promise<void>): Promise<void> {
    await Promise.race([connection.drain(), deadline])
    connection.closeWithin(RESTART.code, RESTART.reason, CLOSE_GRACE)
  }

  #checkEmptied (): void {
    if (this.#live.size === 0 && this.#leaving === 0) this.#emptied?.resolve()
  }

  async #admit (connection: Connection, onConnect: NonNullable<ConnectionHooks['onConnect']>): Promise<boolean> {
    try {
      await onConnect(connection)
    } catch (err) {
      const { code, reason } = closeFor(err, this.draining)
      if (code === CloseCode.FORBIDDEN) report(connection.log, 'warn', err, {}, 'onConnect refused a connection')
      else report(connection.log, 'error', err, { code }, 'onConnect failed, the client should reconnect')
      connection.closeWithin(code, reason, CLOSE_GRACE)
      return false
    }
    connection.open()
    return true
  }

  async #onClose (connection: Connection, code: number, reason: string): Promise<void> {
    this.#live.delete(connection)
    this.#heartbeat.delete(connection)
    this.#leaving++
    try {
      if (await this.#wasAdmitted(connection)) await this.#options.onDisconnect?.(connection, code, reason)
    } catch (err) {
      report(connection.log, 'error', err, {}, 'onDisconnect failed')
    }
    this.#leaving--
    this.#checkEmptied()
  }

  #wasAdmitted (connection: Connection): boolean | Promise<boolean> {
    if (this.#options.onConnect === undefined) return true
    const admission = this.#admissions.get(connection)
    this.#admissions.delete(connection)
    return admission ?? false
  }
}
