/** Keeps the order of commits: what is told of a row goes out in the order in which its transactions held the lock. */

/** How long a transaction waits for the answer to the COMMIT of another one that changed a row before it, in milliseconds. */
const PATIENCE = 5000

/** The place of a transaction among those that changed the same rows. */
export interface Turn {
  /** Whether a later transaction went first, because the answer to this COMMIT took too long. */
  readonly isOvertaken: boolean
  /**
   * The outcome is known: runs `tell` once all earlier transactions with the same rows have told theirs, at once if there are none.
   * The turn is over when `tell`, or the promise that it gives, is done.
   */
  end (tell: () => void | Promise<void>): void
}

/** The transactions whose COMMIT is under way, by the rows that they changed. */
export class CommitOrder {
  readonly #patience: number
  readonly #last = new Map<string, PendingTurn>()

  constructor (patience = PATIENCE) {
    this.#patience = patience
  }

  /** Takes a turn: just before the COMMIT, when the transaction holds the locks of all its rows. */
  enter (rows: Iterable<string>): Turn {
    return new PendingTurn(rows, this.#last, this.#patience)
  }
}

class PendingTurn implements Turn {
  readonly #rows: readonly string[]
  readonly #last: Map<string, PendingTurn>
  readonly #patience: number
  /** Earlier turns that are not over. */
  readonly #earlier = new Set<PendingTurn>()
  readonly #later = new Set<PendingTurn>()
  #tell: (() => void | Promise<void>) | undefined
  #timer: NodeJS.Timeout | undefined
  isOvertaken = false

  constructor (rows: Iterable<string>, last: Map<string, PendingTurn>, patience: number) {
    this.#rows = [...rows]
    this.#last = last
    this.#patience = patience
    for (const row of this.#rows) {
      const before = last.get(row)
      last.set(row, this)
      if (before === undefined || before === this) continue
      this.#earlier.add(before)
      before.#later.add(this)
    }
  }

  end (tell: () => void | Promise<void>): void {
    this.#tell = tell
    if (this.#earlier.size === 0) return this.#run(tell)

    this.#timer = setTimeout(() => {
      for (const turn of this.#earlier) turn.#overtake(this)
      this.#earlier.clear()
      this.#run(tell)
    }, this.#patience)
    this.#timer.unref()
  }

  /** What this turn tells from now on is older than what the rows' next transaction told. */
  #overtake (later: PendingTurn): void {
    this.isOvertaken = true
    this.#later.delete(later)
  }

  #run (tell: () => void | Promise<void>): void {
    clearTimeout(this.#timer)
    const telling = tell()
    if (telling === undefined) this.#leave()
    else telling.then(() => this.#leave(), () => this.#leave())
  }

  #leave (): void {
    for (const row of this.#rows) {
      if (this.#last.get(row) === this) this.#last.delete(row)
    }
    for (const turn of this.#later) {
      turn.#earlier.delete(this)
      if (turn.#earlier.size === 0 && turn.#tell !== undefined) turn.#run(turn.#tell)
    }
  }
}
