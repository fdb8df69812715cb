/** Messages with positions, for members that can recover. See PROTOCOL.md, "Recovery". */
import type { Position } from '../../brokers/broker.ts'
import { quote } from '../../protocol/encode.ts'
import { encodeResync } from '../../protocol/resync.ts'
import { Frame } from '../sending/frame.ts'
import { GroupMessage, type FramedMessage } from './group-message.ts'

/** A message of a group with its position in the group's log. */
export class PositionedMessage implements FramedMessage {
  /** The message for members without positions. */
  readonly plain: GroupMessage
  readonly position: Position
  readonly #group: string
  #frame: Frame | undefined
  #parts: readonly Frame[] | undefined

  constructor (plain: GroupMessage, group: string, position: Position) {
    this.plain = plain
    this.#group = group
    this.position = position
  }

  get isBatch (): boolean {
    return this.plain.isBatch
  }

  get frame (): Frame {
    this.#frame ??= this.#withPosition(this.plain.payload)
    return this.#frame
  }

  /** The last part has the position: a client that has received only some parts misses the whole message. */
  get parts (): readonly Frame[] {
    const { parts } = this.plain
    this.#parts ??= parts.with(-1, this.#withPosition((parts.at(-1) as Frame).text))
    return this.#parts
  }

  get bytes (): number {
    return this.plain.bytes
  }

  #withPosition (text: string): Frame {
    return new Frame(withPosition(text, this.#group, this.position))
  }
}

/**
 * The `resync` message: messages of the group are lost at this place in the order, and the log continues after `top`.
 */
export function makeResync (group: string, top: Position | undefined): GroupMessage {
  const text = encodeResync(group)
  return new GroupMessage(top === undefined ? text : withPosition(text, group, top))
}

/** Adds a position to the text of a JSON object, as its last field, without parsing the text. */
function withPosition (payload: string, group: string, { epoch, offset }: Position): string {
  const head = payload.slice(0, payload.lastIndexOf('}')).trimEnd()
  const comma = head.endsWith('{') ? '' : ','
  return `${head}${comma}"position":{"group":${quote(group)},"epoch":${quote(epoch)},"offset":${offset}}}`
}
