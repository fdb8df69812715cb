/** Where the two ends of a lasting failure are told. */
export interface TroubleEvents {
  began (error: Error): void
  /** @param failures how many there were, the first one included */
  ended (failures: number): void
}

/** A failure that may last. It is told when it begins and when it ends; the failures between the two are counted. */
export class Trouble {
  readonly #events: TroubleEvents
  #failures = 0
  #error: Error | undefined

  constructor (events: TroubleEvents) {
    this.#events = events
  }

  /** The latest failure; `undefined` while all is well. */
  get error (): Error | undefined {
    return this.#error
  }

  /** Takes note of a failure. */
  fail (error: Error): void {
    this.#error = error
    if (++this.#failures === 1) this.#events.began(error)
  }

  /** Takes note of a success. */
  end (): void {
    if (this.#failures === 0) return
    const failures = this.#failures
    this.#failures = 0
    this.#error = undefined
    this.#events.ended(failures)
  }
}
