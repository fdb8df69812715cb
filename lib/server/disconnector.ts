/**
 * Implements `app.rohrpost.disconnect`: closes the connections of a group on every process, or those that a predicate
 * selects on this one.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Broker, BrokerHealth } from '../brokers/broker.ts'
import { errors, show } from '../errors.ts'
import { CloseCode } from '../protocol/codes.ts'
import { Backoff } from '../util/backoff.ts'
import { Outage } from '../util/outage.ts'
import { checkClose } from './close.ts'
import type { Connections } from './connections.ts'
import { checkName } from './groups/groups.ts'
import { report } from './report.ts'

/**
 * The group in which processes send disconnect commands to each other. Applications can't send to it, because its name
 * contains a space.
 */
export const DISCONNECTS = 'rohrpost disconnect'

/** Shortest and longest delay before the next attempt to subscribe, in milliseconds. */
const RETRY = { min: 1000, max: 30_000 }

/** A message in {@link DISCONNECTS}: closes the connections that are in a group. */
interface DisconnectCommand {
  group: string
  code: number
  reason: string
}

/** Sends disconnect commands to all processes, and executes the commands that arrive. */
export class Disconnector {
  readonly #broker: Broker
  readonly #connections: Connections
  readonly #log: FastifyBaseLogger
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  /** The time during which this process can't receive disconnect commands. */
  readonly #outage: Outage
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor (broker: Broker, connections: Connections, log: FastifyBaseLogger) {
    this.#broker = broker
    this.#connections = connections
    this.#log = log
    this.#outage = new Outage({
      began: (err) => report(log, 'error', err, {}, "other processes can't disconnect clients of this one yet"),
      ended: (failures) => log.warn({ failures }, 'other processes can disconnect clients of this one now')
    })
  }

  /** Subscribes to the disconnect commands, with retries until the broker accepts. Never rejects. */
  async open (): Promise<void> {
    try {
      await this.#broker.subscribe(DISCONNECTS)
    } catch (err) {
      if (this.#isClosed) return
      this.#outage.fail(err as Error)
      this.#timer = setTimeout(() => this.open(), this.#backoff.next()).unref()
      return
    }
    this.#outage.end()
  }

  /** The health of the broker, and whether this process receives disconnect commands. */
  health (): BrokerHealth {
    const health = this.#broker.health()
    const { error } = this.#outage
    if (error === undefined || !health.ok) return health
    return { ok: false, detail: `other processes can't disconnect clients of this one: ${error.message}` }
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  /** See `Rohrpost.disconnect`. */
  async disconnect (target: unknown, code: number = CloseCode.FORBIDDEN, reason = ''): Promise<void> {
    checkClose(code, reason)
    if (typeof target === 'function') {
      return this.#connections.disconnect((connection) => checkChoice(target(connection)), code, reason)
    }

    checkName(target)
    const command: DisconnectCommand = { group: target, code, reason }
    await this.#broker.publish(DISCONNECTS, JSON.stringify(command))
  }

  /** Executes a command of this or another process. Never throws: another process may run another version. */
  receive (payload: string): void {
    try {
      const { group, code, reason }: DisconnectCommand = JSON.parse(payload)
      checkClose(code, reason)
      this.#connections.disconnect(({ memberships }) => memberships.has(group), code, reason)
    } catch (err) {
      const fields = { payload: show(payload) }
      report(this.#log, 'error', err, fields, "a disconnect command of another process can't be read")
    }
  }
}

/**
 * Checks the result of a predicate: an async predicate returns a promise, which is truthy and would close every
 * connection.
 */
function checkChoice (choice: unknown): boolean {
  if (typeof choice !== 'boolean') throw new errors.RP_ERR_INVALID_PREDICATE(show(choice))
  return choice
}
