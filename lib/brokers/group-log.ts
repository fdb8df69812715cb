/** The log of one group in memory: its last messages, in a ring buffer. */
import { randomBytes } from 'node:crypto'
import type { HistoryEntry, Position } from './broker.ts'
import type { HistoryOptions } from './history.ts'

interface LoggedMessage extends HistoryEntry {
  /** Time of `append`, in milliseconds as `Date.now()` gives it. */
  readonly at: number
}

/** Keeps the last `size` messages that are younger than `ttl`. Offsets count all messages. */
export class GroupLog {
  /** Time when the last subscriber left; `undefined` while the group has one. */
  leftAt: number | undefined
  readonly #options: HistoryOptions
  /** Ring buffer: the message with the offset `n` is at `(n - 1) % size`. */
  readonly #ring: (LoggedMessage | undefined)[] = []
  /** Offset of the oldest message in the ring. */
  #first = 1
  #top: Position = { epoch: randomBytes(6).toString('base64url'), offset: 0 }

  constructor (options: HistoryOptions) {
    this.#options = options
  }

  /** Position of the last message. */
  get top (): Position {
    return this.#top
  }

  /** Appends a message and returns its position. */
  append (payload: string, now: number): Position {
    const { size } = this.#options
    const position = { epoch: this.#top.epoch, offset: this.#top.offset + 1 }
    this.#ring[(position.offset - 1) % size] = { payload, position, at: now }
    this.#top = position
    this.#first = Math.max(this.#first, position.offset - size + 1)
    return position
  }

  /** Reads the messages after a position, as `Broker.history` does. */
  after ({ epoch, offset }: Position, limit: number, bytes: number, now: number): HistoryEntry[] | undefined {
    this.expire(now)
    if (epoch !== this.#top.epoch || offset > this.#top.offset || offset < this.#first - 1) return undefined

    const entries: HistoryEntry[] = []
    let left = bytes
    for (let at = offset; at < this.#top.offset && entries.length < limit; at++) {
      const message = this.#ring[at % this.#options.size] as LoggedMessage
      left -= Buffer.byteLength(message.payload)
      if (left < 0) break
      entries.push(message)
    }
    return entries
  }

  /** Deletes the messages that are older than `ttl`. */
  expire (now: number): void {
    const { size, ttl } = this.#options
    for (;;) {
      const slot = (this.#first - 1) % size
      const oldest = this.#ring[slot]
      if (oldest === undefined || now - oldest.at < ttl) return
      this.#ring[slot] = undefined
      this.#first++
    }
  }
}
