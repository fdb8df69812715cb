/**
 * The heartbeat of a server: pings all connections in each interval, spread over it, so that no turn of the event loop
 * pings all at once.
 */

/** A connection as the heartbeat uses it. */
export interface HeartbeatConnection {
  /** Called once in each interval. */
  beat (): void
}

/** The largest number of steps in an interval. */
const MAX_STEPS = 64
/** The shortest time between two steps, in milliseconds. */
const MIN_STEP_TIME = 50

/** Calls `beat` of each connection once in each interval, a part of the connections in each step. */
export class Heartbeat {
  readonly #steps: readonly Set<HeartbeatConnection>[]
  readonly #timer: NodeJS.Timeout
  #added = 0
  #next = 0

  /** @param interval milliseconds */
  constructor (interval: number) {
    const count = Math.max(1, Math.min(MAX_STEPS, Math.floor(interval / MIN_STEP_TIME)))
    this.#steps = Array.from({ length: count }, () => new Set())
    this.#timer = setInterval(() => this.#step(), interval / count).unref()
  }

  add (connection: HeartbeatConnection): void {
    this.#steps[this.#added % this.#steps.length]?.add(connection)
    this.#added++
  }

  delete (connection: HeartbeatConnection): void {
    this.#steps.some((connections) => connections.delete(connection))
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  #step (): void {
    this.#steps[this.#next]?.forEach((connection) => connection.beat())
    this.#next = (this.#next + 1) % this.#steps.length
  }
}
