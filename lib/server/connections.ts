/** All clients of one server: how they come in, stay alive and leave. */
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { diagnostics } from '../diagnostics.ts'
import { CloseCode } from '../protocol/codes.ts'
import { closeFor, RESTART } from './upgrade/admission.ts'
import { Connection, type ConnectionContext } from './connection.ts'
import { Heartbeat } from './heartbeat.ts'
import { report } from './report.ts'
import type { ConnectionHooks } from './types.ts'

/** What a server does with its connections as a whole. */
export interface ConnectionsOptions extends ConnectionHooks {
  /** Milliseconds between two signs of life. */
  heartbeatInterval: number
  /** Milliseconds that running handlers have to answer when the server stops. */
  drainTimeout: number
}

/** How long a client may take to answer a close, in milliseconds, before the line is cut. */
const CLOSE_GRACE = 1000

/** The live connections of one server. */
export class Connections {
  readonly #context: ConnectionContext
  readonly #options: ConnectionsOptions
  readonly #log: FastifyBaseLogger
  readonly #live = new Set<Connection>()
  /** What `onConnect` said, or still thinks about. */
  readonly #admissions = new Map<Connection, Promise<boolean>>()
  readonly #heartbeat: Heartbeat
  /** Connections that are closed, but whose `onDisconnect` still runs. */
  #leaving = 0
  #drained: Promise<void> | undefined
  #emptied: PromiseWithResolvers<void> | undefined

  constructor (context: Omit<ConnectionContext, 'onClose'>, options: ConnectionsOptions, log: FastifyBaseLogger) {
    this.#context = { ...context, onClose: (connection, code, reason) => { this.#leave(connection, code, reason) } }
    this.#log = log
    this.#options = options
    this.#heartbeat = new Heartbeat(options.heartbeatInterval)
  }

  /** The connections from the start of their `onConnect` to their close. */
  get live (): ReadonlySet<Connection> {
    return this.#live
  }

  /** How many `onDisconnect` hooks run. */
  get leaving (): number {
    return this.#leaving
  }

  /** Whether the graceful stop has begun. */
  get draining (): boolean {
    return this.#drained !== undefined
  }

  /** Takes over a socket that was just upgraded. */
  accept (socket: WebSocket, request: FastifyRequest): void {
    const connection = new Connection(this.#context, socket, request)
    this.#live.add(connection)
    this.#heartbeat.add(connection)
    if (diagnostics.connect.hasSubscribers) diagnostics.connect.publish({ connection })
    if (this.draining) connection.end(RESTART.code, RESTART.reason, CLOSE_GRACE)
    else if (this.#options.onConnect === undefined) connection.open()
    else this.#admissions.set(connection, this.#admit(connection, this.#options.onConnect))
  }

  /** Closes the connections that are picked, once their running handlers have answered; a client that does not answer the close is cut off. */
  end (picks: (connection: Connection) => boolean, code: number, reason: string): void {
    for (const connection of [...this.#live].filter(picks)) connection.expel(code, reason, CLOSE_GRACE)
  }

  /**
   * The graceful stop: running handlers answer, then all connections are closed with 1012.
   *
   * @returns resolves when all are closed and every `onDisconnect` has ended, or when none of them was worth waiting for any longer
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
    if (this.#leaving > 0) this.#log.warn({ count: this.#leaving }, 'stopped before every onConnect and onDisconnect had ended')
  }

  async #retire (connection: Connection, deadline: Promise<void>): Promise<void> {
    await Promise.race([connection.drain(), deadline])
    connection.end(RESTART.code, RESTART.reason, CLOSE_GRACE)
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
      else report(connection.log, 'error', err, { code }, 'onConnect failed, the client is to come back')
      connection.end(code, reason, CLOSE_GRACE)
      return false
    }
    connection.open()
    return true
  }

  async #leave (connection: Connection, code: number, reason: string): Promise<void> {
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
