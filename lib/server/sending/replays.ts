/**
 * Replays of missed messages to one client. Frames are sent in portions, each after the socket has written the one
 * before: all of them at once would make a healthy client a slow consumer.
 */
import type { Frame } from './frame.ts'

/** Replayed bytes that may be unsent before the replay pauses. */
const MAX_UNSENT = 65_536

/** The replays of one client; they run one after another. */
export class Replays {
  readonly #send: (frame: Frame) => void
  readonly #queue: (() => Frame | undefined)[] = []
  /** Replayed bytes that the socket has not finished writing, and the part of them that still waits for the flush. */
  #unsent = 0
  #unflushed = 0

  constructor (send: (frame: Frame) => void) {
    this.#send = send
  }

  /**
   * Adds a replay: the frames that `next` returns, until it returns `undefined`. It starts when all earlier replays
   * have ended.
   */
  add (next: () => Frame | undefined): void {
    this.#queue.push(next)
    this.#play()
  }

  /** Removes a replay from the queue. */
  drop (next: () => Frame | undefined): void {
    const index = this.#queue.indexOf(next)
    if (index >= 0) this.#queue.splice(index, 1)
  }

  /**
   * Called before the send queue writes its frames.
   *
   * @returns the callback of that write; `undefined` if it includes no replayed frames
   */
  beforeWrite (): (() => void) | undefined {
    const bytes = this.#unflushed
    if (bytes === 0) return undefined
    this.#unflushed = 0
    return () => {
      this.#unsent -= bytes
      this.#play()
    }
  }

  #play (): void {
    while (this.#unsent < MAX_UNSENT) {
      const [next] = this.#queue
      if (next === undefined) return
      const frame = next()
      if (frame === undefined) {
        this.#queue.shift()
      } else {
        this.#send(frame)
        this.#unsent += frame.bytes.length
        this.#unflushed += frame.bytes.length
      }
    }
  }
}
