/** Listeners by name, the part of Node's EventEmitter that rohrpost-js offers. */

/** A function that is called with what an event carries. */
type Listener = (...args: never) => void

type Entry = readonly [name: string, listener: Listener, once: boolean]

/** Calls listeners in the order in which they were added. One that throws harms neither the others nor the client. */
export class Emitter {
  /** Replaced at each change: a round of calls goes on with the list that it began with. */
  #entries: readonly Entry[] = []

  /** Adds a listener, for good or for the next time only. */
  add (name: string, listener: Listener, once: boolean): void {
    this.#entries = [...this.#entries, [name, listener, once]]
  }

  /** Takes a listener away: the one that was added last, if it was added several times. */
  remove (name: string, listener: Listener): void {
    this.#drop(this.#entries.findLast((entry) => entry[0] === name && entry[1] === listener))
  }

  /** Calls the listeners that are there now. */
  emit (name: string, ...args: unknown[]): void {
    for (const entry of this.#entries) {
      const [own, listener, once] = entry
      if (own !== name) continue
      if (once) this.#drop(entry)
      attempt(() => listener(...args as never))
    }
  }

  #drop (dropped: Entry | undefined): void {
    this.#entries = this.#entries.filter((entry) => entry !== dropped)
  }
}

/** Runs code of the application: what it throws is uncaught, as in any event listener, but interrupts nothing of ours. */
export function attempt (run: () => void): void {
  try {
    run()
  } catch (error) {
    queueMicrotask(() => { throw error })
  }
}
