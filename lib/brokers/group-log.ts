/** The last messages of one group, in a ring. */
import { randomBytes } from 'node:crypto'
import type { HistoryEntry, Position } from './broker.ts'
import type { HistoryOptions } from './history.ts'

interface Kept extends HistoryEntry {
  /** When it was published. */
  readonly at: number
}

/** Forgets messages that are too many or too old, but not how many there were. */
export class GroupLog {
  /** When the last subscriber went; `undefined` while there is one. */
  leftAt: number | undefined
  readonly #options: HistoryOptions
  /** The message with the offset `n` is at `(n - 1) % size`. */
  readonly #ring: (Kept | undefined)[] = []
  /** The offset of the oldest message that is kept. */
  #first = 1
  #top: Position = { epoch: randomBytes(6).toString('base64url'), offset: 0 }

  constructor (options: HistoryOptions) {
    this.#options = options
  }

  /** The position of the last message. */
  get top (): Position {
    return this.#top
  }

  /** Adds a message. @returns its position */
  append (payload: string, now: number): Position {
    const { size } = this.#options
    const position = { epoch: this.#top.epoch, offset: this.#top.offset + 1 }
    this.#ring[(position.offset - 1) % size] = { payload, position, at: now }
    this.#top = position
    this.#first = Math.max(this.#first, position.offset - size + 1)
    return position
  }

  /** See `Broker.history`. */
  after ({ epoch, offset }: Position, limit: number, bytes: number, now: number): HistoryEntry[] | undefined {
    this.expire(now)
    if (epoch !== this.#top.epoch || offset > this.#top.offset || offset < this.#first - 1) return undefined

    const entries: HistoryEntry[] = []
    let left = bytes
    for (let at = offset; at < this.#top.offset && entries.length < limit; at++) {
      const kept = this.#ring[at % this.#options.size] as Kept
      left -= Buffer.byteLength(kept.payload)
      if (left < 0) break
      entries.push(kept)
    }
    return entries
  }

  /** Forgets the messages that are too old. */
  expire (now: number): void {
    const { size, ttl } = this.#options
    for (;;) {
      const slot = (this.#first - 1) % size
      const kept = this.#ring[slot]
      if (kept === undefined || now - kept.at < ttl) return
      this.#ring[slot] = undefined
      this.#first++
    }
  }
}
