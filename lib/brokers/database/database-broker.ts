/** Groups across processes, through the application's own database. */
import { randomBytes } from 'node:crypto'
import type { EntityManager } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Outage } from '../../util/outage.ts'
import { within } from '../../util/within.ts'
import type { Broker, BrokerHealth, HistoryEntry, Position, Receiver, Snapshot } from '../broker.ts'
import { TRANSACTION_LOG, type TransactionLog } from '../transaction-log.ts'
import type { DatabaseBrokerSettings } from './broker-settings.ts'
import { LogCleaner } from './log-cleaner.ts'
import { healthOf } from './log-health.ts'
import { LogHistory } from './log-history.ts'
import { LogNotifier } from './log-notifier.ts'
import { LogReader } from './log-reader.ts'
import { LogSession } from './log-session.ts'
import { LogSnapshot } from './log-snapshot.ts'
import { LogStatements } from './log-statements.ts'
import type { LogStats } from './log-stats.ts'
import { LogWriter } from './log-writer.ts'
import { retryWhilePassing } from './retry.ts'
import { makeTransactionLog } from './transaction-rows.ts'

/** The parts of an open broker. */
interface Parts {
  readonly reading: LogSession
  readonly writing: LogSession
  readonly statements: LogStatements
  readonly reader: LogReader
  readonly writer: LogWriter
  readonly history: LogHistory
  readonly snapshot: LogSnapshot
  readonly cleaner: LogCleaner
  readonly written: () => void
  readonly outages: Record<'connecting' | 'publishing' | 'reading' | 'cleaning', Outage>
  /** Settles when both connections are ready, or when the broker is closed before. */
  readonly opening: PromiseWithResolvers<void>
}

/** The poll interval where the database cannot notify, although it usually does, in milliseconds. */
const DEAF_POLL_INTERVAL = 100

export class DatabaseBroker implements Broker {
  readonly keepsHistory: boolean
  readonly hasSparseOffsets = true
  readonly [TRANSACTION_LOG]: TransactionLog
  readonly #settings: DatabaseBrokerSettings
  readonly #id = randomBytes(12).toString('base64url')
  #parts: Parts | undefined
  #isClosed = false
  /** The reason why notifications do not arrive, as reported. */
  #deafness: string | undefined
  #closing: Promise<void> | undefined

  constructor (settings: DatabaseBrokerSettings) {
    this.#settings = settings
    this.keepsHistory = settings.history !== undefined
    this[TRANSACTION_LOG] = makeTransactionLog(settings, () => this.#parts?.written())
  }

  async open (receiver: Receiver): Promise<void> {
    if (this.#parts !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('database')
    const parts = this.#parts = this.#makeParts(receiver)
    const { reading, writing, reader, cleaner, opening } = parts
    opening.promise.catch(() => {})
    try {
      reading.open()
      writing.open()
      await this.#within(opening.promise)
      const retry = (run: () => Promise<void>) => retryWhilePassing(this.#settings.dialect, run, () => this.#isClosed)
      await this.#within(retry(() => this.#checkTables(reading)))
      await this.#within(reader.refresh())
      await this.#within(retry(() => this.#noteOptions(parts, receiver)))
      cleaner.start()
    } catch (error) {
      await this.close()
      throw error
    }
  }

  publish (group: string, payload: string): Promise<void> {
    if (this.#parts === undefined) return Promise.reject(new errors.RP_ERR_NOT_PUBLISHED('the broker is not open'))
    return this.#parts.writer.publish(group, payload)
  }

  async subscribe (group: string): Promise<Position | undefined> {
    const { history, reader } = this.#open()
    try {
      const top = await this.#within(history.subscribe(group))
      return this.keepsHistory ? top : undefined
    } catch (error) {
      reader.delete(group)
      throw error
    }
  }

  unsubscribe (group: string): void {
    this.#parts?.reader.delete(group)
  }

  async history (group: string, after: Position, limit: number, bytes = Infinity): Promise<HistoryEntry[] | undefined> {
    const { history: kept } = this.#settings
    if (kept === undefined) return undefined
    return await this.#within(this.#open().history.after(group, after, limit, bytes, kept))
  }

  async snapshot<Value> (group: string, read: (em: EntityManager) => Promise<Value>): Promise<Snapshot<Value>> {
    return await this.#open().snapshot.read(group, read)
  }

  health (): BrokerHealth {
    const { dialect: { name }, limits, patience } = this.#settings
    if (this.#isClosed || this.#parts === undefined) return { ok: false, detail: 'the broker is not open' }
    return healthOf({ ...this.#parts, name, patience, late: limits.timeout / 5 })
  }

  /** Figures about reading the log; `undefined` before the broker is opened. */
  stats (): LogStats | undefined {
    return this.#parts?.reader.stats
  }

  /** Waits for the messages that are not published yet, each for its timeout at most, and closes the connections. */
  async close (): Promise<void> {
    this.#isClosed = true
    if (this.#parts !== undefined) await (this.#closing ??= this.#close(this.#parts))
  }

  async #close (parts: Parts): Promise<void> {
    parts.opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is closed'))
    await parts.writer.close()
    parts.reader.close()
    parts.cleaner.close()
    await Promise.all([parts.reading.close(), parts.writing.close()])
  }

  /** @throws RP_ERR_TABLE_MISSING */
  async #checkTables (session: LogSession): Promise<void> {
    const { dialect, tables } = this.#settings
    for (const table of Object.values(tables)) {
      try {
        await session.query(`select 1 as one from ${table} where 1 = 0`)
      } catch (cause) {
        if (dialect.failureOf(cause) !== 'missing') throw cause
        throw new errors.RP_ERR_TABLE_MISSING(table, { cause })
      }
    }
  }

  /** Reports that another process has opened the log with other options. */
  async #noteOptions ({ reading, statements }: Parts, receiver: Receiver): Promise<void> {
    const { history } = this.#settings
    const options = history === undefined ? 'no history' : `history of ${history.size} messages and ${history.ttl} ms`
    const others = await statements.noteOptions(reading, options)
    if (others === undefined) return
    const text = `another process has opened the log with ${others}, and this one with ${options}`
    const advice = "give all processes the same 'history', and other applications tables of their own"
    receiver.notice?.(`${text}: if it still runs, ${advice}`, { stage: 'connect' })
  }

  #open (): Parts {
    if (this.#isClosed || this.#parts === undefined) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is not open')
    }
    return this.#parts
  }

  #makeParts (receiver: Receiver): Parts {
    const { dialect, tables, limits, patience } = this.#settings
    const { keep, keepNewest, cleanInterval } = this.#settings
    const { name } = dialect
    const outage = (stage: 'connect' | 'publish' | 'deliver', over: string) => new Outage({
      began: (error) => receiver.error(error, { stage }),
      ended: (failures) => receiver.notice?.(over, { stage, failures })
    })
    const outages: Parts['outages'] = {
      connecting: outage('connect', `${name} can be reached again`),
      publishing: outage('publish', `${name} takes messages again`),
      reading: outage('deliver', `${name} can be read again`),
      cleaning: outage('deliver', 'old rows of the log are deleted again')
    }
    const onFailure = (error: Error) => this.#failed(parts, error)
    const shared = { dialect, patience: Math.ceil(limits.timeout / 2), onFailure }
    const reading = new LogSession({
      ...shared,
      role: 'reader',
      onReady: (deafness) => {
        this.#poll(parts, receiver, deafness)
        reader.wake()
        this.#connected(parts)
      },
      onNotification: () => reader.notified()
    })
    const writing = new LogSession({
      ...shared,
      role: 'writer',
      onReady: () => {
        writer.resume()
        this.#connected(parts)
      }
    })
    const statements = new LogStatements(dialect, tables)
    const reader = new LogReader({
      receiver,
      dialect,
      session: reading,
      statements,
      patience,
      keepsHistory: this.keepsHistory,
      reading: outages.reading
    })
    const notifier = new LogNotifier(dialect, reading)
    const written = () => {
      reader.wake()
      notifier.notify()
    }
    const writer = new LogWriter({
      dialect,
      session: writing,
      id: this.#id,
      limits,
      publishing: outages.publishing,
      onWritten: written
    })
    const history = new LogHistory(reading, statements, reader)
    const snapshot = new LogSnapshot(dialect, statements, reader, () => this.#within(reader.refresh()))
    const cleaner = new LogCleaner({
      dialect,
      session: writing,
      statements,
      id: this.#id,
      keep,
      keepNewest,
      interval: cleanInterval,
      cleaning: outages.cleaning
    })
    const opening = Promise.withResolvers<void>()
    const parts: Parts = {
      reading, writing, statements, reader, writer, history, snapshot, cleaner, written, outages, opening
    }
    return parts
  }

  /** Polls at the interval of the options, or more often where other processes cannot notify this one. */
  #poll ({ reader }: Parts, receiver: Receiver, deafness: string | undefined): void {
    const { pollInterval, dialect: { name } } = this.#settings
    reader.poll(deafness === undefined ? pollInterval : Math.min(pollInterval, DEAF_POLL_INTERVAL))
    if (deafness === this.#deafness) return
    this.#deafness = deafness
    const consequence = `the log is read every ${reader.pollInterval} ms`
    const text = deafness === undefined ? 'arrive' : `do not arrive: ${deafness}`
    receiver.notice?.(`notifications of ${name} ${text}; ${consequence}`, { stage: 'connect' })
  }

  #connected ({ reading, writing, outages, opening }: Parts): void {
    if (!reading.isReady || !writing.isReady) return
    outages.connecting.end()
    opening.resolve()
  }

  #failed ({ outages, opening }: Parts, error: Error): void {
    const { dialect, tables } = this.#settings
    const failure = dialect.failureOf(error)
    if (failure === 'missing') opening.reject(new errors.RP_ERR_TABLE_MISSING(tables.log, { cause: error }))
    // another attempt would be refused, too
    else if (isCoded(error) || failure === 'refused') opening.reject(error)
    outages.connecting.fail(error)
  }

  /** Rejects with RP_ERR_BROKER_UNAVAILABLE when the database takes too long, or refuses. */
  async #within<Value> (answer: Promise<Value>): Promise<Value> {
    const { dialect, limits: { timeout } } = this.#settings
    try {
      return await within(timeout, answer, () => {
        const { reading, writing, outages } = this.#parts as Parts
        const errorsOfParts = [reading.failure, writing.failure, outages.reading.error]
        const failures = errorsOfParts.filter((error) => error !== undefined)
        const causes = failures.slice(0, 1).map(({ message }) => ` (${message})`).join('')
        const reason = `${dialect.name} did not answer within ${timeout} ms${causes}`
        return new errors.RP_ERR_BROKER_UNAVAILABLE(reason, { cause: failures[0] })
      })
    } catch (error) {
      if (isCoded(error)) throw error
      const reason = `${dialect.name} refuses it (${(error as Error).message})`
      throw new errors.RP_ERR_BROKER_UNAVAILABLE(reason, { cause: error })
    }
  }
}

function isCoded (error: unknown): boolean {
  return String((error as { code?: unknown }).code).startsWith('RP_ERR_')
}
