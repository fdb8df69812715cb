/** The members of one group that asked for positions: those that are up to date, and those that still catch up. */
import type { Position } from '../../brokers/broker.ts'
import type { Frame } from '../sending/frame.ts'
import type { Member } from './group.ts'
import { makeResync, Positioned } from './positioned.ts'
import { covers, follows, PATIENCE, SharedHistory, type Found, type RecoveryLimit } from './shared-history.ts'

/** A member that can hear a group with positions. */
export interface Follower extends Member {
  /** Sends what `next` returns, until it returns nothing, as fast as the client reads; earlier replays come first. */
  replay (next: () => Frame | undefined): void
}

/** What a `subscribe` asks for with `recover`: positions, and the messages after one of them. */
export interface Recover {
  readonly after: Position | undefined
}

/** Where a follower begins. */
export interface Start {
  /** The follower hears the messages after this position; `undefined` where the broker keeps no history. */
  position?: Position | undefined
  /** Whether the follower hears everything that it missed; `undefined` if it asked for nothing. */
  recovered?: boolean
  /** The last message of those that it missed, where it hears all of them. */
  top?: Position | undefined
}

/** A `subscribe` that asks for a membership. Either `joined` or `failed` is called, once; neither after it was cancelled or the member left. */
export interface JoinRequest {
  readonly member: Follower
  /** `undefined` for a membership without positions. */
  readonly recover: Recover | undefined
  /** Called at the moment of membership, before the first message of the group. `start` is `undefined` without `recover`. */
  joined (start: Start | undefined): void
  /** Called when the broker can't subscribe or read history now. The request is still to be cancelled. */
  failed (error: Error): void
}

/** Keeps the messages for a follower whose history is read. */
interface Held {
  readonly request: JoinRequest
  readonly messages: Positioned[]
  bytes: number
  /** The last message that the follower has, if it is ahead of what is delivered here. */
  readonly ahead: Position | undefined
  /** The index of the first message that the follower hears even if the request ends without success; `undefined` for none: it was no member before. */
  due: number | undefined
  /** Whether the follower hears those without positions. */
  readonly isPlain: boolean
}

/** A follower that still gets what it missed; what is delivered meanwhile waits behind that. */
interface Late {
  queue: { readonly frame: Frame, readonly bytes: number }[]
  bytes: number
  sending: boolean
  /** The last message that was sent or that waits: history may be ahead of what is delivered. */
  last: Position | undefined
  /** Whether the follower goes on without positions. */
  isPlain: boolean
}

/** The followers of one group. `top` is always the last message that was delivered here. */
export class Followers {
  readonly #group: string
  readonly #limit: RecoveryLimit
  readonly #history: SharedHistory
  /** The members that hear the group without positions. */
  readonly #members: Set<Member>
  readonly #live = new Set<Follower>()
  readonly #held = new Map<Follower, Held>()
  readonly #late = new Map<Follower, Late>()
  /** How many late followers are sending what they missed. */
  #sending = 0

  constructor (group: string, limit: RecoveryLimit, members: Set<Member>) {
    this.#group = group
    this.#limit = limit
    this.#history = new SharedHistory(group, limit)
    this.#members = members
  }

  get size (): number {
    return this.#live.size + this.#held.size + this.#late.size
  }

  has (member: Member): boolean {
    const follower = member as Follower
    return this.#live.has(follower) || this.#held.has(follower) || this.#late.has(follower)
  }

  /** Ends a membership; what still waits is dropped. */
  delete (member: Member): void {
    const follower = member as Follower
    this.#live.delete(follower)
    this.#held.delete(follower)
    const late = this.#late.get(follower)
    if (late === undefined) return
    late.queue = []
    this.#stop(late)
    this.#late.delete(follower)
  }

  /** Makes sure that a follower stays a member whatever becomes of its request. @returns `false` if it is no follower */
  keep (member: Member): boolean {
    const held = this.#held.get(member as Follower)
    if (held !== undefined) held.due ??= held.messages.length
    return this.has(member)
  }

  /** Makes a connection a member without positions, whatever it was before. */
  end (member: Member, top: Position | undefined): void {
    const ahead = this.#hurry(member, top)
    this.delete(member)
    this.#goOnPlain(member as Follower, ahead)
  }

  /** Holds back what is delivered to a connection, which becomes a follower, until `finish` or `cancel`. */
  hold (request: JoinRequest, top: Position | undefined): void {
    const { member } = request
    const ahead = this.#hurry(member, top)
    const wasPlain = this.#members.delete(member) || this.#late.get(member)?.isPlain === true
    const wasFollower = !wasPlain && this.has(member)
    this.delete(member)
    this.#held.set(member, {
      request, messages: [], bytes: 0, ahead, due: wasPlain || wasFollower ? 0 : undefined, isPlain: !wasFollower
    })
  }

  /** Whether a request still waits for history. */
  isHeld (request: JoinRequest): boolean {
    return this.#held.get(request.member)?.request === request
  }

  /** Reads the messages after a position. See {@link SharedHistory.read}. */
  read (...how: Parameters<SharedHistory['read']>): Found | Promise<Found> {
    return this.#history.read(...how)
  }

  /** Ends a request with success: the follower hears everything after its position if history has it, else what is delivered from now on. */
  finish (request: JoinRequest, found: Found, top: Position | undefined): void {
    const { member, recover } = request
    const held = this.#held.get(member)
    // cancelled, or told at once because of a loss
    if (held?.request !== request) return

    const after = recover?.after
    const missed = after && found && this.#missed(after, found, held, top)
    const position = missed !== undefined ? after : isAhead(held.ahead, top) ? held.ahead : top
    request.joined(after === undefined && position !== undefined
      ? { position }
      : { position, recovered: missed !== undefined, top: missed && (missed.at(-1)?.position ?? after) })
    // the member may leave while it is told
    if (this.#held.get(member) !== held) return
    this.#release(member, missed ?? [], position)
    if (missed !== undefined && this.#sending > 0) this.#history.share(missed)
  }

  /** Ends a request without success: a member goes on as before, anything else is no member. */
  cancel (request: JoinRequest, top: Position | undefined): void {
    const { member } = request
    const held = this.#held.get(member)
    if (held?.request !== request) return

    // the reading may never end: nobody else is to wait for it
    this.#history.giveUp()
    const { ahead, due, isPlain } = held
    const messages = due === undefined ? [] : held.messages.slice(due).filter(({ position }) => ahead === undefined || !covers(ahead, position))
    if (due !== undefined && !isPlain) return this.#release(member, messages, ahead)
    this.#held.delete(member)
    if (due === undefined) return
    for (const { plain } of messages) member.send(plain)
    this.#goOnPlain(member, isAhead(ahead, top) ? ahead : undefined)
  }

  /** Sends a message to all followers, in its place in the order of each. */
  deliver (payload: string, position: Position): void {
    if (this.size === 0) return

    const message = new Positioned(this.#group, payload, position)
    this.#history.extend(message)
    for (const follower of this.#live) follower.send(message.frame)
    for (const [follower, late] of this.#late) {
      if (late.last !== undefined && covers(late.last, position)) continue
      if (late.sending) this.#append(follower, late, message)
      else follower.send(this.#catchUp(follower, late) ? message.plain : message.frame)
    }
    for (const held of this.#held.values()) this.#keepBack(held, message)
  }

  /** Tells all followers that messages are missing. */
  lost (top: Position | undefined): void {
    if (this.size === 0) return

    this.#history.clear()
    const resync = { frame: makeResync(this.#group, top), bytes: 0 }
    for (const follower of this.#live) follower.send(resync.frame)
    for (const [follower, late] of this.#late) {
      if (late.isPlain) {
        this.#catchUp(follower, late)
        continue
      }
      if (late.sending) late.queue.push(resync)
      else follower.send(resync.frame)
      if (late.last === undefined || (top !== undefined && !covers(late.last, top))) late.last = top
    }
    // nothing that history could still give is everything
    for (const { request } of this.#held.values()) this.finish(request, undefined, top)
  }

  /** The messages after a position, of history and then those held back, or `undefined` if any is missing or they are too many. */
  #missed (after: Position, found: NonNullable<Found>, held: Held, top: Position | undefined): Positioned[] | undefined {
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

  /** Sends a follower messages, then what comes after them, or else after a position. */
  #release (follower: Follower, messages: Positioned[], after: Position | undefined): void {
    const late: Late = { queue: messages, bytes: 0, sending: messages.length > 0, last: messages.at(-1)?.position ?? after, isPlain: false }
    for (const { bytes } of messages) late.bytes += bytes
    this.#held.delete(follower)
    this.#late.set(follower, late)
    if (!late.sending) return

    this.#sending++
    follower.replay(() => {
      const next = late.queue.shift()
      if (next === undefined) this.#stop(late)
      else late.bytes -= next.bytes
      return next?.frame
    })
  }

  /** Makes a connection a member without positions. @param ahead the last message that it has, if it is ahead of what is delivered here */
  #goOnPlain (follower: Follower, ahead: Position | undefined): void {
    if (ahead === undefined) this.#members.add(follower)
    else this.#late.set(follower, { queue: [], bytes: 0, sending: false, last: ahead, isPlain: true })
  }

  /** Sends at once what still waits for a follower. @returns the last message that it has, if it is ahead of what is delivered here */
  #hurry (member: Member, top: Position | undefined): Position | undefined {
    const late = this.#late.get(member as Follower)
    if (late === undefined) return undefined
    this.#flush(member, late)
    return isAhead(late.last, top) ? late.last : undefined
  }

  /** A late follower that has everything becomes an ordinary member. @returns whether it goes on without positions */
  #catchUp (follower: Follower, { isPlain }: Late): boolean {
    this.#late.delete(follower)
    if (isPlain) this.#members.add(follower)
    else this.#live.add(follower)
    return isPlain
  }

  /** Keeps a message for a follower whose history is read; when they are too many, the follower is told at once that it can't have everything. */
  #keepBack (held: Held, message: Positioned): void {
    held.messages.push(message)
    held.bytes += message.bytes
    if (held.messages.length > this.#limit.messages || held.bytes > this.#limit.bytes) this.finish(held.request, undefined, message.position)
  }

  /** A client that reads what it missed more slowly than new messages come is left to the limits of its connection. */
  #append (follower: Follower, late: Late, message: Positioned): void {
    late.queue.push(message)
    late.bytes += message.bytes
    late.last = message.position
    if (late.queue.length > PATIENCE * this.#limit.messages || late.bytes > PATIENCE * this.#limit.bytes) this.#flush(follower, late)
  }

  #flush (follower: Member, late: Late): void {
    for (const { frame } of late.queue.splice(0)) follower.send(frame)
    this.#stop(late)
  }

  /** A late follower has sent what it missed. The last one needs no shared copy any more. */
  #stop (late: Late): void {
    if (!late.sending) return
    late.sending = false
    if (--this.#sending === 0) this.#history.clear()
  }
}

/** Whether a position is after the last message that was delivered. */
function isAhead (position: Position | undefined, top: Position | undefined): boolean {
  return position !== undefined && top !== undefined && covers(position, top) && !covers(top, position)
}
