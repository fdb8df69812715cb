/**
 * The outbox: the messages of a transaction are rows that it inserts, which are deleted when the broker has confirmed
 * them. Rows that stay, because their process ended or the broker refused them, are published by any process.
 */
import { randomBytes } from 'node:crypto'
import type { MikroORM } from '@mikro-orm/core'
import type { TransactionRows } from '../../brokers/transaction-log.ts'
import { encodeResync } from '../../protocol/resync.ts'
import type { PublishOptions } from '../../protocol/stamp.ts'
import { Outage } from '../../util/outage.ts'
import { divide } from '../../util/portions.ts'
import { truncateError } from '../../util/truncate.ts'
import type { CommitStamp } from '../capture/commit-stamps.ts'
import { OutboxTable, type OutboxRow } from './outbox-table.ts'

type Publish = (group: string, payload: string, options?: PublishOptions) => void | Promise<void>

/** Options of an outbox. */
export interface OutboxOptions {
  orm: MikroORM
  /** Publishes a message. */
  publish: Publish
  /** Whether the broker uses stamps. */
  usesStamps: boolean
  log: { warn (context: object, message: string): void }
  /** Milliseconds between two searches for rows that stayed. @defaultValue 5000 */
  interval?: number
  /** Milliseconds after which a row counts as one that stayed. @defaultValue 5000 */
  age?: number
}

/** A message of a transaction. */
export interface OutboxMessage {
  readonly group: string
  readonly payload: string
  /** The states of rows in it; none in a message of `sendToGroup`. */
  readonly notifications: ReadonlyArray<{ readonly key: string, readonly part: string }>
}

/** A message in the JSON text of a row. */
interface StoredMessage {
  readonly group: string
  readonly payload: string
  /** Pairs of key and part. */
  readonly states: ReadonlyArray<readonly [key: string, part: string]>
}

/** Messages of one transaction in the outbox. */
export interface StoredMessages {
  /** The rows that the transaction inserts. */
  readonly rows: TransactionRows
  /**
   * Called after the COMMIT.
   *
   * @returns a function that publishes the message with an index. It never throws, and its promise never rejects.
   */
  begin (stamp: CommitStamp | undefined): (index: number) => void | Promise<void>
}

/** A row whose messages are being published. */
interface PendingRow {
  readonly id: string
  /** Messages that are not settled. */
  left: number
  isRefused: boolean
  /** Resolves when all messages are settled. */
  readonly settled: PromiseWithResolvers<void>
}

/** Limits of a row. */
const ROW = { count: 1000, size: 1024 * 1024 }
/** Rows that are claimed, or deleted, by one statement. */
const PORTION = 100

export class Outbox {
  readonly #options: Required<OutboxOptions>
  readonly #table: OutboxTable
  readonly #prefix = randomBytes(9).toString('base64url')
  #count = 0
  /** Rows that this process publishes now. */
  readonly #pending = new Map<string, PendingRow>()
  /** Ids of rows to delete. */
  readonly #confirmed = new Set<string>()
  #deleting: Promise<void> | undefined
  #sweeping: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  readonly #refusals: Outage
  readonly #failures: Outage

  /** @throws RP_ERR_INVALID_OPTION if the ORM lacks the table */
  constructor (options: OutboxOptions) {
    this.#options = { interval: 5000, age: 5000, ...options }
    this.#table = new OutboxTable(options.orm)
    const { log } = options
    const warn = (text: string) => (err: unknown) => log.warn({ err: truncateError(err) }, text)
    this.#refusals = new Outage({
      began: warn('the broker does not take changes: they stay in the outbox until it does'),
      ended: (failures) => log.warn({ failures }, 'the broker takes the changes in the outbox again')
    })
    this.#failures = new Outage({
      began: warn('the outbox can not be read or cleaned: its messages stay until it can'),
      ended: (failures) => log.warn({ failures }, 'the outbox can be read and cleaned again')
    })
  }

  /** Starts to look for rows that stayed. @throws RP_ERR_TABLE_MISSING */
  async open (): Promise<void> {
    await this.#table.check()
    this.sweep()
    this.#schedule()
  }

  /** Resolves when the messages that are being published are settled, and those that the broker has are deleted. */
  async close (): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#sweeping
    await Promise.all([...this.#pending.values()].map(({ settled }) => settled.promise))
    await this.#deleteConfirmed()
  }

  /** @param stampQuery the query that reads the stamp of the transaction */
  store (messages: readonly OutboxMessage[], stampQuery: string | undefined): StoredMessages {
    const stored = messages.map(({ group, payload, notifications }): StoredMessage => {
      return { group, payload, states: notifications.map(({ key, part }) => [key, part]) }
    })
    const rows = divide(stored, ({ payload }) => payload.length, ROW).map((portion) => {
      return { id: `${this.#prefix}${(this.#count++).toString(36)}`, portion }
    })
    return {
      rows: this.#table.rowsOf(rows.map(({ id, portion }) => ({ id, messages: JSON.stringify(portion) })), stampQuery),
      begin: (stamp) => {
        const messages = rows.flatMap(({ id, portion }) => {
          const row = this.#begin(id, portion.length)
          return portion.map((message, index) => ({ row, message, index }))
        })
        return (at) => {
          const { row, message, index } = messages[at] as typeof messages[number]
          return this.#publish(row, message, index, stamp)
        }
      }
    }
  }

  /** Publishes the rows that stayed. Never rejects. */
  async sweep (): Promise<void> {
    this.#sweeping ??= this.#sweep().finally(() => { this.#sweeping = undefined })
    return this.#sweeping
  }

  #schedule (): void {
    if (this.#isClosed) return
    const { interval } = this.#options
    // processes that start together do not search together
    this.#timer = setTimeout(async () => {
      await this.sweep()
      this.#schedule()
    }, interval * (0.75 + Math.random() / 2)).unref()
  }

  async #sweep (): Promise<void> {
    const { age } = this.#options
    try {
      for (let isMore = true; isMore && !this.#isClosed;) {
        await this.#deleteConfirmed()
        const rows = await this.#table.claim(randomBytes(12).toString('base64url'), age, PORTION)
        if (this.#confirmed.size === 0) this.#failures.end()
        const stayed = rows.filter(({ id }) => !this.#pending.has(id) && !this.#confirmed.has(id))
        await Promise.all(stayed.map((row) => this.#publishStayed(row)))
        isMore = rows.length === PORTION && stayed.length > 0 && this.#refusals.error === undefined
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  /** Publishes a row that stayed: with its stamp, by which an older state is left out, or else as a resync. */
  async #publishStayed ({ id, messages, stamp }: OutboxRow): Promise<void> {
    const isStamped = stamp !== undefined && this.#options.usesStamps
    const stored: StoredMessage[] = JSON.parse(messages)
    const isState = ({ states }: StoredMessage) => states.length > 0 && !isStamped
    const resyncs = [...new Set(stored.filter(isState).map(({ group }) => group))]
    const row = this.#begin(id, stored.length - stored.filter(isState).length + resyncs.length)
    for (const [index, message] of stored.entries()) {
      if (!isState(message)) this.#publish(row, message, index, isStamped ? stamp : undefined)
    }
    for (const [index, group] of resyncs.entries()) {
      this.#publish(row, { group, payload: encodeResync(group), states: [] }, stored.length + index, undefined)
    }
    await row.settled.promise
  }

  #begin (id: string, left: number): PendingRow {
    const row = { id, left, isRefused: false, settled: Promise.withResolvers<void>() }
    this.#pending.set(id, row)
    return row
  }

  #publish (
    row: PendingRow,
    { group, payload, states }: StoredMessage,
    index: number,
    stamp: CommitStamp | undefined
  ): void | Promise<void> {
    const id = `${row.id}.${index}`
    // a message without states replaces nothing, and only its repeat is left out
    const stamped = states.length > 0 ? states : [[id, 'some'] as const]
    const options = { id, stamps: stamp && stamped.map(([key, part]) => ({ key, part, ...stamp })) }
    let publishing: void | Promise<void>
    try {
      publishing = this.#options.publish(group, payload, options)
    } catch (error) {
      return this.#settle(row, error)
    }
    if (publishing === undefined) return this.#settle(row)
    return publishing.then(() => this.#settle(row), (error: unknown) => this.#settle(row, error))
  }

  #settle (row: PendingRow, refusal?: unknown): void {
    if (refusal !== undefined) {
      row.isRefused = true
      this.#refusals.fail(refusal as Error)
    }
    if (--row.left > 0) return
    this.#pending.delete(row.id)
    row.settled.resolve()
    if (row.isRefused) return
    this.#refusals.end()
    this.#confirmed.add(row.id)
    this.#deleteConfirmed()
  }

  /** Deletes the rows that the broker has confirmed. Never rejects: the next sweep repeats it. */
  #deleteConfirmed (): Promise<void> {
    this.#deleting ??= this.#delete()
    return this.#deleting
  }

  async #delete (): Promise<void> {
    // at the end of the turn, so that one statement deletes all of its rows
    await new Promise(setImmediate)
    try {
      while (this.#confirmed.size > 0) {
        const ids = [...this.#confirmed].slice(0, PORTION)
        await this.#table.delete(ids)
        for (const id of ids) this.#confirmed.delete(id)
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#deleting = undefined
    }
  }

  #fail (error: unknown): void {
    // the application closes its ORM after the app, and another process publishes what is left
    if (!this.#isClosed) this.#failures.fail(error as Error)
  }
}
