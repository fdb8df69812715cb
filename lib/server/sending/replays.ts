/** What one client missed, sent in portions while it reads: so much at once would make a slow client of a healthy one. */
import type { Frame } from './frame.ts'

/** Bytes that are on their way at once. */
const PORTION = 65_536

/** The replays of one client, one after another. */
export class Replays {
  readonly #send: (frame: Frame) => void
  readonly #waiting: (() => Frame | undefined)[] = []
  /** Bytes that were sent and that the line has not taken yet, and those of them that were not even written. */
  #unsent = 0
  #unwritten = 0

  constructor (send: (frame: Frame) => void) {
    this.#send = send
  }

  /** Sends what `next` gives, until it gives nothing, once all replays before have ended. */
  add (next: () => Frame | undefined): void {
    this.#waiting.push(next)
    this.#play()
  }

  /** Drops a replay, if it waits. */
  drop (next: () => Frame | undefined): void {
    const index = this.#waiting.indexOf(next)
    if (index >= 0) this.#waiting.splice(index, 1)
  }

  /** All that was sent is about to be written. @returns what is to be called when the line has taken it */
  written (): (() => void) | undefined {
    const bytes = this.#unwritten
    if (bytes === 0) return undefined
    this.#unwritten = 0
    return () => {
      this.#unsent -= bytes
      this.#play()
    }
  }

  #play (): void {
    while (this.#unsent < PORTION) {
      const [next] = this.#waiting
      if (next === undefined) return
      const frame = next()
      if (frame === undefined) {
        this.#waiting.shift()
      } else {
        this.#send(frame)
        this.#unsent += frame.bytes.length
        this.#unwritten += frame.bytes.length
      }
    }
  }
}
