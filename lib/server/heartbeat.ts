/** The heartbeat of all connections of a server, spread over the interval: no turn of the event loop has to ping all of them. */

/** A connection as the heartbeat sees it. */
export interface Beating {
  /** Called once in each interval. */
  beat (): void
}

/** The most portions of an interval, and the shortest time between two of them in milliseconds. */
const MAX_PORTIONS = 64
const MIN_STEP = 50

/** Calls `beat` of each connection once in each interval, in portions of equal size. */
export class Heartbeat {
  readonly #portions: readonly Set<Beating>[]
  readonly #timer: NodeJS.Timeout
  #added = 0
  #next = 0

  /** @param interval milliseconds */
  constructor (interval: number) {
    const count = Math.max(1, Math.min(MAX_PORTIONS, Math.floor(interval / MIN_STEP)))
    this.#portions = Array.from({ length: count }, () => new Set())
    this.#timer = setInterval(() => this.#beat(), interval / count).unref()
  }

  add (connection: Beating): void {
    this.#portions[this.#added % this.#portions.length]?.add(connection)
    this.#added++
  }

  delete (connection: Beating): void {
    this.#portions.some((portion) => portion.delete(connection))
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  #beat (): void {
    this.#portions[this.#next]?.forEach((connection) => connection.beat())
    this.#next = (this.#next + 1) % this.#portions.length
  }
}
