/** One group on this process: its members, and the last message that was delivered to them. */
import type { Broker, Position } from '../../brokers/broker.ts'
import { diagnostics } from '../../diagnostics.ts'
import { errors } from '../../errors.ts'
import { Followers, type JoinRequest } from './catch-up.ts'
import { Frame } from '../sending/frame.ts'
import { covers, follows, type RecoveryLimit } from './shared-history.ts'
import { isThenable } from '../../util/thenable.ts'

/** A connection as a group knows it. */
export interface Member {
  send (frame: Frame): void
}

/** What all groups share. */
export interface GroupContext {
  readonly broker: Broker
  readonly recoveryLimit: RecoveryLimit
  /** The broker failed to change a subscription, or to read history. */
  onError (error: Error, group: string): void
  /** Messages of a group are missing. */
  onLost (group: string): void
}

/** See {@link GroupContext}; the broker's subscription is the business of `Groups`. */
export class Group {
  readonly name: string
  readonly #context: GroupContext
  /** Those who hear the group. */
  readonly #members = new Set<Member>()
  /** Those who hear it with positions. */
  #followers: Followers | undefined
  /** The last message that was delivered, where the broker keeps history. */
  #top: Position | undefined

  constructor (name: string, context: GroupContext) {
    this.name = name
    this.#context = context
  }

  get size (): number {
    return this.#members.size + (this.#followers?.size ?? 0)
  }

  has (member: Member): boolean {
    return this.#members.has(member) || this.#followers?.has(member) === true
  }

  /** Makes a connection a member; a follower stays one. */
  enter (member: Member): void {
    if (this.#followers?.keep(member) !== true) this.#members.add(member)
  }

  /** Makes a connection a member as a `subscribe` asks: with positions or without, whatever it was before. */
  subscribe (request: JoinRequest): void {
    const { member, recover } = request
    const { broker, recoveryLimit } = this.#context
    if (recover === undefined || broker.keepsHistory !== true) {
      if (this.#followers === undefined) this.#members.add(member)
      else this.#followers.end(member, this.#top)
      return request.joined(recover && { recovered: false })
    }

    const followers = this.#followers ??= new Followers(this.name, recoveryLimit, this.#members)
    const { after } = recover
    followers.hold(request, this.#top)
    if (after === undefined || !this.#isNear(after)) return followers.finish(request, undefined, this.#top)
    // a client that missed nothing costs no question: after a restart that is nearly every client
    if (after.offset === this.#top?.offset) return followers.finish(request, [], this.#top)

    const { messages, bytes } = recoveryLimit
    const reading = followers.read(after, this.#top, () => broker.history(this.name, after, messages, bytes), (cause) => {
      const error = new errors.RP_ERR_UNAVAILABLE(this.name, { cause })
      this.#context.onError(error, this.name)
      return error
    })
    if (!isThenable(reading)) return followers.finish(request, reading, this.#top)
    Promise.resolve(reading).then(
      (found) => followers.finish(request, found, this.#top),
      (error: Error) => { if (followers.isHeld(request)) request.failed(error) }
    )
  }

  /** Ends a request that waits for history; the connection is as it was before. */
  cancel (request: JoinRequest): void {
    this.#followers?.cancel(request, this.#top)
  }

  /** Ends a membership. */
  delete (member: Member): void {
    this.#members.delete(member)
    this.#followers?.delete(member)
  }

  /** A subscription begins: nothing that was delivered before counts. */
  reset (): void {
    this.#top = undefined
  }

  /** A subscription has begun: what was delivered meanwhile may be ahead of where it did. */
  begin (top: Position): void {
    if (this.#top === undefined || !covers(this.#top, top)) this.#top = top
  }

  /** Sends a message to all: one frame, or two where some of them follow positions, and many sockets. */
  deliver (payload: string, position?: Position): void {
    if (position !== undefined && !this.#advance(position)) return

    if (this.#members.size > 0) {
      const frame = new Frame(payload)
      for (const member of this.#members) member.send(frame)
    }
    if (position !== undefined) this.#followers?.deliver(payload, position)

    if (!diagnostics.deliver.hasSubscribers || this.size === 0) return
    diagnostics.deliver.publish({ group: this.name, size: Buffer.byteLength(payload), members: this.size })
  }

  /** Tells followers that messages are missing. @param top where it goes on */
  lost (top: Position | undefined): void {
    this.#context.onLost(this.name)
    this.#top = top
    this.#followers?.lost(top)
  }

  /** Whether it is worth asking the broker for what came after a position. */
  #isNear (after: Position): boolean {
    const top = this.#top
    return top?.epoch === after.epoch && top.offset - after.offset <= this.#context.recoveryLimit.messages
  }

  /** Takes note of the place of a message. @returns `false` for one that was delivered before */
  #advance (position: Position): boolean {
    const top = this.#top
    if (top !== undefined) {
      if (covers(top, position)) return false
      // a broker says so before; one that does not must not make followers believe that they have all
      if (!follows(top, position)) this.lost({ epoch: position.epoch, offset: position.offset - 1 })
    }
    this.#top = position
    return true
  }
}
