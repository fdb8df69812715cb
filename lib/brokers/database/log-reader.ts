/**
 * Reads the log in the order of its ids and delivers the messages of the groups of this process. An id is drawn before
 * its transaction commits, so a row can become visible after rows with larger ids: the reader waits at a missing id as
 * long as its row can still become visible.
 */
import { Backoff } from '../../util/backoff.ts'
import type { Outage } from '../../util/outage.ts'
import type { Position, Receiver } from '../broker.ts'
import type { Dialect } from './dialect.ts'
import { IdGap, type GapPatience } from './id-gap.ts'
import type { LogStats } from './log-stats.ts'
import type { LogSession } from './log-session.ts'
import { nameOf, type LogPage, type LogRow, type LogStatements } from './log-statements.ts'

/** Options of a reader. */
export interface LogReaderOptions {
  receiver: Receiver
  dialect: Dialect
  session: LogSession
  statements: LogStatements
  /** Whether messages have positions. */
  keepsHistory: boolean
  patience: GapPatience
  /** Failed and successful reads. */
  reading: Outage
}

/** Rows of one read. */
const PAGE = 1000
/** Bytes of payloads that are read and delivered together. */
const BYTES = 1024 * 1024
/** Ids before the newest one that the reader reads when it starts: their transactions may still be open. */
const LOOK_BACK = 1000
/** The bounds of the delay before a read that failed is tried again, in milliseconds. */
const RETRY = { min: 10, max: 1000 }
/** Number of consecutive failed reads that are not reported if the next one may succeed, as with a locked file. */
const REPORTED = 5

export class LogReader {
  readonly #options: LogReaderOptions
  readonly #groups = new Set<string>()
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  /** The values of the epoch; `undefined` before the first pass. */
  #source: string | undefined
  #epoch = ''
  #cursor = 0
  /** The row at the cursor, as far as it tells that row from another one with the same id. */
  #atCursor: string | undefined
  /** Id up to which rows are not delivered: they are older than the epoch. */
  #start = 0
  #isStarting = false
  readonly #gap: IdGap
  #failures = 0
  #waiters: PromiseWithResolvers<void>[] = []
  #isWanted = false
  #isRunning = false
  #isClosed = false
  #polling: NodeJS.Timeout | undefined
  #pausing: NodeJS.Timeout | undefined
  /** The delay between two polls, in milliseconds. */
  pollInterval = 0
  readonly #counts = { polls: 0, notifications: 0 }
  #newest = 0
  /** Of `performance.now()`. */
  #readAt = 0

  constructor (options: LogReaderOptions) {
    this.#options = options
    this.#gap = new IdGap(options)
  }

  /** The position up to which everything is delivered. */
  get position (): Position {
    return { epoch: this.#epoch, offset: this.#cursor }
  }

  /** Time for which the reader has been waiting for missing ids, in milliseconds, and their transactions. */
  get waiting (): { age: number, holders: string } | undefined {
    return this.#gap.waiting
  }

  get stats (): LogStats {
    return {
      lag: Math.max(0, this.#newest - this.#cursor),
      silence: performance.now() - this.#readAt,
      waiting: this.waiting?.age ?? 0,
      ...this.#gap.counts,
      ...this.#counts
    }
  }

  add (group: string): void {
    this.#groups.add(group)
  }

  delete (group: string): void {
    this.#groups.delete(group)
  }

  /** Polls from now on, with this delay in milliseconds. */
  poll (interval: number): void {
    this.pollInterval = interval
    this.#readAt = performance.now()
    clearInterval(this.#polling)
    this.#polling = setInterval(() => this.#poll(), interval)
  }

  /** Another process has written to the log. */
  notified (): void {
    this.#counts.notifications++
    this.wake()
  }

  close (): void {
    this.#isClosed = true
    clearInterval(this.#polling)
    clearTimeout(this.#pausing)
  }

  /** Reads as soon as possible. */
  wake (): void {
    this.#isWanted = true
    clearTimeout(this.#pausing)
    if (!this.#isRunning) this.#run()
  }

  /** Resolves when everything that is visible now was delivered, but for rows behind missing ids. */
  refresh (): Promise<void> {
    const waiter = Promise.withResolvers<void>()
    this.#waiters.push(waiter)
    this.wake()
    return waiter.promise
  }

  async #poll (): Promise<void> {
    const { dialect, session } = this.#options
    this.#counts.polls++
    if (this.#isRunning || !session.isReady) return
    try {
      if (await dialect.hasChanged?.(session) !== false) this.wake()
      else this.#readAt = performance.now()
    } catch {
      // the pass reports the failure
      this.wake()
    }
  }

  async #run (): Promise<void> {
    const { dialect, session, reading } = this.#options
    this.#isRunning = true
    while (this.#isWanted && !this.#isClosed && session.isReady) {
      this.#isWanted = false
      const waiters = this.#waiters.splice(0)
      try {
        const pause = await this.#pass()
        reading.end()
        this.#backoff.reset()
        this.#failures = 0
        // without a position nothing can be answered
        if (this.#isStarting) this.#waiters.unshift(...waiters)
        else for (const { resolve } of waiters) resolve()
        if (pause > 0) this.#wakeAfter(pause)
      } catch (error) {
        this.#waiters.unshift(...waiters)
        // a new connection wakes the reader
        if (!session.isReady) break
        if (dialect.failureOf(error) !== 'passing' || ++this.#failures > REPORTED) reading.fail(error as Error)
        this.#wakeAfter(this.#backoff.next())
      }
    }
    this.#isRunning = false
  }

  #wakeAfter (delay: number): void {
    if (this.#isClosed || this.#isWanted) return
    clearTimeout(this.#pausing)
    this.#pausing = setTimeout(() => this.wake(), delay)
  }

  /** Reads and delivers rows. @returns milliseconds until the next pass; 0 if none is due */
  async #pass (): Promise<number> {
    const { session, statements } = this.#options
    for (;;) {
      const page = await statements.readFrom(session, this.#cursor, PAGE + 1)
      this.#readAt = performance.now()
      this.#newest = page.newest
      if (!this.#isContinued(page)) {
        await this.#begin(page)
        continue
      }
      const rows = page.rows.filter(({ id }) => id > this.#cursor)
      const ready = this.#gap.countBefore(rows, this.#cursor)
      if (!await this.#deliver(rows.slice(0, ready))) continue
      if (ready < rows.length) {
        const pause = await this.#gap.wait(rows.slice(ready), this.#cursor, this.#isStarting)
        if (pause > 0) return pause
      } else if (rows.length < PAGE) {
        this.#gap.end()
        this.#started()
        if (page.hasPassed) await this.#options.dialect.sweep?.(session)
        return 0
      }
    }
  }

  /** Whether a page goes on where the last one ended. */
  #isContinued ({ source, rows: [first], newest, thinned }: LogPage): boolean {
    if (source !== this.#source) return false
    if (this.#atCursor === undefined) return newest >= this.#cursor
    if (first?.id === this.#cursor) return nameOf(first) === this.#atCursor
    // the newest row is never deleted, and others only when they are old
    return first !== undefined && thinned >= this.#cursor
  }

  /** Begins to follow an epoch. */
  async #begin (page: LogPage): Promise<void> {
    const { session, statements } = this.#options
    if (page.source === this.#source) return await this.#renew(page.source)
    const top = await statements.readTop(session)
    this.#isStarting = true
    this.#source = page.source
    this.#epoch = page.epoch
    this.#start = top
    this.#cursor = Math.max(0, top - LOOK_BACK)
    this.#atCursor = undefined
    this.#gap.end()
  }

  /** The log was rewound in a way that its epoch does not show. */
  async #renew (source: string): Promise<void> {
    await this.#options.statements.renewEpoch(this.#options.session, source)
    this.#source = undefined
  }

  /** Reports the beginning of the epoch to all groups, when all earlier rows are visible. */
  #started (): void {
    if (!this.#isStarting) return
    this.#isStarting = false
    if (this.#cursor < this.#start) {
      // the newest rows were deleted meanwhile
      this.#cursor = this.#start
      this.#atCursor = undefined
    }
    for (const group of this.#groups) this.#lose(group, this.#cursor)
  }

  /** Delivers rows in order, in portions. @returns `false` if the rest has to be read again */
  async #deliver (rows: readonly LogRow[]): Promise<boolean> {
    const { session, statements } = this.#options
    for (let at = 0; at < rows.length;) {
      let bytes = 0
      let end = at
      const wanted: number[] = []
      for (; end < rows.length; end++) {
        const row = rows[end] as LogRow
        const { id, size } = row
        if (size === undefined || !this.#isDue(row)) continue
        if (bytes > 0 && bytes + size > BYTES) break
        bytes += size
        wanted.push(id)
      }
      const payloads = wanted.length === 0 ? undefined : await statements.readPayloads(session, wanted)
      if (this.#isClosed) return true
      this.#readAt = performance.now()
      for (; at < end; at++) {
        const row = rows[at] as LogRow
        const payload = payloads?.get(row.id)
        // a row that was deleted since, or of a group that was added since
        if (payload === undefined && this.#isDue(row) && row.size !== undefined) return false
        this.#deliverRow(row, payload)
      }
    }
    return true
  }

  /** Whether a row is to be delivered in this process. */
  #isDue ({ id, group }: LogRow): boolean {
    return id > this.#start && this.#groups.has(group)
  }

  #deliverRow (row: LogRow, payload: string | undefined): void {
    const { id, group } = row
    if (id > this.#start) this.#started()
    this.#cursor = id
    this.#atCursor = nameOf(row)
    if (!this.#isDue(row)) return
    if (payload === undefined) return this.#lose(group, id)
    const { receiver, keepsHistory } = this.#options
    if (keepsHistory) receiver.deliver(group, payload, { epoch: this.#epoch, offset: id })
    else receiver.deliver(group, payload)
  }

  #lose (group: string, offset: number): void {
    const { receiver, keepsHistory } = this.#options
    if (keepsHistory) receiver.lost(group, { epoch: this.#epoch, offset })
    else receiver.lost(group)
  }
}
