/** All groups of a server, and one subscription at the broker for each group that has members on this process. */
import type { Broker, Position } from '../brokers/broker.ts'
import { diagnostics } from '../diagnostics.ts'
import { errors, show } from '../errors.ts'
import { isGroupName } from '../protocol/group-name.ts'
import { toPayload } from './envelope.ts'
import type { Follower } from './followers.ts'
import { Group, type GroupContext, type Member, type Start } from './group.ts'
import { isThenable } from './thenable.ts'

/** What groups need and tell. */
export interface GroupsContext extends GroupContext {
  /** The broker failed to change a subscription, or to give history. */
  onError (error: Error, group: string): void
}

/** Those who wait for the broker's subscription to a group. */
interface Joining {
  members: Map<Member, ((group: Group) => void) | undefined>
  done: PromiseWithResolvers<void>
}

/** A group and its subscription at the broker. */
interface Subscription {
  readonly group: Group
  joining: Joining | undefined
  subscribed: boolean
  /** Whether a call to the broker is under way; there is never a second one. */
  busy: boolean
}

/** The groups of one server. */
export class Groups {
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #context: GroupsContext

  constructor (context: GroupsContext) {
    this.#context = context
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
    const failed = (error: Error) => {
      this.#context.onError(error, name)
      if (isNew) this.leave(name, follower)
    }
    let reading: Promise<void> | undefined
    const joining = this.#join(name, follower, (group) => {
      reading = group.follow(follower, after, { started, failed })
    })
    return joining === undefined ? reading : joining.then(() => reading)
  }

  /** Ends a membership, also one that still waits for the broker; a name without group is fine. */
  leave (name: string, member: Member): void {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return

    subscription.group.delete(member)
    const { joining } = subscription
    if (joining?.members.delete(member) && joining.members.size === 0) {
      subscription.joining = undefined
      joining.done.resolve()
    }
    this.#settle(subscription)
  }

  /** Whether somebody is a member, or waits to be one. */
  has (name: string, member: Member): boolean {
    const subscription = this.#subscriptions.get(name)
    return subscription !== undefined && (subscription.group.has(member) || subscription.joining?.members.has(member) === true)
  }

  /** Gives a message to the broker, from which it comes back to `deliver`. @throws RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT */
  publish (name: string, message: unknown): void | Promise<void> {
    checkName(name)
    const { broker } = this.#context
    const payload = toPayload(message, broker.keepsHistory === true)
    if (!diagnostics.publish.hasSubscribers) return broker.publish(name, payload)
    return observe(name, payload, () => broker.publish(name, payload))
  }

  /** Sends what the broker heard to the members. */
  deliver (name: string, payload: string, position?: Position): void {
    this.#subscriptions.get(name)?.group.deliver(payload, position)
  }

  /** Tells those who follow a group that messages are missing. @param top where it goes on */
  lost (name: string, top: Position | undefined): void {
    const group = this.#subscriptions.get(name)?.group
    if (group === undefined) this.#context.onLost(name)
    else group.lost(top)
  }

  #join (name: string, member: Member, joined: ((group: Group) => void) | undefined): Promise<void> | undefined {
    let subscription = this.#subscriptions.get(name)
    if (subscription === undefined) {
      checkName(name)
      subscription = { group: new Group(name, this.#context), joining: undefined, subscribed: false, busy: false }
      this.#subscriptions.set(name, subscription)
    }

    if (subscription.subscribed && !subscription.busy) {
      subscription.group.enter(member, joined)
      return
    }

    const joining = subscription.joining ??= { members: new Map(), done: Promise.withResolvers() }
    if (joined !== undefined || !joining.members.has(member)) joining.members.set(member, joined)
    this.#settle(subscription)
    if (subscription.joining !== joining && subscription.group.has(member)) return
    return joining.done.promise
  }

  /** Brings the broker's subscription in line with who is there, one call at a time. */
  #settle (subscription: Subscription): void {
    if (subscription.busy) return

    const { group } = subscription
    const { broker } = this.#context
    const wanted = group.size > 0 || subscription.joining !== undefined
    if (wanted === subscription.subscribed) {
      if (!wanted) this.#subscriptions.delete(group.name)
      return
    }

    subscription.busy = true
    let call: ReturnType<Broker['subscribe']>
    try {
      if (wanted) group.reset()
      call = wanted ? broker.subscribe(group.name) : broker.unsubscribe(group.name)
    } catch (error) {
      return this.#failed(subscription, error)
    }
    if (isThenable(call)) {
      Promise.resolve(call).then((top) => this.#succeeded(subscription, top), (error: unknown) => this.#failed(subscription, error))
    } else {
      this.#succeeded(subscription, call)
    }
  }

  #succeeded (subscription: Subscription, top: Position | void): void {
    const { group, joining } = subscription
    subscription.busy = false
    subscription.subscribed = !subscription.subscribed
    if (top) group.begin(top)

    if (subscription.subscribed && joining !== undefined) {
      // who leaves as soon as it has entered must not end the group for those who are still to enter
      for (const [member, joined] of joining.members) {
        joining.members.delete(member)
        group.enter(member, joined)
      }
      subscription.joining = undefined
      joining.done.resolve()
    }
    this.#settle(subscription)
  }

  #failed (subscription: Subscription, cause: unknown): void {
    const { group: { name }, joining } = subscription
    const error = new errors.RP_ERR_UNAVAILABLE(name, { cause })
    this.#context.onError(error, name)

    subscription.busy = false
    if (subscription.subscribed) {
      // what still arrives for a group without members is ignored, so a failed unsubscribe ends as a good one does
      subscription.subscribed = false
    } else {
      subscription.joining = undefined
      joining?.done.promise.catch(() => {})
      joining?.done.reject(error)
    }
    this.#settle(subscription)
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
