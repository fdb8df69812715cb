/** What goes to one client in one turn, in order. Clients that are sent the same share one list, and so its joined bytes. */
import type { Frame } from './frame.ts'

/** Some frames. A list never changes: one frame more makes another list. */
export class FrameList {
  readonly #before: FrameList | undefined
  readonly #last: Frame | undefined
  /** The list that went on from this one last: who else goes on with the same frame comes next, as a group's members do. */
  #next: FrameList | undefined
  #bytes: Buffer | undefined

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

  /** The frames joined; those of a single one are its own. */
  get bytes (): Buffer {
    this.#bytes ??= this.#join()
    return this.#bytes
  }

  #join (): Buffer {
    const { frames } = this
    const [first] = frames
    return first !== undefined && frames.length === 1 ? first.bytes : Buffer.concat(frames.map(({ bytes }) => bytes))
  }
}
