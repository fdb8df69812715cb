/**
 * The catch-up of one member: messages are buffered while history is read, then queued behind the replay of the
 * messages that it missed.
 */
import type { Position } from '../../brokers/broker.ts'
import type { Frame } from '../sending/frame.ts'
import { framesOf, sendTo, type FramedMessage } from './group-message.ts'
import type { Member, SubscribeRequest } from './member.ts'
import { includes } from './position.ts'
import type { PositionedMessage } from './positioned-message.ts'
import { QUEUE_FACTOR, type RecoveryLimit, type SharedHistory } from './shared-history.ts'

/**
 * A catch-up is *buffering* while a `subscribe` waits for history, *replaying* while frames are queued, and then
 * *waiting* until a message is delivered that the member does not have: history may be ahead of the messages delivered
 * on this process. After that the member is live.
 */
export class CatchUp {
  readonly member: Member
  /** The `subscribe` that waits for history; `undefined` unless the catch-up is buffering. */
  request: SubscribeRequest | undefined
  /** Messages that were delivered while the request waits. */
  buffered: PositionedMessage[] = []
  /**
   * Index of the first buffered message that the member receives even if the request fails; `undefined` if it is no
   * member then.
   */
  keptFrom: number | undefined
  /** Whether the member receives messages without positions; while the catch-up is buffering, if the request fails. */
  isPlain: boolean
  /** The last message that the member has or that is queued for it. */
  last: Position | undefined
  readonly #history: SharedHistory
  #queue: FramedMessage[] = []
  /** Frames of the last message that was taken from the queue, which are still to be sent. */
  #frames: Frame[] = []
  /** Whether the member takes batches; set when the replay begins. */
  #takesBatches = false
  #isReplaying = false
  /** Size of the buffered or queued messages. */
  #bytes = 0

  constructor (member: Member, isPlain: boolean, last: Position | undefined, history: SharedHistory) {
    this.member = member
    this.isPlain = isPlain
    this.last = last
    this.#history = history
  }

  /** Adds a delivered message to the buffer. @returns `false` if the buffer is beyond the limit */
  buffer (message: PositionedMessage, limit: RecoveryLimit): boolean {
    this.buffered.push(message)
    this.#bytes += message.bytes
    return this.buffered.length <= limit.messages && this.#bytes <= limit.bytes
  }

  /**
   * Ends the buffering and replays messages to the member, which has positions from now on.
   *
   * @param last its position without messages
   */
  replay (messages: PositionedMessage[], last: Position | undefined, takesBatches: boolean): void {
    this.request = undefined
    this.buffered = []
    this.isPlain = false
    this.last = messages.at(-1)?.position ?? last
    this.#queue = messages
    this.#takesBatches = takesBatches
    this.#bytes = messages.reduce((sum, { bytes }) => sum + bytes, 0)
    if (messages.length === 0) return

    this.#isReplaying = true
    this.#history.startReplay()
    this.member.replay(() => {
      if (this.#frames.length === 0) this.#takeFrames()
      return this.#frames.shift()
    })
  }

  /**
   * Queues a delivered message behind the replay. A queue beyond its limit is flushed: a client that reads more slowly
   * than messages arrive is subject to the limits of its connection.
   *
   * @returns `false` if no replay is under way
   */
  enqueue (message: PositionedMessage, limit: RecoveryLimit): boolean {
    if (!this.#isReplaying) return false
    this.#queue.push(message)
    this.#bytes += message.bytes
    this.last = message.position
    if (this.#queue.length > QUEUE_FACTOR * limit.messages || this.#bytes > QUEUE_FACTOR * limit.bytes) this.flush()
    return true
  }

  /** Sends a `resync` in its place in the order. @param top the position after which the log continues */
  resync (resync: FramedMessage, top: Position | undefined): void {
    if (this.#isReplaying) this.#queue.push(resync)
    else this.member.send(resync.frame)
    if (this.last === undefined || (top !== undefined && !includes(this.last, top))) this.last = top
  }

  /** Sends all queued frames at once. */
  flush (): void {
    for (const frame of this.#frames.splice(0)) this.member.send(frame)
    for (const message of this.#queue.splice(0)) sendTo(this.member, message, this.#takesBatches)
    this.#endReplay()
  }

  /** Drops all queued frames. */
  stop (): void {
    this.#queue = []
    this.#frames = []
    this.#endReplay()
  }

  #takeFrames (): void {
    const next = this.#queue.shift()
    if (next === undefined) return this.#endReplay()
    this.#bytes -= next.bytes
    this.#frames = [...framesOf(next, this.#takesBatches)]
  }

  #endReplay (): void {
    if (!this.#isReplaying) return
    this.#isReplaying = false
    this.#history.endReplay()
  }
}
