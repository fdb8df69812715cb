/**
 * Missing ids of the log: a transaction that is still open, or that was rolled back, has drawn each of them. The reader
 * waits until it knows which of the two, and for a limited time.
 */
import type { Receiver } from '../broker.ts'
import type { Dialect, HoleWatch } from './dialect.ts'
import type { LogSession } from './log-session.ts'
import type { IdRange, LogRow, LogStatements } from './log-statements.ts'

/** Time limits for waiting at a missing id, in milliseconds. */
export interface GapPatience {
  usual: number
  /** While the log is opened. */
  opening: number
  /** For transactions that readers have given up waiting for before. */
  frozen: number
}

/** Options of `IdGap`, made by the reader. */
export interface IdGapOptions {
  receiver: Receiver
  dialect: Dialect
  session: LogSession
  statements: LogStatements
  patience: GapPatience
}

/** Missing ids, and the transactions that may own them. */
interface Hole {
  /** The last id that was visible when the watch began: the watch tells about all missing ids up to it. */
  readonly top: number
  readonly watch: HoleWatch
  readonly since: number
  isDecided: boolean
  delay: number
  /** The sessions behind the holders, for people to read. */
  sessions: string | undefined
}

/** Rows of the read that finds the ids to give up. */
const PAGE = 1001
/** The bounds of the delay before a missing id is looked for again, in milliseconds. */
const LOOK = { min: 2, max: 50 }

export class IdGap {
  readonly #options: IdGapOptions
  #hole: Hole | undefined
  #holes = 0
  #givenUp = 0

  constructor (options: IdGapOptions) {
    this.#options = options
  }

  /** Time for which the reader has been waiting, in milliseconds, and the transactions that it waits for. */
  get waiting (): { age: number, holders: string } | undefined {
    if (this.#hole === undefined) return undefined
    const { since, sessions, watch } = this.#hole
    return { age: performance.now() - since, holders: sessions ?? watch.holders }
  }

  /** How often the reader has waited, and how often it has stopped waiting before the transactions ended. */
  get counts (): { holes: number, givenUp: number } {
    return { holes: this.#holes, givenUp: this.#givenUp }
  }

  /** No id is missing any more. */
  end (): void {
    this.#hole = undefined
  }

  /** The number of rows before the first id that is missing and may still turn up. */
  countBefore (rows: readonly LogRow[], cursor: number): number {
    if (this.#options.dialect.watchHole === undefined) return rows.length
    const decided = this.#hole?.isDecided === true ? this.#hole.top : 0
    let last = cursor
    for (const [index, { id }] of rows.entries()) {
      if (id !== last + 1 && id > decided) return index
      last = id
    }
    return rows.length
  }

  /**
   * Waits at the id after the cursor.
   *
   * @param rows the rows behind it
   * @returns after how many milliseconds to read again; 0 for at once
   */
  async wait (rows: readonly LogRow[], cursor: number, isOpening: boolean): Promise<number> {
    const { dialect, session, patience } = this.#options
    const hole = this.#hole
    if (hole === undefined || cursor >= hole.top) {
      const watch = await dialect.watchHole?.(session) as HoleWatch
      const top = Math.max(...rows.map(({ id }) => id))
      const isDecided = watch.holders === ''
      if (!isDecided) this.#holes++
      this.#hole = { top, watch, since: performance.now(), isDecided, delay: LOOK.min, sessions: undefined }
      return 0
    }

    hole.isDecided = await hole.watch.isDecided()
    if (hole.isDecided) return 0
    const bound = hole.watch.isFrozen ? patience.frozen : isOpening ? patience.opening : patience.usual
    const age = performance.now() - hole.since
    if (age >= patience.frozen) hole.sessions ??= await hole.watch.describe()
    if (age >= bound) {
      await this.#giveUp(hole, cursor)
      return 0
    }
    const { delay } = hole
    hole.delay = Math.min(2 * delay, LOOK.max)
    return delay
  }

  /** Stops waiting: all processes are told for which ids, in case they turn up after all. */
  async #giveUp (hole: Hole, cursor: number): Promise<void> {
    const { receiver, session, statements } = this.#options
    const { watch, top, sessions } = hole
    const { rows } = await statements.readFrom(session, cursor, PAGE)
    await statements.pass(session, missingIds(cursor, rows.filter(({ id }) => id > cursor && id <= top)), watch.holders)
    this.#givenUp++
    if (!watch.isFrozen) {
      const text = `no longer waits for ${sessions}, which may have written to it without a commit or a rollback`
      receiver.error(new Error(`The log of groups ${text}`), { stage: 'deliver' })
    }
    watch.freeze()
    hole.isDecided = true
  }
}

function missingIds (after: number, rows: readonly LogRow[]): IdRange[] {
  const missing: IdRange[] = []
  let last = after
  for (const { id } of rows) {
    if (id > last + 1) missing.push({ first: last + 1, last: id - 1 })
    last = id
  }
  return missing
}
