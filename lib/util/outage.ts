/** Listeners for the start and the end of an outage. */
export interface OutageEvents {
  began (error: Error): void
  /** @param failures number of failures during the outage */
  ended (failures: number): void
}

/**
 * Outage of a dependency. The first failure and the next success are reported; failures between them are only counted.
 */
export class Outage {
  readonly #events: OutageEvents
  #failures = 0
  #error: Error | undefined

  constructor (events: OutageEvents) {
    this.#events = events
  }

  /** Last failure; `undefined` while there is no outage. */
  get error (): Error | undefined {
    return this.#error
  }

  /** Records a failure. */
  fail (error: Error): void {
    this.#error = error
    if (++this.#failures === 1) this.#events.began(error)
  }

  /** Records a success. */
  end (): void {
    if (this.#failures === 0) return
    const failures = this.#failures
    this.#failures = 0
    this.#error = undefined
    this.#events.ended(failures)
  }
}
