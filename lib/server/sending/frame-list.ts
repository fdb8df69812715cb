/** The frames that go to one client in one turn, in order. Clients that are sent the same share one list, and so its buffers. */
import type { Frame } from './frame.ts'

/** Frames from this size on are not joined with others, in bytes: a slow client would keep a copy of its own. */
const LARGE = 16_384

/** Some frames. A list never changes: one frame more makes another list. */
export class FrameList {
  readonly #before: FrameList | undefined
  readonly #last: Frame | undefined
  /** The list that went on from this one last: who else goes on with the same frame comes next, as a group's members do. */
  #next: FrameList | undefined
  #bytes: Buffer | readonly Buffer[] | undefined

  /** Without arguments the empty list from which others go on. */
  constructor (before?: FrameList, last?: Frame) {
    this.#before = before
    this.#last = last
  }

  /** This list and one frame more. */
  with (frame: Frame): FrameList {
    if (this.#next === undefined || this.#next.#last !== frame) this.#next = new FrameList(this, frame)
    return this.#next
  }

  /** The frames in order. */
  get frames (): readonly Frame[] {
    const frames: Frame[] = []
    for (let list: FrameList | undefined = this; list !== undefined; list = list.#before) {
      if (list.#last !== undefined) frames.push(list.#last)
    }
    return frames.reverse()
  }

  /** The frames as they are written: in most lists one buffer. Small frames are joined, large ones are left as they are. */
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
  return length < LARGE
}
