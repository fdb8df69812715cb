/**
 * The history of one group for members that recover at the same time: each message is read from the broker and kept
 * once for all of them.
 */
import type { Broker, HistoryEntry, Position } from '../../brokers/broker.ts'
import { isThenable } from '../../util/thenable.ts'
import { GroupMessage } from './group-message.ts'
import { includes, isNext } from './position.ts'
import { PositionedMessage } from './positioned-message.ts'

/**
 * The option `recoveryLimit`: the most that is replayed to one client. Beyond it, loading the data again is cheaper.
 */
export interface RecoveryLimit {
  messages: number
  bytes: number
}

/**
 * Messages of the broker's history; `undefined` if the broker does not have them any more. Members that share a read
 * share the frames, too.
 */
export type History = readonly PositionedMessage[] | undefined

/** A read of the broker's history that has not ended. */
interface Read {
  after: Position
  /** The last message that was delivered when the read began. */
  top: Position | undefined
  history: Promise<History>
}

/** Queue limit of a catching-up member, and size limit of the shared messages, as a multiple of `recoveryLimit`. */
export const QUEUE_FACTOR = 2

/**
 * The read under way and the messages of the replays under way. `top` is always the last message that was delivered on
 * this process.
 */
export class SharedHistory {
  readonly #group: string
  readonly #limit: RecoveryLimit
  readonly #isSparse: boolean
  #read: Read | undefined
  /** Messages of a replay and all messages that were delivered since, without gaps, up to the last one. */
  #messages: PositionedMessage[] | undefined
  #bytes = 0
  #replays = 0

  constructor (group: string, limit: RecoveryLimit, isSparse = false) {
    this.#group = group
    this.#limit = limit
    this.#isSparse = isSparse
  }

  /**
   * Reads the messages after a position. Requests share a read if no message was delivered since it began: the many
   * clients of a process that restarts would all read the same messages. The result may begin before the position.
   *
   * @param toError makes the error that the read rejects with; called once, also for a shared read
   */
  read (
    after: Position,
    top: Position | undefined,
    readBroker: () => ReturnType<Broker['history']>,
    toError: (cause: unknown) => Error
  ): History | Promise<History> {
    const shared = this.#after(after, top)
    if (shared !== undefined) return shared
    const read = this.#read
    if (read !== undefined && read.top === top && includes(after, read.after)) {
      if (read.after.offset === after.offset) return read.history
      // the limits, or a gap, may have cut off the messages after the later position
      return read.history.then((history) => {
        return reaches(history, top) ? history : this.read(after, top, readBroker, toError)
      })
    }

    const toMessages = (entries: HistoryEntry[] | undefined) => {
      return entries?.map(({ payload, position }) => {
        return new PositionedMessage(new GroupMessage(payload), this.#group, position)
      })
    }
    try {
      const entries = readBroker()
      if (!isThenable(entries)) return toMessages(entries)
      const history = Promise.resolve(entries).then(toMessages).catch((cause: unknown) => { throw toError(cause) })
      const own = this.#read = { after, top, history }
      const onEnd = () => {
        if (this.#read === own) this.#read = undefined
      }
      history.then(onEnd, onEnd)
      return history
    } catch (cause) {
      return Promise.reject(toError(cause))
    }
  }

  /** Excludes later requests from the read under way, which may never end. */
  abandonRead (): void {
    this.#read = undefined
  }

  /** Counts a replay. */
  startReplay (): void {
    this.#replays++
  }

  /** The shared messages are kept until the last replay ends. */
  endReplay (): void {
    if (--this.#replays === 0) this.clear()
  }

  /**
   * Shares the messages of a replay under way with later requests, unless the shared messages begin earlier already.
   */
  share (messages: readonly PositionedMessage[]): void {
    if (this.#replays === 0) return
    const [first] = messages
    const begin = this.#messages?.[0]?.position
    if (first === undefined || (begin !== undefined && includes(first.position, begin))) return
    this.#messages = [...messages]
    this.#bytes = messages.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Adds a delivered message. Messages with a gap, or beyond the size limit, are no longer shared. */
  extend (message: PositionedMessage): void {
    const messages = this.#messages
    const last = messages?.at(-1)?.position
    if (messages === undefined || last === undefined || includes(last, message.position)) return
    messages.push(message)
    this.#bytes += message.bytes
    const { messages: maxMessages, bytes: maxBytes } = this.#limit
    const isTooLarge = messages.length > QUEUE_FACTOR * maxMessages || this.#bytes > QUEUE_FACTOR * maxBytes
    if (isTooLarge || !isNext(last, message.position, this.#isSparse)) this.clear()
  }

  /** Drops the shared messages: the last replay has ended, or messages are lost. */
  clear (): void {
    this.#messages = undefined
  }

  /** Returns the shared messages after a position, if they reach up to the last delivered message. */
  #after (after: Position, top: Position | undefined): readonly PositionedMessage[] | undefined {
    const messages = this.#messages
    const [first, last] = [messages?.[0]?.position, messages?.at(-1)?.position]
    if (first === undefined || last === undefined || top === undefined || !includes(last, top)) return undefined
    if (after.epoch !== first.epoch || !includes(last, after)) return undefined
    // with sparse offsets there may be a message before the first shared one
    const earliest = this.#isSparse ? first.offset : first.offset - 1
    return after.offset < earliest ? undefined : messages?.filter(({ position }) => !includes(after, position))
  }
}

/** Whether the history reaches up to the last delivered message. */
function reaches (history: History, top: Position | undefined): boolean {
  const last = history?.at(-1)?.position
  return last !== undefined && top !== undefined && includes(last, top)
}
