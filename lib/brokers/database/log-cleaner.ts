/**
 * Deletes old rows, in one process at a time. The newest old row of each group stays for a day, so that a client that
 * received it and missed nothing since can continue from its position.
 */
import { Backoff } from '../../util/backoff.ts'
import type { Outage } from '../../util/outage.ts'
import type { Dialect } from './dialect.ts'
import type { LogSession } from './log-session.ts'
import type { LogRow, LogStatements } from './log-statements.ts'

/** Options of a cleaner. */
export interface LogCleanerOptions {
  dialect: Dialect
  session: LogSession
  statements: LogStatements
  /** Identifies this process. */
  id: string
  /** Age up to which rows are kept, in milliseconds. */
  keep: number
  /** Age up to which the newest old row of a group is kept, in milliseconds. */
  keepNewest: number
  /** The delay between two cleanings, in milliseconds. */
  interval: number
  /** Failed and successful deletions. */
  cleaning: Outage
}

/** Rows that one statement reads, and deletes. */
const PORTION = 1000
/** Number of consecutive failures that are not reported if the next attempt may succeed, as with a locked file. */
const UNREPORTED = 3

export class LogCleaner {
  readonly #options: LogCleanerOptions
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  #failures = 0

  constructor (options: LogCleanerOptions) {
    this.#options = options
  }

  start (): void {
    const { interval } = this.#options
    // processes that start together do not clean together
    const delay = interval / 2 + new Backoff(interval / 2, interval / 2).next()
    this.#timer = setTimeout(async () => {
      await this.clean()
      if (!this.#isClosed) this.start()
    }, delay).unref()
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  /** Deletes the rows that are too old, unless another process does. */
  async clean (): Promise<void> {
    const { dialect, session, statements, id, interval, keep, keepNewest, cleaning } = this.#options
    try {
      if (!session.isReady || !await statements.takeCleaning(session, id, interval / 2)) return
      while (!this.#isClosed && await this.#thin(keep));
      while (!this.#isClosed && await this.#forget(keepNewest));
      cleaning.end()
      this.#failures = 0
    } catch (error) {
      if (dialect.failureOf(error) !== 'passing' || ++this.#failures > UNREPORTED) cleaning.fail(error as Error)
    }
  }

  /** Deletes old rows but for the newest one of each group. @returns whether there may be more */
  async #thin (age: number): Promise<boolean> {
    const { session, statements } = this.#options
    const { epoch, old, thinned } = await this.#readOld('thinned', age)
    const last = old.at(-1)
    if (last === undefined) return false
    await statements.mark(session, 'thinned', epoch, last.id)
    const newest = new Map(old.map(({ group, id }) => [group, id]))
    const before = await statements.readTops(session, [...newest.keys()], thinned)
    const others = old.filter(({ group, id }) => newest.get(group) !== id).map(({ id }) => id)
    await statements.delete(session, [...before.values(), ...others])
    return old.length === PORTION
  }

  /** Deletes rows that are older still. @returns whether there may be more */
  async #forget (age: number): Promise<boolean> {
    const { session, statements } = this.#options
    const { epoch, old } = await this.#readOld('forgotten', age)
    const last = old.at(-1)
    if (last === undefined) return false
    await statements.mark(session, 'forgotten', epoch, last.id)
    await statements.delete(session, old.map(({ id }) => id))
    return old.length === PORTION
  }

  /** Reads the oldest rows after a mark that are old, without the newest row of the log, which readers need. */
  async #readOld (mark: 'thinned' | 'forgotten', age: number) {
    const { session, statements } = this.#options
    const { [mark]: from } = await statements.readFrom(session, 0, 0)
    const { epoch, rows, now, thinned } = await statements.readFrom(session, from + 1, PORTION + 1)
    const end = rows.findIndex(({ createdAt }) => now - createdAt < age)
    const old: LogRow[] = rows.slice(0, end === -1 ? rows.length : end)
    return { epoch, old: old.slice(0, Math.min(old.length, rows.length - 1, PORTION)), thinned }
  }
}
