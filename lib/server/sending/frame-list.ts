/**
 * The frames that one socket is sent in one turn of the event loop. Lists are immutable and linked to the list before:
 * sockets that are sent the same frames share one list, and so its joined bytes.
 */
import type { Frame } from './frame.ts'

/**
 * Frames of at least this size, in bytes, are not joined with others: each slow client would keep a joined copy of its
 * own.
 */
const LARGE_FRAME = 16_384

/** See the head of the file. */
export class FrameList {
  readonly #parent: FrameList | undefined
  readonly #frame: Frame | undefined
  /** Last child. Members of a group append the same frame one after another, so they share this child. */
  #child: FrameList | undefined
  #bytes: Buffer | readonly Buffer[] | undefined

  /** Without arguments, the empty list of a turn. */
  constructor (parent?: FrameList, frame?: Frame) {
    this.#parent = parent
    this.#frame = frame
  }

  /** Returns the list with one more frame at its end. */
  append (frame: Frame): FrameList {
    if (this.#child === undefined || this.#child.#frame !== frame) this.#child = new FrameList(this, frame)
    return this.#child
  }

  /** The frames in order. */
  get frames (): readonly Frame[] {
    const frames: Frame[] = []
    for (let list: FrameList | undefined = this; list !== undefined; list = list.#parent) {
      if (list.#frame !== undefined) frames.push(list.#frame)
    }
    return frames.reverse()
  }

  /**
   * The bytes of the frames in order: one buffer for most lists. Consecutive small frames are joined, large frames stay
   * as they are.
   */
  get bytes (): Buffer | readonly Buffer[] {
    this.#bytes ??= this.#join()
    return this.#bytes
  }

  #join (): Buffer | readonly Buffer[] {
    const buffers = this.frames.map(({ bytes }) => bytes)
    const [first] = buffers
    if (first !== undefined && buffers.length === 1) return first
    if (buffers.every(isSmall)) return Buffer.concat(buffers)

    const joined: Buffer[] = []
    for (let from = 0; from < buffers.length;) {
      const large = buffers.findIndex((buffer, index) => index >= from && !isSmall(buffer))
      const to = large === -1 ? buffers.length : large
      if (to > from) joined.push(Buffer.concat(buffers.slice(from, to)))
      joined.push(...buffers.slice(to, to + 1))
      from = to + 1
    }
    return joined
  }
}

function isSmall ({ length }: Buffer): boolean {
  return length < LARGE_FRAME
}
