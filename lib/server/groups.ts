/** Who is in which group on this process, and one subscription at the broker for each group that has members here. */
import type { Broker, Position } from '../brokers/broker.ts'
import { diagnostics } from '../diagnostics.ts'
import { errors, show } from '../errors.ts'
import { isGroupName } from '../protocol/group-name.ts'
import { toPayload } from './envelope.ts'
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

/** What groups tell, and how much they replay. */
export interface GroupsOptions {
  recoveryLimit: RecoveryLimit
  /** The broker failed to change a subscription, or to give history. */
  onError (error: Error, group: string): void
  /** Messages of a group are missing. */
  onLost (group: string): void
}

/** Those who wait for the broker's subscription to a group. */
interface Joining {
  members: Map<Member, ((group: Group) => void) | undefined>
  done: PromiseWithResolvers<void>
}

/** One group with members on this process. */
interface Group {
  readonly name: string
  /** Those who hear the group. */
  readonly members: Set<Member>
  /** Those who hear it with positions. */
  followers: Followers | undefined
  /** The last message that was delivered, where the broker keeps history. */
  top: Position | undefined
  joining: Joining | undefined
  subscribed: boolean
  /** Whether a call to the broker is under way; there is never a second one. */
  busy: boolean
}

/** The groups of one server. */
export class Groups {
  readonly #groups = new Map<string, Group>()
  readonly #broker: Broker
  readonly #options: GroupsOptions

  constructor (broker: Broker, options: GroupsOptions) {
    this.#broker = broker
    this.#options = options
  }

  /**
   * Makes somebody a member: at once where the broker answers at once, else when the promise resolves. With `joined` it hears the group
   * without positions, else as before.
   *
   * @param joined called at the moment when it is a member, before anything of the group is heard
   * @throws RP_ERR_INVALID_GROUP; rejects with RP_ERR_UNAVAILABLE, then it is no member
   */
  join (name: string, member: Member, joined?: () => void): Promise<void> | undefined {
    return this.#join(name, member, joined && (() => joined()))
  }

  /**
   * Makes somebody a member that hears the group with positions, from now on or from a position on, as soon as history is read.
   *
   * @param started called at the moment when it is a member, before anything of the group is heard; `false` leaves a member as it was
   * @throws as `join`; rejects with RP_ERR_UNAVAILABLE also if history can't be read now
   */
  follow (name: string, follower: Follower, after: Position | undefined, started: (start: Start) => boolean): Promise<void> | undefined {
    const isNew = !this.has(name, follower)
    let reading: Promise<void> | undefined
    const joining = this.#join(name, follower, (group) => {
      reading = this.#start(group, follower, after, isNew, started)
    })
    return joining === undefined ? reading : joining.then(() => reading)
  }

  /** Ends a membership, also one that still waits for the broker; a name without group is fine. */
  leave (name: string, member: Member): void {
    const group = this.#groups.get(name)
    if (group === undefined) return

    group.members.delete(member)
    group.followers?.delete(member)
    const { joining } = group
    if (joining?.members.delete(member) && joining.members.size === 0) {
      group.joining = undefined
      joining.done.resolve()
    }
    this.#settle(group)
  }

  /** Whether somebody is a member, or waits to be one. */
  has (name: string, member: Member): boolean {
    const group = this.#groups.get(name)
    return group !== undefined && (isMember(group, member) || group.joining?.members.has(member) === true)
  }

  /** Gives a message to the broker, from which it comes back to `deliver`. @throws RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT */
  publish (name: string, message: unknown): void | Promise<void> {
    checkName(name)
    const payload = toPayload(message, this.#broker.keepsHistory === true)
    if (!diagnostics.publish.hasSubscribers) return this.#broker.publish(name, payload)
    return observe(name, payload, () => this.#broker.publish(name, payload))
  }

  /** Sends what the broker heard to the members: one frame, or two where some of them follow positions, and many sockets. */
  deliver (name: string, payload: string, position?: Position): void {
    const group = this.#groups.get(name)
    if (group === undefined) return
    if (position !== undefined && !this.#advance(group, position)) return

    if (group.members.size > 0) {
      const frame = new Frame(payload)
      for (const member of group.members) member.send(frame)
    }
    if (position !== undefined) group.followers?.deliver(payload, position)

    const members = group.members.size + (group.followers?.size ?? 0)
    if (members > 0 && diagnostics.deliver.hasSubscribers) diagnostics.deliver.publish({ group: name, size: Buffer.byteLength(payload), members })
  }

  /** Tells followers that messages are missing. @param top where it goes on */
  lost (name: string, top: Position | undefined): void {
    this.#options.onLost(name)
    const group = this.#groups.get(name)
    if (group === undefined) return

    group.top = top
    group.followers?.lost(top)
  }

  #join (name: string, member: Member, joined: ((group: Group) => void) | undefined): Promise<void> | undefined {
    let group = this.#groups.get(name)
    if (group === undefined) {
      checkName(name)
      group = { name, members: new Set(), followers: undefined, top: undefined, joining: undefined, subscribed: false, busy: false }
      this.#groups.set(name, group)
    }

    if (group.subscribed && !group.busy) {
      enter(group, member, joined)
      return
    }

    const joining = group.joining ??= { members: new Map(), done: Promise.withResolvers() }
    if (joined !== undefined || !joining.members.has(member)) joining.members.set(member, joined)
    this.#settle(group)
    if (group.joining !== joining && isMember(group, member)) return
    return joining.done.promise
  }

  /** Makes a member a follower. @returns a promise if history takes its time, or can't be read */
  #start (group: Group, follower: Follower, after: Position | undefined, isNew: boolean, started: (start: Start) => boolean): Promise<void> | undefined {
    if (this.#broker.keepsHistory !== true) {
      started({ recovered: false })
      return
    }

    const followers = group.followers ??= new Followers(group.name, this.#options.recoveryLimit, group.members)
    const held = followers.hold(follower, group.top)

    const finish = (found: Found) => {
      // it left meanwhile
      if (!followers.isHeld(follower, held)) return
      const missed = after && found && followers.missed(after, found, held, group.top)
      const position = missed === undefined ? held.ahead ?? group.top : after
      const isTold = started(after === undefined && position !== undefined ? { position } : { position, recovered: missed !== undefined })
      // it was taken out because nobody waits for the answer
      if (!followers.isHeld(follower, held)) return
      if (isTold) followers.release(follower, missed ?? [], position)
      else followers.resume(follower, held, group.top)
    }
    if (after === undefined || !this.#isNear(after, group.top)) {
      finish(undefined)
      return
    }

    // who missed nothing need not ask: after a restart that is nearly everybody
    const isUpToDate = after.offset === group.top?.offset
    const reading = isUpToDate ? [] : followers.read(after, group.top, () => this.#broker.history(group.name, after, this.#options.recoveryLimit.messages))
    if (!isThenable(reading)) {
      finish(reading)
      return
    }
    return Promise.resolve(reading).then(finish, (cause: unknown) => {
      const error = new errors.RP_ERR_UNAVAILABLE(group.name, { cause })
      this.#options.onError(error, group.name)
      if (isNew) this.leave(group.name, follower)
      if (followers.isHeld(follower, held)) followers.resume(follower, held, group.top)
      throw error
    })
  }

  /** Whether it is worth asking the broker for what came after a position. */
  #isNear (after: Position, top: Position | undefined): boolean {
    return top?.epoch === after.epoch && top.offset - after.offset <= this.#options.recoveryLimit.messages
  }

  /** Takes note of the place of a message. @returns `false` for one that was delivered before */
  #advance (group: Group, position: Position): boolean {
    const { name, top } = group
    if (top !== undefined) {
      if (covers(top, position)) return false
      // a broker says so before; one that does not must not make followers believe that they have all
      if (!follows(top, position)) this.lost(name, { epoch: position.epoch, offset: position.offset - 1 })
    }
    group.top = position
    return true
  }

  /** Brings the broker's subscription in line with who is there, one call at a time. */
  #settle (group: Group): void {
    if (group.busy) return

    const wanted = group.members.size > 0 || (group.followers?.size ?? 0) > 0 || group.joining !== undefined
    if (wanted === group.subscribed) {
      if (!wanted) this.#groups.delete(group.name)
      return
    }

    group.busy = true
    let call: ReturnType<Broker['subscribe']>
    try {
      if (wanted) group.top = undefined
      call = wanted ? this.#broker.subscribe(group.name) : this.#broker.unsubscribe(group.name)
    } catch (error) {
      return this.#failed(group, error)
    }
    if (isThenable(call)) {
      Promise.resolve(call).then((top) => this.#succeeded(group, top), (error: unknown) => this.#failed(group, error))
    } else {
      this.#succeeded(group, call)
    }
  }

  #succeeded (group: Group, top: Position | void): void {
    group.busy = false
    group.subscribed = !group.subscribed
    // what was delivered meanwhile may be ahead of it
    if (top && !(group.top && covers(group.top, top))) group.top = top

    const { joining } = group
    if (group.subscribed && joining !== undefined) {
      // who leaves as soon as it has entered must not end the group for those who are still to enter
      for (const [member, joined] of joining.members) {
        joining.members.delete(member)
        enter(group, member, joined)
      }
      group.joining = undefined
      joining.done.resolve()
    }
    this.#settle(group)
  }

  #failed (group: Group, cause: unknown): void {
    const error = new errors.RP_ERR_UNAVAILABLE(group.name, { cause })
    this.#options.onError(error, group.name)

    group.busy = false
    if (group.subscribed) {
      // what still arrives for a group without members is ignored, so a failed unsubscribe ends as a good one does
      group.subscribed = false
    } else {
      const { joining } = group
      group.joining = undefined
      joining?.done.promise.catch(() => {})
      joining?.done.reject(error)
    }
    this.#settle(group)
  }
}

/** Publishes, and tells those who listen how it went. */
function observe (group: string, payload: string, publish: () => void | Promise<void>): void | Promise<void> {
  const startedAt = performance.now()
  const tell = (error?: unknown) => diagnostics.publish.publish({
    group, size: Buffer.byteLength(payload), duration: performance.now() - startedAt, error
  })
  try {
    const publishing = publish()
    if (isThenable(publishing)) publishing.then(() => tell(), tell)
    else tell()
    return publishing
  } catch (error) {
    tell(error)
    throw error
  }
}

/** @throws RP_ERR_INVALID_GROUP */
export function checkName (name: unknown): asserts name is string {
  if (!isGroupName(name)) throw new errors.RP_ERR_INVALID_GROUP(show(name))
}

/** Makes somebody a member: a follower stays one unless it subscribes anew, which `joined` is for. */
function enter (group: Group, member: Member, joined: ((group: Group) => void) | undefined): void {
  if (joined === undefined && group.followers?.has(member)) return
  if (group.followers === undefined) group.members.add(member)
  else group.followers.end(member, group.top)
  joined?.(group)
}

function isMember ({ members, followers }: Group, member: Member): boolean {
  return members.has(member) || followers?.has(member) === true
}
