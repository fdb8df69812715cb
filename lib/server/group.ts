/** One group on this process: who hears it, and how far it has got. */
import type { Broker, Position } from '../brokers/broker.ts'
import { diagnostics } from '../diagnostics.ts'
import { errors } from '../errors.ts'
import { covers, Followers, follows, type Follower, type Found, type RecoveryLimit } from './followers.ts'
import { Frame } from './frame.ts'
import { isThenable } from './thenable.ts'

/** Somebody who hears a group. */
export interface Member {
  send (frame: Frame): void
}

/** Where a follower begins. */
export interface Start {
  /** The messages that it hears are those after this one; `undefined` where the broker keeps no history. */
  position?: Position | undefined
  /** Whether it hears all that it missed; `undefined` if it asked for nothing that was before. */
  recovered?: boolean
}

/** What all groups share. */
export interface GroupContext {
  readonly broker: Broker
  readonly recoveryLimit: RecoveryLimit
  /** Messages of a group are missing. */
  onLost (group: string): void
}

/** What a follower is told. */
export interface Beginning {
  /** Called at the moment when it is a member, before anything of the group is heard; `false` leaves a member as it was. */
  started (start: Start): boolean
  /** Called when history can't be read now, before anything that was kept back is heard. */
  failed (error: Error): void
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

  /** Makes somebody a member: a follower stays one unless it subscribes anew, which `joined` is for. */
  enter (member: Member, joined: ((group: Group) => void) | undefined): void {
    if (joined === undefined && this.#followers?.has(member)) return
    if (this.#followers === undefined) this.#members.add(member)
    else this.#followers.end(member, this.#top)
    joined?.(this)
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

  /** Makes a member a follower. @returns a promise if history takes its time, or can't be read: then it rejects with RP_ERR_UNAVAILABLE */
  follow (follower: Follower, after: Position | undefined, { started, failed }: Beginning): Promise<void> | undefined {
    const { broker, recoveryLimit } = this.#context
    if (broker.keepsHistory !== true) {
      started({ recovered: false })
      return
    }

    const followers = this.#followers ??= new Followers(this.name, recoveryLimit, this.#members)
    const held = followers.hold(follower, this.#top)

    const finish = (found: Found) => {
      // it left meanwhile
      if (!followers.isHeld(follower, held)) return
      const missed = after && found && followers.missed(after, found, held, this.#top)
      const position = missed === undefined ? held.ahead ?? this.#top : after
      const isTold = started(after === undefined && position !== undefined ? { position } : { position, recovered: missed !== undefined })
      // it was taken out because nobody waits for the answer
      if (!followers.isHeld(follower, held)) return
      if (isTold) followers.release(follower, missed ?? [], position)
      else followers.resume(follower, held, this.#top)
    }
    if (after === undefined || !this.#isNear(after)) {
      finish(undefined)
      return
    }

    // who missed nothing need not ask: after a restart that is nearly everybody
    const isUpToDate = after.offset === this.#top?.offset
    const reading = isUpToDate ? [] : followers.read(after, this.#top, () => broker.history(this.name, after, recoveryLimit.messages))
    if (!isThenable(reading)) {
      finish(reading)
      return
    }
    return Promise.resolve(reading).then(finish, (cause: unknown) => {
      const error = new errors.RP_ERR_UNAVAILABLE(this.name, { cause })
      failed(error)
      if (followers.isHeld(follower, held)) followers.resume(follower, held, this.#top)
      throw error
    })
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
