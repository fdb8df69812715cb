/** Ends connections from outside: those in a group on every process, those that a predicate picks on this one. */
import type { FastifyBaseLogger } from 'fastify'
import type { Broker, BrokerHealth } from '../brokers/broker.ts'
import { errors, show } from '../errors.ts'
import { CloseCode } from '../protocol/codes.ts'
import { Backoff } from '../util/backoff.ts'
import { Trouble } from '../util/trouble.ts'
import { checkClose } from './close.ts'
import { checkName } from './groups/groups.ts'
import { report } from './report.ts'
import type { RohrpostConnection } from './types.ts'

/** The group in which the processes tell each other whom to end. It has a space: no application can send to it. */
export const DISCONNECTS = 'rohrpost disconnect'

/** The bounds of the delay before the broker is asked again, in milliseconds. */
const RETRY = { min: 1000, max: 30_000 }

/** A connection that may have to end. */
interface Candidate extends RohrpostConnection {
  isIn (group: string): boolean
}

/** Whose connections these are. */
interface Keeper {
  end (picks: (connection: Candidate) => boolean, code: number, reason: string): void
}

/** What travels in {@link DISCONNECTS}. */
interface Order {
  group: string
  code: number
  reason: string
}

/** See `Rohrpost.disconnect`. */
export class Disconnector {
  readonly #broker: Broker
  readonly #keeper: Keeper
  readonly #log: FastifyBaseLogger
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  /** That other processes can't end connections of this one. */
  readonly #trouble: Trouble
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor (broker: Broker, keeper: Keeper, log: FastifyBaseLogger) {
    this.#broker = broker
    this.#keeper = keeper
    this.#log = log
    this.#trouble = new Trouble({
      began: (err) => report(log, 'error', err, {}, 'other processes can not end connections of this one yet'),
      ended: (failures) => log.warn({ failures }, 'other processes can end connections of this one now')
    })
  }

  /** Listens to the other processes, as soon as the broker lets it. Never rejects. */
  async open (): Promise<void> {
    try {
      await this.#broker.subscribe(DISCONNECTS)
    } catch (err) {
      if (this.#closed) return
      this.#trouble.fail(err as Error)
      this.#timer = setTimeout(() => this.open(), this.#backoff.next()).unref()
      return
    }
    this.#trouble.end()
  }

  /** How the broker is, and whether it lets other processes end connections of this one. */
  health (): BrokerHealth {
    const health = this.#broker.health()
    const { error } = this.#trouble
    if (error === undefined || !health.ok) return health
    return { ok: false, detail: `other processes can't end connections of this one: ${error.message}` }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  async disconnect (target: unknown, code: number = CloseCode.FORBIDDEN, reason = ''): Promise<void> {
    checkClose(code, reason)
    if (typeof target === 'function') return this.#keeper.end((connection) => checkChoice(target(connection)), code, reason)

    checkName(target)
    const order: Order = { group: target, code, reason }
    await this.#broker.publish(DISCONNECTS, JSON.stringify(order))
  }

  /** Does what a process asked for, perhaps this one. Never throws: another process may run another version. */
  receive (payload: string): void {
    try {
      const { group, code, reason }: Order = JSON.parse(payload)
      checkClose(code, reason)
      this.#keeper.end((connection) => connection.isIn(group), code, reason)
    } catch (err) {
      report(this.#log, 'error', err, { payload: show(payload) }, 'an order to end connections can not be read')
    }
  }
}

/** A promise, which is true to JavaScript, must not end everybody. */
function checkChoice (choice: unknown): boolean {
  if (typeof choice !== 'boolean') throw new errors.RP_ERR_INVALID_PREDICATE(show(choice))
  return choice
}
