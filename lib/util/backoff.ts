/** Growing, random delays between the attempts to do something that keeps failing. */
export class Backoff {
  readonly #min: number
  readonly #max: number
  #attempts = 0

  /** @param min the bound of the first delay @param max the largest bound, both in milliseconds */
  constructor (min: number, max: number) {
    this.#min = min
    this.#max = max
  }

  /** Whether no attempt has failed since the last success. */
  get isFresh (): boolean {
    return this.#attempts === 0
  }

  /**
   * The next delay in milliseconds: a random one up to a bound that doubles each time ("full jitter"), so that processes that fail together
   * do not try again together.
   */
  next (): number {
    const bound = Math.min(this.#max, this.#min * 2 ** this.#attempts++)
    return Math.ceil(Math.random() * bound)
  }

  /** Starts over after a success. */
  reset (): void {
    this.#attempts = 0
  }
}
