/** The states of rows in the messages of one call, as the publish script reads and logs them. */
import type { PublishOptions, Stamp } from '../broker.ts'

/** The states whose stamps have one clock. */
interface ClockStates {
  /** The smallest value; empty if an older state follows a newer one. */
  low: string
  top: string
  /** Whether a message has an id, so that an equal value may be a repeat. */
  hasIds: boolean
  /** The batch and the value of the last line. */
  batch: number
  value: string
  lines: string
}

/**
 * Collects the states of a call: for each batch a line `=batch group`, for each age in it `@value`, and for each state
 * `index part id key`, with the index of the message in the batch, and `-` for no id.
 */
export class CallStates {
  readonly #clocks = new Map<string, ClockStates>()
  #batch = -1
  #group = ''

  /** Begins the next batch. */
  beginBatch (group: string): void {
    this.#batch++
    this.#group = group
  }

  /** Adds the states of a message. */
  add (index: number, { stamps = [], id }: PublishOptions): void {
    for (const stamp of stamps) {
      if (isComplete(stamp)) this.#addState(index, stamp, id)
    }
  }

  /** Returns the number of clocks, and four arguments for each. */
  encode (): string[] {
    const args = [String(this.#clocks.size)]
    for (const [name, { low, top, hasIds, lines }] of this.#clocks) {
      args.push(name, hasIds && low !== '' ? before(low) : low, top, lines)
    }
    return args
  }

  #addState (index: number, { key, part, clock, value }: Stamp, id: string | undefined): void {
    // values of another length can't be compared
    const name = `${clock}:${value.length}`
    let states = this.#clocks.get(name)
    if (states === undefined) {
      states = { low: value, top: value, hasIds: false, batch: -1, value: '', lines: '' }
      this.#clocks.set(name, states)
    }
    if (value < states.top) states.low = ''
    else states.top = value
    if (id !== undefined) states.hasIds = true
    if (states.batch !== this.#batch) states.lines += `=${this.#batch} ${this.#group}\n`
    if (states.batch !== this.#batch || states.value !== value) states.lines += `@${value}\n`
    states.batch = this.#batch
    states.value = value
    states.lines += `${index} ${part} ${id ?? '-'} ${key.includes('\n') ? encodeURIComponent(key) : key}\n`
  }
}

/** Whether the publish script can read a stamp. A message with another one is published without comparing it. */
function isComplete ({ part, clock, value }: Stamp): boolean {
  return /^\w+$/.test(part) && /^\S+$/.test(clock) && /^\d+$/.test(value)
}

/** Returns the value before a value, or zero. */
function before (value: string): string {
  return String(BigInt(value) - (/[1-9]/.test(value) ? 1n : 0n)).padStart(value.length, '0')
}
