/** The members of one group that asked for positions: those who are up to date, and those who still get what they missed. */
import type { Broker, HistoryEntry, Position } from '../brokers/broker.ts'
import { Frame } from './frame.ts'
import type { Member } from './group.ts'
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
  /** The last message that it has, if it is ahead of what is delivered here. */
  readonly ahead: Position | undefined
}

/** A follower that still gets what it missed; what is delivered meanwhile waits behind that. */
interface Late {
  queue: { readonly frame: Frame, readonly bytes: number }[]
  bytes: number
  sending: boolean
  /** The last message that it got or that waits: history may be ahead of what is delivered. */
  last: Position | undefined
  /** Whether it goes on without positions. */
  isPlain: boolean
}

/** How much may wait for a late follower, in times of what is replayed at most. */
const PATIENCE = 2

/** The followers of one group. */
export class Followers {
  readonly #group: string
  readonly #limit: RecoveryLimit
  /** Those who hear the group without positions. */
  readonly #members: Set<Member>
  readonly #live = new Set<Follower>()
  readonly #held = new Map<Follower, Held>()
  readonly #late = new Map<Follower, Late>()
  #reading: Reading | undefined

  constructor (group: string, limit: RecoveryLimit, members: Set<Member>) {
    this.#group = group
    this.#limit = limit
    this.#members = members
  }

  get size (): number {
    return this.#live.size + this.#held.size + this.#late.size
  }

  has (member: Member): boolean {
    const follower = member as Follower
    return this.#live.has(follower) || this.#held.has(follower) || this.#late.has(follower)
  }

  /** Ends a membership; what still waits goes nowhere. */
  delete (member: Member): void {
    const follower = member as Follower
    this.#live.delete(follower)
    this.#held.delete(follower)
    this.#late.get(follower)?.queue.splice(0)
    this.#late.delete(follower)
  }

  /** Lets a follower go on as a member without positions. @param top the last message that was delivered here */
  end (member: Member, top: Position | undefined): void {
    const ahead = this.#hurry(member, top)
    this.delete(member)
    if (ahead === undefined) this.#members.add(member)
    else this.#late.set(member as Follower, { queue: [], bytes: 0, sending: false, last: ahead, isPlain: true })
  }

  /** Keeps back what is delivered to a member until `release` or `resume`. @param top the last message that was delivered here */
  hold (follower: Follower, top: Position | undefined): Held {
    const held: Held = { messages: [], bytes: 0, broken: false, ahead: this.#hurry(follower, top) }
    this.#members.delete(follower)
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

    const isComplete = top !== undefined && covers(last, top)
    return isComplete && missed.length <= this.#limit.messages && bytes <= this.#limit.bytes ? missed : undefined
  }

  /** Sends a held follower messages, then what comes after them, or else after a position. */
  release (follower: Follower, messages: Positioned[], after: Position | undefined): void {
    const late: Late = { queue: messages, bytes: 0, sending: messages.length > 0, last: messages.at(-1)?.position ?? after, isPlain: false }
    for (const { bytes } of messages) late.bytes += bytes
    this.#held.delete(follower)
    this.#late.set(follower, late)
    if (!late.sending) return

    follower.replay(() => {
      const next = late.queue.shift()
      if (next === undefined) late.sending = false
      else late.bytes -= next.bytes
      return next?.frame
    })
  }

  /** Lets a held follower go on as if nothing had been asked. @param top the last message that was delivered here */
  resume (follower: Follower, { messages, broken, ahead }: Held, top: Position | undefined): void {
    if (broken) follower.send(makeResync(this.#group, top))
    this.release(follower, messages.filter(({ position }) => ahead === undefined || !covers(ahead, position)), ahead)
  }

  /** Sends a message to all followers, in its place in the order of each. */
  deliver (payload: string, position: Position): void {
    if (this.size === 0) return

    const message = new Positioned(this.#group, payload, position)
    for (const follower of this.#live) follower.send(message.frame)
    for (const held of this.#held.values()) this.#keep(held, message)
    for (const [follower, late] of this.#late) {
      if (late.last !== undefined && covers(late.last, position)) continue
      if (late.sending) this.#append(follower, late, message)
      else follower.send(this.#catchUp(follower, late) ? new Frame(payload) : message.frame)
    }
  }

  /** Tells all followers that messages are missing here. */
  lost (top: Position | undefined): void {
    if (this.size === 0) return

    const resync = { frame: makeResync(this.#group, top), bytes: 0 }
    for (const follower of this.#live) follower.send(resync.frame)
    for (const held of this.#held.values()) breakOff(held)
    for (const [follower, late] of this.#late) {
      if (late.isPlain) {
        this.#catchUp(follower, late)
        continue
      }
      if (late.sending) late.queue.push(resync)
      else follower.send(resync.frame)
      if (late.last === undefined || (top !== undefined && !covers(late.last, top))) late.last = top
    }
  }

  /** Sends at once what still waits for a follower. @returns the last message that it has, if it is ahead of what is delivered here */
  #hurry (member: Member, top: Position | undefined): Position | undefined {
    const late = this.#late.get(member as Follower)
    if (late === undefined) return undefined
    flush(member, late)
    const { last } = late
    return last !== undefined && top !== undefined && covers(last, top) && !covers(top, last) ? last : undefined
  }

  /** One that got all is late no more. @returns whether it goes on without positions */
  #catchUp (follower: Follower, { isPlain }: Late): boolean {
    this.#late.delete(follower)
    if (isPlain) this.#members.add(follower)
    else this.#live.add(follower)
    return isPlain
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

function flush (follower: Member, late: Late): void {
  for (const { frame } of late.queue.splice(0)) follower.send(frame)
  late.sending = false
}

function breakOff (held: Held): void {
  held.broken = true
  held.messages = []
}
