/**
 * Order of commits within one process: the notifications of a row leave in the order in which its transactions held the
 * row lock.
 */

/** Time that a committed transaction waits for an earlier COMMIT of the same rows, in milliseconds. */
const TURN_TIMEOUT = 5000

/** The place of a transaction in the order of the commits that changed the same rows. */
export interface Turn {
  /** Whether a later transaction was published first, because the answer to this COMMIT took too long. */
  readonly isOvertaken: boolean
  /**
   * Ends the turn when the outcome of the COMMIT is known. Calls `publish` when all earlier turns with the same rows
   * are over, at once if there are none. The turn is over when `publish` returns, or its promise settles.
   */
  end (publish: () => void | Promise<void>): void
}

/** Turns of the transactions whose COMMIT is in progress, by changed row. */
export class CommitOrder {
  readonly #timeout: number
  readonly #last = new Map<string, PendingTurn>()

  constructor (timeout = TURN_TIMEOUT) {
    this.#timeout = timeout
  }

  /** Takes a turn just before the COMMIT, when the transaction holds the locks of all its rows. */
  enter (rows: Iterable<string>): Turn {
    return new PendingTurn(rows, this.#last, this.#timeout)
  }
}

class PendingTurn implements Turn {
  readonly #rows: readonly string[]
  readonly #last: Map<string, PendingTurn>
  readonly #timeout: number
  /** Earlier turns that are not over. */
  readonly #earlier = new Set<PendingTurn>()
  readonly #later = new Set<PendingTurn>()
  #publish: (() => void | Promise<void>) | undefined
  #timer: NodeJS.Timeout | undefined
  isOvertaken = false

  constructor (rows: Iterable<string>, last: Map<string, PendingTurn>, timeout: number) {
    this.#rows = [...rows]
    this.#last = last
    this.#timeout = timeout
    for (const row of this.#rows) {
      const before = last.get(row)
      last.set(row, this)
      if (before === undefined || before === this) continue
      this.#earlier.add(before)
      before.#later.add(this)
    }
  }

  end (publish: () => void | Promise<void>): void {
    this.#publish = publish
    if (this.#earlier.size === 0) return this.#run(publish)

    this.#timer = setTimeout(() => {
      for (const turn of this.#earlier) turn.#overtake(this)
      this.#earlier.clear()
      this.#run(publish)
    }, this.#timeout)
    this.#timer.unref()
  }

  /** Lets a later turn publish first: the notifications of this turn are older from now on. */
  #overtake (later: PendingTurn): void {
    this.isOvertaken = true
    this.#later.delete(later)
  }

  #run (publish: () => void | Promise<void>): void {
    clearTimeout(this.#timer)
    const publishing = publish()
    if (publishing === undefined) this.#leave()
    else publishing.then(() => this.#leave(), () => this.#leave())
  }

  #leave (): void {
    for (const row of this.#rows) {
      if (this.#last.get(row) === this) this.#last.delete(row)
    }
    for (const turn of this.#later) {
      turn.#earlier.delete(this)
      if (turn.#earlier.size === 0 && turn.#publish !== undefined) turn.#run(turn.#publish)
    }
  }
}
