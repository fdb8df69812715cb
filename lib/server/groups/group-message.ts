/**
 * Messages of a group as frames. A batch (PROTOCOL.md, "Batches") is one frame for members that take batches, and a
 * frame for each change, its parts, for all others.
 */
import { splitBatch, startsAsBatch } from '../../protocol/batch.ts'
import { Frame } from '../sending/frame.ts'
import type { Member } from './member.ts'

/** The frames of a message. They are made when the first member needs them, and all members share them. */
export interface FramedMessage {
  readonly frame: Frame
  /** Whether `parts` is to be used for members that do not take batches. */
  readonly isBatch: boolean
  readonly parts: readonly Frame[]
  /** Size of the payload. */
  readonly bytes: number
}

/** A message of a group without a position. */
export class GroupMessage implements FramedMessage {
  readonly payload: string
  readonly isBatch: boolean
  #frame: Frame | undefined
  #parts: readonly Frame[] | undefined
  #bytes: number | undefined

  constructor (payload: string) {
    this.payload = payload
    this.isBatch = startsAsBatch(payload)
  }

  get frame (): Frame {
    this.#frame ??= new Frame(this.payload)
    return this.#frame
  }

  /** The frames of a batch; the frame itself of an application's message that only begins as a batch does. */
  get parts (): readonly Frame[] {
    this.#parts ??= splitBatch(this.payload)?.map((text) => new Frame(text)) ?? [this.frame]
    return this.#parts
  }

  get bytes (): number {
    this.#bytes ??= Buffer.byteLength(this.payload)
    return this.#bytes
  }
}

/** Sends a message to members. @param batchMembers the members of the group that take batches */
export function sendToAll (
  message: FramedMessage,
  members: ReadonlySet<Member>,
  batchMembers: ReadonlySet<Member> | undefined
): void {
  if (members.size === 0) return
  if (!message.isBatch) {
    const { frame } = message
    for (const member of members) member.send(frame)
    return
  }
  // members that are sent the same frames share their bytes if nothing is sent to other members in between
  for (const takesBatches of [true, false]) {
    for (const member of members) {
      if (takesBatches === (batchMembers?.has(member) ?? false)) sendTo(member, message, takesBatches)
    }
  }
}

/** Sends a message to one member. */
export function sendTo (member: Member, message: FramedMessage, takesBatches: boolean): void {
  for (const frame of framesOf(message, takesBatches)) member.send(frame)
}

/** Returns the frames of a message for one member. */
export function framesOf (message: FramedMessage, takesBatches: boolean): readonly Frame[] {
  return message.isBatch && !takesBatches ? message.parts : [message.frame]
}
