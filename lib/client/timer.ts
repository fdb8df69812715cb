/** Timers that can be off. */

/** The longest delay of a timer, in milliseconds; browsers and Node.js run a timer with a longer one at once. */
export const MAX_DELAY = 2 ** 31 - 1

/** A timer for one function at a time. */
export class Timer {
  #id: ReturnType<typeof setTimeout> | undefined

  /** Calls a function after a delay, unless the timer is already running. `Infinity` is never. */
  start (delay: number, run: () => void): void {
    if (delay === Infinity) return
    this.#id ??= setTimeout(() => {
      this.#id = undefined
      run()
    }, Math.min(delay, MAX_DELAY))
  }

  stop (): void {
    clearTimeout(this.#id)
    this.#id = undefined
  }
}
