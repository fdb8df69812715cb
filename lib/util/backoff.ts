/** Exponential backoff with full jitter: random delays, whose upper bound doubles with each failed attempt. */
export class Backoff {
  readonly #min: number
  readonly #max: number
  #attempts = 0

  /**
   * @param min upper bound of the first delay, in milliseconds
   * @param max maximum upper bound, in milliseconds
   */
  constructor (min: number, max: number) {
    this.#min = min
    this.#max = max
  }

  /** Whether no delay was taken since the last success. */
  get isFresh (): boolean {
    return this.#attempts === 0
  }

  /**
   * Returns the next delay in milliseconds. It is random, so that processes that fail at the same time do not retry at
   * the same time.
   */
  next (): number {
    const bound = Math.min(this.#max, this.#min * 2 ** this.#attempts++)
    return Math.ceil(Math.random() * bound)
  }

  /** Starts again with the first delay, after a success. */
  reset (): void {
    this.#attempts = 0
  }
}
