/** A worst-case network broker: every answer is late, messages lag behind their log, and history is lost. */
import type { Broker, HistoryEntry, Position, Receiver } from '../../../lib/index.ts'

interface Log {
  /** For each epoch the number of the last message before it: numbers continue over epochs. */
  bases: number[]
  /** The messages of the last epoch. */
  entries: HistoryEntry[]
  /** The number of trimmed entries. */
  trimmed: number
  /** The number of delivered entries; `undefined` while the group is not subscribed. */
  delivered: number | undefined
}

/** A call that waits for the test. */
interface Gate {
  readonly open: () => void
  readonly fail: () => void
}

export class LaggingBroker implements Broker {
  readonly keepsHistory = true
  readonly hasSparseOffsets: boolean
  /** The difference between the offsets of two messages. */
  readonly #stride: number
  #subscribed = 0
  readonly #logs = new Map<string, Log>()
  #receiver: Receiver | undefined
  #gates: Gate[] = []
  /** Whether calls are answered at once. */
  isPrompt = false

  constructor (stride = 1) {
    this.#stride = stride
    this.hasSparseOffsets = stride > 1
  }

  open (receiver: Receiver): void {
    this.#receiver = receiver
  }

  /** Adds the message `{ n }` with the next number. */
  publish (group: string, payload: string): void {
    const log = this.#logOf(group)
    log.entries.push({ payload, position: { epoch: epochOf(log), offset: (log.entries.length + 1) * this.#stride } })
  }

  async subscribe (group: string): Promise<Position> {
    await this.#gate()
    const log = this.#logOf(group)
    log.delivered = log.entries.length
    // the position of an empty group rises from one call to the next, as far as there is room before the first message
    return { epoch: epochOf(log), offset: log.delivered * this.#stride || Math.min(this.#subscribed++, this.#stride - 1) }
  }

  async unsubscribe (group: string): Promise<void> {
    this.#logOf(group).delivered = undefined
    await this.#gate()
  }

  async history (group: string, after: Position, limit: number): Promise<HistoryEntry[] | undefined> {
    await this.#gate()
    const { epoch } = after
    const offset = Math.floor(after.offset / this.#stride)
    const log = this.#logOf(group)
    const { entries, trimmed } = log
    if (epoch !== epochOf(log) || offset < trimmed || offset > entries.length) return undefined
    const found = entries.slice(offset, offset + limit)
    // other steps may precede the answer
    await this.#gate()
    return found
  }

  health () {
    return { ok: true }
  }

  close (): void {}

  /** Delivers up to so many messages of a group. */
  deliver (group: string, count: number): void {
    const log = this.#logOf(group)
    for (let n = 0; n < count && log.delivered !== undefined; n++) {
      const entry = log.entries[log.delivered]
      if (entry === undefined) return
      log.delivered++
      this.#receiver?.deliver(group, entry.payload, entry.position)
    }
  }

  /** Loses all history of a group, with its undelivered messages. */
  lose (group: string): void {
    const log = this.#logOf(group)
    log.bases.push(this.last(group))
    log.entries = []
    log.trimmed = 0
    if (log.delivered === undefined) return
    log.delivered = 0
    this.#receiver?.lost(group, { epoch: epochOf(log), offset: 0 })
  }

  /** Trims delivered messages from the history. */
  trim (group: string, count: number): void {
    const log = this.#logOf(group)
    log.trimmed = Math.min(log.entries.length, log.trimmed + count)
  }

  /** Answers a call, or rejects it. */
  answer (index: number, how: 'open' | 'fail'): void {
    const [gate] = this.#gates.splice(index % Math.max(1, this.#gates.length), 1)
    gate?.[how]()
  }

  /** Answers all calls, and all later calls at once. */
  settle (): void {
    this.isPrompt = true
    for (const { open } of this.#gates.splice(0)) open()
  }

  /** The number of the message at a position, or of the last one before it. */
  numberOf (group: string, { epoch, offset }: Position): number {
    return (this.#logOf(group).bases[Number(epoch.slice(1))] ?? NaN) + Math.floor(offset / this.#stride)
  }

  /** The epoch of a message by its number. */
  epochOf (group: string, number: number): number {
    return this.#logOf(group).bases.findLastIndex((base) => base < number)
  }

  /** The number of the last message of a group. */
  last (group: string): number {
    const { bases, entries } = this.#logOf(group)
    return (bases.at(-1) ?? 0) + entries.length
  }

  #logOf (group: string): Log {
    let log = this.#logs.get(group)
    if (log === undefined) this.#logs.set(group, log = { bases: [0], entries: [], trimmed: 0, delivered: undefined })
    return log
  }

  async #gate (): Promise<void> {
    if (this.isPrompt) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#gates.push({ open: resolve, fail: () => reject(new Error('not now')) })
    await promise
  }
}

function epochOf ({ bases }: Log): string {
  return `e${bases.length - 1}`
}
