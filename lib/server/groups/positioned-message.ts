/** Messages with positions, for members that can recover. See PROTOCOL.md, "Recovery". */
import type { Position } from '../../brokers/broker.ts'
import { quote } from '../../protocol/encode.ts'
import { Frame } from '../sending/frame.ts'

/** A message of a group with its position in the group's log. Its frames are made when the first member needs them. */
export class PositionedMessage {
  readonly position: Position
  readonly #group: string
  readonly #payload: string
  #frame: Frame | undefined
  #plainFrame: Frame | undefined
  #bytes: number | undefined

  constructor (group: string, payload: string, position: Position) {
    this.#group = group
    this.#payload = payload
    this.position = position
  }

  /** The message with its position. All members share the frame. */
  get frame (): Frame {
    this.#frame ??= new Frame(withPosition(this.#payload, this.#group, this.position))
    return this.#frame
  }

  /** The message without its position, for members without positions. */
  get plainFrame (): Frame {
    this.#plainFrame ??= new Frame(this.#payload)
    return this.#plainFrame
  }

  /** Size of the payload. */
  get bytes (): number {
    this.#bytes ??= Buffer.byteLength(this.#payload)
    return this.#bytes
  }
}

/**
 * The `resync` message: messages of the group are lost at this place in the order, and the log continues after `top`.
 */
export function makeResync (group: string, top: Position | undefined): Frame {
  const text = JSON.stringify({ type: 'subscription-update', data: { type: 'resync', group } })
  return new Frame(top === undefined ? text : withPosition(text, group, top))
}

/** Adds a position to the text of a JSON object, as its last field, without parsing the text. */
function withPosition (payload: string, group: string, { epoch, offset }: Position): string {
  const head = payload.slice(0, payload.lastIndexOf('}')).trimEnd()
  const comma = head.endsWith('{') ? '' : ','
  return `${head}${comma}"position":{"group":${quote(group)},"epoch":${quote(epoch)},"offset":${offset}}}`
}
