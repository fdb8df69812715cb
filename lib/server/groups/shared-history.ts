/** The history of one group as the clients that come back read it: each message is read and held once for all of them. */
import type { Broker, HistoryEntry, Position } from '../../brokers/broker.ts'
import { Positioned } from './positioned.ts'
import { isThenable } from '../../util/thenable.ts'

/** The most that is replayed to one client; beyond it, loading again is cheaper for everybody. */
export interface RecoveryLimit {
  messages: number
  bytes: number
}

/** The messages of a broker after a position; `undefined` if they can't be had. Followers that share a reading share the messages and their frames. */
export type Found = readonly Positioned[] | undefined

/** History that is being read. */
interface Reading {
  after: Position
  /** The last message that was delivered when the reading began. */
  top: Position | undefined
  found: Promise<Found>
}

/** How much is kept for clients that catch up, as a multiple of `RecoveryLimit`. */
export const PATIENCE = 2

/** Readings under way, and the messages that late followers still send. `top` is always the last message that was delivered here. */
export class SharedHistory {
  readonly #group: string
  readonly #limit: RecoveryLimit
  #reading: Reading | undefined
  /** What late followers missed and what was delivered since, without gaps, up to the last message that was delivered. */
  #shared: Positioned[] | undefined
  #bytes = 0

  constructor (group: string, limit: RecoveryLimit) {
    this.#group = group
    this.#limit = limit
  }

  /**
   * Reads the messages after a position. A client shares the reading of another one if nothing was delivered since that began: the many
   * clients of a process that restarts would all read the same. The result may begin before the position.
   *
   * @param toError makes the error with which the reading rejects; called once, also for a reading that is shared
   */
  read (after: Position, top: Position | undefined, history: () => ReturnType<Broker['history']>, toError: (cause: unknown) => Error): Found | Promise<Found> {
    const shared = this.#after(after, top)
    if (shared !== undefined) return shared
    const reading = this.#reading
    if (reading !== undefined && reading.top === top && covers(after, reading.after)) {
      if (reading.after.offset === after.offset) return reading.found
      // the limits, or a gap, may have cut off what is after the later position
      return reading.found.then((found) => reaches(found, top) ? found : this.read(after, top, history, toError))
    }

    const place = (entries: HistoryEntry[] | undefined) => entries?.map(({ payload, position }) => new Positioned(this.#group, payload, position))
    try {
      const entries = history()
      if (!isThenable(entries)) return place(entries)
      const found = Promise.resolve(entries).then(place).catch((cause: unknown) => { throw toError(cause) })
      const own = this.#reading = { after, top, found }
      const end = () => {
        if (this.#reading === own) this.#reading = undefined
      }
      found.then(end, end)
      return found
    } catch (cause) {
      return Promise.reject(toError(cause))
    }
  }

  /** Shares what a client missed with those that come back after it, unless there is more to share already. */
  share (missed: readonly Positioned[]): void {
    const [first] = missed
    const begin = this.#shared?.[0]?.position
    if (first === undefined || (begin !== undefined && covers(first.position, begin))) return
    this.#shared = [...missed]
    this.#bytes = missed.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Adds a message that is delivered. Messages that become too many, or have a gap, are shared no more. */
  extend (message: Positioned): void {
    const shared = this.#shared
    const last = shared?.at(-1)?.position
    if (shared === undefined || last === undefined || covers(last, message.position)) return
    shared.push(message)
    this.#bytes += message.bytes
    const isTooMuch = shared.length > PATIENCE * this.#limit.messages || this.#bytes > PATIENCE * this.#limit.bytes
    if (isTooMuch || !follows(last, message.position)) this.#shared = undefined
  }

  /** Shares no messages any more: no client catches up, or some were lost. */
  clear (): void {
    this.#shared = undefined
  }

  /** Lets nobody else wait for the reading under way. */
  giveUp (): void {
    this.#reading = undefined
  }

  /** The shared messages after a position, if they are all up to the last one that was delivered. */
  #after (after: Position, top: Position | undefined): readonly Positioned[] | undefined {
    const shared = this.#shared
    const [first, last] = [shared?.[0]?.position, shared?.at(-1)?.position]
    if (first === undefined || last === undefined || top === undefined || !covers(last, top)) return undefined
    const index = after.offset - first.offset + 1
    return after.epoch === first.epoch && index >= 0 && covers(last, after) ? shared?.slice(index) : undefined
  }
}

/** Whether a client that has one message has the other one too. */
export function covers (last: Position, position: Position): boolean {
  return position.epoch === last.epoch && position.offset <= last.offset
}

/** Whether nothing is between two messages. */
export function follows (last: Position, position: Position): boolean {
  return position.epoch === last.epoch && position.offset === last.offset + 1
}

/** Whether messages go up to the last one that was delivered. */
function reaches (found: Found, top: Position | undefined): boolean {
  const last = found?.at(-1)?.position
  return last !== undefined && top !== undefined && covers(last, top)
}
