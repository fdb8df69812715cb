/** The members of one group that asked for positions: those who are up to date, and those who still get what they missed. */
import type { Broker, HistoryEntry, Position } from '../brokers/broker.ts'
import type { Frame } from './frame.ts'
import type { Member } from './groups.ts'
import { makeResync, Positioned } from './positioned.ts'
import { isThenable } from './thenable.ts'

/** Somebody who hears a group with positions. */
export interface Follower extends Member {
  /** Sends what `next` gives, until it gives nothing, as fast as the client reads; what was to be replayed before comes first. */
  replay (next: () => Frame | undefined): void
}

/** The most that is replayed at once; beyond it, loading again is cheaper for everybody. */
export interface RecoveryLimit {
  messages: number
  bytes: number
}

/** What a broker has after a position, `undefined` if it can't be had. Those who share a reading share the messages and their frames. */
export type Found = readonly Positioned[] | undefined

/** History that is being read. */
interface Reading {
  after: Position
  /** The last message that was delivered when it began. */
  top: Position | undefined
  found: Promise<Found>
}

/** What is kept back from a follower while its history is read. */
export interface Held {
  messages: Positioned[]
  bytes: number
  /** Whether messages are missing: they were lost, or too many. */
  broken: boolean
}

/** A follower that still gets what it missed; what is delivered meanwhile waits behind that. */
interface Late {
  queue: { readonly frame: Frame, readonly bytes: number }[]
  bytes: number
  sending: boolean
  /** The last message that it got or that waits: history may be ahead of what is delivered. */
  last: Position | undefined
}

/** How much may wait for a late follower, in times of what is replayed at most. */
const PATIENCE = 2

/** The followers of one group. */
export class Followers {
  readonly #group: string
  readonly #limit: RecoveryLimit
  readonly #live = new Set<Follower>()
  readonly #held = new Map<Follower, Held>()
  readonly #late = new Map<Follower, Late>()
  #reading: Reading | undefined

  constructor (group: string, limit: RecoveryLimit) {
    this.#group = group
    this.#limit = limit
  }

  get size (): number {
    return this.#live.size + this.#held.size + this.#late.size
  }

  has (member: Member): boolean {
    const follower = member as Follower
    return this.#live.has(follower) || this.#held.has(follower) || this.#late.has(follower)
  }

  /** Lets a follower hear every message from now on. */
  add (follower: Follower): void {
    this.#live.add(follower)
  }

  /** Ends a membership; what still waits goes nowhere. */
  delete (member: Member): void {
    const follower = member as Follower
    this.#live.delete(follower)
    this.#held.delete(follower)
    this.#late.get(follower)?.queue.splice(0)
    this.#late.delete(follower)
  }

  /** Ends a membership whose messages another one goes on with: what still waits is sent at once. */
  end (member: Member): void {
    const follower = member as Follower
    const late = this.#late.get(follower)
    if (late !== undefined) flush(follower, late)
    this.delete(member)
  }

  /** Keeps back what is delivered to a follower until `release` or `resume`. */
  hold (follower: Follower): Held {
    const held: Held = { messages: [], bytes: 0, broken: false }
    this.delete(follower)
    this.#held.set(follower, held)
    return held
  }

  /** Whether a follower is still held, by this `hold`. */
  isHeld (follower: Follower, held: Held): boolean {
    return this.#held.get(follower) === held
  }

  /**
   * Reads what is after a position. Who comes while another one's answer is under way shares it, if nothing was delivered since that began: else the
   * many clients of a process that restarts would all read the same. What it gives may begin before the position.
   *
   * @param top the last message that was delivered here
   */
  read (after: Position, top: Position | undefined, history: () => ReturnType<Broker['history']>): Found | Promise<Found> {
    const reading = this.#reading
    if (reading !== undefined && reading.top === top && covers(after, reading.after)) return reading.found

    const place = (entries: HistoryEntry[] | undefined) => entries?.map(({ payload, position }) => new Positioned(this.#group, payload, position))
    try {
      const entries = history()
      if (!isThenable(entries)) return place(entries)
      const own = this.#reading = { after, top, found: Promise.resolve(entries).then(place) }
      const end = () => {
        if (this.#reading === own) this.#reading = undefined
      }
      own.found.then(end, end)
      return own.found
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * What a follower missed after a position, and what was held meanwhile: all of it in order, or `undefined` if any message is missing or
   * it is too much.
   *
   * @param found what the broker has after the position, or after one before it
   * @param top the last message that was delivered here
   */
  missed (after: Position, found: NonNullable<Found>, held: Held, top: Position | undefined): Positioned[] | undefined {
    const missed: Positioned[] = []
    let last = after
    let bytes = 0
    for (const message of [...found, ...held.messages]) {
      const { position } = message
      if (covers(last, position)) continue
      if (!follows(last, position)) return undefined
      last = position
      bytes += message.bytes
      missed.push(message)
    }

    const isComplete = !held.broken && top !== undefined && covers(last, top)
    return isComplete && missed.length <= this.#limit.messages && bytes <= this.#limit.bytes ? missed : undefined
  }

  /** Sends a held follower messages, then what comes after the position. */
  release (follower: Follower, messages: Positioned[], after: Position | undefined): void {
    const bytes = messages.reduce((sum, message) => sum + message.bytes, 0)
    this.#send(follower, { queue: messages, bytes, sending: true, last: messages.at(-1)?.position ?? after })
  }

  /** Lets a held follower go on as if nothing had been asked. */
  resume (follower: Follower, { messages, broken }: Held, top: Position | undefined): void {
    this.release(follower, messages, undefined)
    if (broken) follower.send(makeResync(this.#group, top))
  }

  /** Sends a message to all followers, in its place in the order of each. */
  deliver (payload: string, position: Position): void {
    if (this.size === 0) return

    const message = new Positioned(this.#group, payload, position)
    for (const follower of this.#live) follower.send(message.frame)
    for (const held of this.#held.values()) this.#keep(held, message)
    for (const [follower, late] of this.#late) {
      if (late.last !== undefined && covers(late.last, position)) continue
      if (late.sending) {
        this.#append(follower, late, message)
      } else {
        this.#late.delete(follower)
        this.#live.add(follower)
        follower.send(message.frame)
      }
    }
  }

  /** Tells all followers that messages are missing here. */
  lost (top: Position | undefined): void {
    if (this.size === 0) return

    const resync = { frame: makeResync(this.#group, top), bytes: 0 }
    for (const follower of this.#live) follower.send(resync.frame)
    for (const held of this.#held.values()) breakOff(held)
    for (const [follower, late] of this.#late) {
      if (late.sending) late.queue.push(resync)
      else follower.send(resync.frame)
      if (late.last === undefined || (top !== undefined && !covers(late.last, top))) late.last = top
    }
  }

  #send (follower: Follower, late: Late): void {
    this.#held.delete(follower)
    this.#late.set(follower, late)
    follower.replay(() => {
      const next = late.queue.shift()
      if (next === undefined) late.sending = false
      else late.bytes -= next.bytes
      return next?.frame
    })
  }

  #keep (held: Held, message: Positioned): void {
    if (held.broken) return
    held.messages.push(message)
    held.bytes += message.bytes
    if (held.messages.length > this.#limit.messages || held.bytes > this.#limit.bytes) breakOff(held)
  }

  /** One that does not read what it missed as fast as new messages come is left to the limits of its connection. */
  #append (follower: Follower, late: Late, message: Positioned): void {
    late.queue.push(message)
    late.bytes += message.bytes
    late.last = message.position
    if (late.queue.length > PATIENCE * this.#limit.messages || late.bytes > PATIENCE * this.#limit.bytes) flush(follower, late)
  }
}

/** Whether who has got a message has got the other one too. */
export function covers (last: Position, position: Position): boolean {
  return position.epoch === last.epoch && position.offset <= last.offset
}

/** Whether nothing is between two messages. */
export function follows (last: Position, position: Position): boolean {
  return position.epoch === last.epoch && position.offset === last.offset + 1
}

function flush (follower: Follower, late: Late): void {
  for (const { frame } of late.queue.splice(0)) follower.send(frame)
  late.sending = false
}

function breakOff (held: Held): void {
  held.broken = true
  held.messages = []
}
