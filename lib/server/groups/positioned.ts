/** What those see of a group's messages who asked for positions. See PROTOCOL.md, "Recovery". */
import type { Position } from '../../brokers/broker.ts'
import { quote } from '../../protocol/encode.ts'
import { Frame } from '../sending/frame.ts'

/** A message with its place in the group's log. */
export class Positioned {
  readonly position: Position
  readonly #group: string
  readonly #payload: string
  #frame: Frame | undefined
  #plain: Frame | undefined
  #bytes: number | undefined

  constructor (group: string, payload: string, position: Position) {
    this.#group = group
    this.#payload = payload
    this.position = position
  }

  /** Made once, when the first one needs it: all who hear the message share it. */
  get frame (): Frame {
    this.#frame ??= new Frame(withPosition(this.#payload, this.#group, this.position))
    return this.#frame
  }

  /** The message without its place, for members that ask for no positions; shared as `frame` is. */
  get plain (): Frame {
    this.#plain ??= new Frame(this.#payload)
    return this.#plain
  }

  /** The size of the payload. */
  get bytes (): number {
    this.#bytes ??= Buffer.byteLength(this.#payload)
    return this.#bytes
  }
}

/** Says that messages of a group are missing at this place, and where it goes on. */
export function makeResync (group: string, top: Position | undefined): Frame {
  const text = JSON.stringify({ type: 'subscription-update', data: { type: 'resync', group } })
  return new Frame(top === undefined ? text : withPosition(text, group, top))
}

/** Puts a position into the text of a JSON object, as its last field, without parsing it. */
function withPosition (payload: string, group: string, { epoch, offset }: Position): string {
  const head = payload.slice(0, payload.lastIndexOf('}')).trimEnd()
  const comma = head.endsWith('{') ? '' : ','
  return `${head}${comma}"position":{"group":${quote(group)},"epoch":${quote(epoch)},"offset":${offset}}}`
}
