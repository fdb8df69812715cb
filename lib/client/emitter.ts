/** Listeners by name, the part of Node's EventEmitter that rohrpost-js offers. */

/** A function that is called with what an event carries. */
type Listener = (...args: never) => void

interface Entry {
  listener: Listener
  once: boolean
}

/** Calls listeners in the order in which they were added. One that throws harms neither the others nor the client. */
export class Emitter {
  readonly #entries = new Map<string, readonly Entry[]>()

  /** Adds a listener, for good or for the next time only. */
  add (name: string, listener: Listener, once: boolean): void {
    this.#entries.set(name, [...this.#of(name), { listener, once }])
  }

  /** Takes a listener away: the one that was added last, if it was added several times. */
  remove (name: string, listener: Listener): void {
    this.#drop(name, this.#of(name).findLast((entry) => entry.listener === listener))
  }

  /** Calls the listeners that are there now. */
  emit (name: string, ...args: unknown[]): void {
    for (const entry of this.#of(name)) {
      if (entry.once) this.#drop(name, entry)
      attempt(() => entry.listener(...args as never))
    }
  }

  #of (name: string): readonly Entry[] {
    return this.#entries.get(name) ?? []
  }

  #drop (name: string, dropped: Entry | undefined): void {
    const rest = this.#of(name).filter((entry) => entry !== dropped)
    if (rest.length > 0) this.#entries.set(name, rest)
    else this.#entries.delete(name)
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
