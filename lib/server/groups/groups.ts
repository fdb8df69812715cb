/** All groups of a server, and one subscription at the broker for each group that has members on this process. */
import type { Broker, Position } from '../../brokers/broker.ts'
import { diagnostics } from '../../diagnostics.ts'
import { errors, show } from '../../errors.ts'
import { isGroupName } from '../../protocol/group-name.ts'
import { toPayload } from '../sending/envelope.ts'
import type { JoinRequest } from './catch-up.ts'
import { Group, type GroupContext, type Member } from './group.ts'
import { isThenable } from '../../util/thenable.ts'

/** What a connection waits for until the broker has subscribed: `join`, a `subscribe`, or both, each with an end of its own. */
interface Waiting {
  /** The promise of `join`; such a membership outlives a `subscribe` that fails. */
  join: PromiseWithResolvers<void> | undefined
  request: JoinRequest | undefined
}

/** A group and its subscription at the broker. */
interface Subscription {
  readonly group: Group
  readonly waiting: Map<Member, Waiting>
  subscribed: boolean
  /** Whether a call to the broker is under way; there is never a second one. */
  busy: boolean
}

/** The groups of one server. */
export class Groups {
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #context: GroupContext

  constructor (context: GroupContext) {
    this.#context = context
  }

  /**
   * Makes a connection a member: at once where the broker answers at once, else when the promise resolves. A membership that ends meanwhile
   * resolves the promise too.
   *
   * @throws RP_ERR_INVALID_GROUP; rejects with RP_ERR_UNAVAILABLE, then the connection is no member
   */
  join (name: string, member: Member): Promise<void> | undefined {
    const subscription = this.#open(name)
    const { group, subscribed, busy } = subscription
    if (subscribed && !busy) {
      group.enter(member)
      return
    }

    const waiting = this.#await(subscription, member)
    waiting.join ??= Promise.withResolvers()
    const { promise } = waiting.join
    this.#settle(subscription)
    return group.has(member) ? undefined : promise
  }

  /** Makes a connection a member as a `subscribe` asks, and tells the request. @throws RP_ERR_INVALID_GROUP */
  subscribe (name: string, request: JoinRequest): void {
    const subscription = this.#open(name)
    if (subscription.subscribed && !subscription.busy) return subscription.group.subscribe(request)

    this.#await(subscription, request.member).request = request
    this.#settle(subscription)
  }

  /** Ends a request that is not answered yet. The connection is as it was before: a member if it was one, or if it was put into the group since. */
  cancel (name: string, request: JoinRequest): void {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return

    const { group, waiting } = subscription
    group.cancel(request)
    const own = waiting.get(request.member)
    if (own?.request === request) {
      own.request = undefined
      if (own.join === undefined) waiting.delete(request.member)
    }
    this.#settle(subscription)
  }

  /** Ends a membership, also one that still waits for the broker; a name without group is fine. */
  leave (name: string, member: Member): void {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return

    subscription.group.delete(member)
    const own = subscription.waiting.get(member)
    subscription.waiting.delete(member)
    own?.join?.resolve()
    this.#settle(subscription)
  }

  /** Whether a connection is a member, or waits to be one. */
  has (name: string, member: Member): boolean {
    const subscription = this.#subscriptions.get(name)
    return subscription !== undefined && (subscription.group.has(member) || subscription.waiting.has(member))
  }

  /** Gives a message to the broker, from which it comes back to `deliver`. @throws RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT */
  publish (name: string, message: unknown): void | Promise<void> {
    checkName(name)
    return this.#publish(name, toPayload(message, this.#context.broker.keepsHistory === true))
  }

  /** Publishes a text that is known to be a JSON object. @throws RP_ERR_INVALID_GROUP */
  publishText (name: string, payload: string): void | Promise<void> {
    checkName(name)
    return this.#publish(name, payload)
  }

  #publish (name: string, payload: string): void | Promise<void> {
    const { broker } = this.#context
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

  #open (name: string): Subscription {
    let subscription = this.#subscriptions.get(name)
    if (subscription === undefined) {
      checkName(name)
      subscription = { group: new Group(name, this.#context), waiting: new Map(), subscribed: false, busy: false }
      this.#subscriptions.set(name, subscription)
    }
    return subscription
  }

  #await ({ waiting }: Subscription, member: Member): Waiting {
    let own = waiting.get(member)
    if (own === undefined) waiting.set(member, own = { join: undefined, request: undefined })
    return own
  }

  /** Brings the broker's subscription in line with the members, one call at a time. */
  #settle (subscription: Subscription): void {
    if (subscription.busy) return

    const { group, waiting, subscribed } = subscription
    const { broker } = this.#context
    const wanted = group.size > 0 || waiting.size > 0
    if (wanted === subscribed) {
      if (!wanted) this.#subscriptions.delete(group.name)
      return
    }

    subscription.busy = true
    const succeeded = (top: Position | void) => wanted ? this.#subscribed(subscription, top) : this.#unsubscribed(subscription)
    const failed = (cause: unknown) => this.#failed(subscription, wanted, cause)
    let call: ReturnType<Broker['subscribe']>
    try {
      if (wanted) group.reset()
      call = wanted ? broker.subscribe(group.name) : broker.unsubscribe(group.name)
    } catch (error) {
      return failed(error)
    }
    if (isThenable(call)) Promise.resolve(call).then(succeeded, failed)
    else succeeded(call)
  }

  #subscribed (subscription: Subscription, top: Position | void): void {
    const { group, waiting } = subscription
    subscription.busy = false
    subscription.subscribed = true
    if (top) group.begin(top)

    // a member that leaves as soon as it has entered must not end the group for those that are still to enter
    for (const [member, { join, request }] of waiting) {
      waiting.delete(member)
      if (join !== undefined) group.enter(member)
      if (request !== undefined) group.subscribe(request)
      join?.resolve()
    }
    this.#settle(subscription)
  }

  #unsubscribed (subscription: Subscription): void {
    subscription.busy = false
    subscription.subscribed = false
    this.#settle(subscription)
  }

  #failed (subscription: Subscription, wanted: boolean, cause: unknown): void {
    const { group: { name }, waiting } = subscription
    const error = new errors.RP_ERR_UNAVAILABLE(name, { cause })
    this.#context.onError(error, name)
    // what still arrives for a group without members is ignored, so a failed unsubscribe ends as a good one does
    if (!wanted) return this.#unsubscribed(subscription)

    const failed = [...waiting.values()]
    waiting.clear()
    subscription.busy = false
    this.#settle(subscription)
    for (const { join, request } of failed) {
      join?.promise.catch(() => {})
      join?.reject(error)
      request?.failed(error)
    }
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
