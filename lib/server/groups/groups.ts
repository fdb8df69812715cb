/** All groups of a server. The broker has one subscription for each group with members on this process. */
import type { Broker, Position, PublishOptions } from '../../brokers/broker.ts'
import { diagnostics } from '../../diagnostics.ts'
import { errors, show } from '../../errors.ts'
import { isGroupName } from '../../protocol/group-name.ts'
import { isThenable } from '../../util/thenable.ts'
import { toPayload } from '../sending/envelope.ts'
import { Group, type GroupContext } from './group.ts'
import type { Member, SubscribeRequest } from './member.ts'

/**
 * A connection that waits for the broker to subscribe, because of a `join`, a `subscribe`, or both. Each of them ends
 * by itself.
 */
interface WaitingMember {
  /** The promise of `join`. Its membership continues if the `subscribe` fails. */
  join: PromiseWithResolvers<void> | undefined
  request: SubscribeRequest | undefined
}

/** A group and its subscription at the broker. */
interface BrokerSubscription {
  readonly group: Group
  readonly waiting: Map<Member, WaitingMember>
  isSubscribed: boolean
  /** Whether the broker is subscribing or unsubscribing. There is never a second such call for a group. */
  isBusy: boolean
}

/** Joins connections to groups, subscribes groups at the broker, and passes messages between both. */
export class Groups {
  readonly #subscriptions = new Map<string, BrokerSubscription>()
  readonly #context: GroupContext

  constructor (context: GroupContext) {
    this.#context = context
  }

  /**
   * Makes a connection a member: at once if the broker is synchronous, otherwise when the promise resolves. The promise
   * also resolves when the membership ends meanwhile.
   *
   * @throws RP_ERR_INVALID_GROUP; rejects with RP_ERR_UNAVAILABLE, then the connection is no member
   */
  join (name: string, member: Member): Promise<void> | undefined {
    const subscription = this.#open(name)
    const { group, isSubscribed, isBusy } = subscription
    if (isSubscribed && !isBusy) {
      group.add(member)
      return
    }

    const waiting = this.#wait(subscription, member)
    waiting.join ??= Promise.withResolvers()
    const { promise } = waiting.join
    this.#synchronize(subscription)
    return group.has(member) ? undefined : promise
  }

  /**
   * Makes a connection a member as its `subscribe` requests, and calls `joined` or `failed` of the request.
   *
   * @throws RP_ERR_INVALID_GROUP
   */
  subscribe (name: string, request: SubscribeRequest): void {
    const subscription = this.#open(name)
    if (subscription.isSubscribed && !subscription.isBusy) return subscription.group.subscribe(request)

    this.#wait(subscription, request.member).request = request
    this.#synchronize(subscription)
  }

  /** Cancels a pending request. The connection stays a member if it was one before, or if it has joined meanwhile. */
  cancel (name: string, request: SubscribeRequest): void {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return

    const { group, waiting } = subscription
    group.cancel(request)
    const own = waiting.get(request.member)
    if (own?.request === request) {
      own.request = undefined
      if (own.join === undefined) waiting.delete(request.member)
    }
    this.#synchronize(subscription)
  }

  /** Ends a membership, also one that still waits for the broker. Does nothing if there is none. */
  leave (name: string, member: Member): void {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return

    subscription.group.delete(member)
    const own = subscription.waiting.get(member)
    subscription.waiting.delete(member)
    own?.join?.resolve()
    this.#synchronize(subscription)
  }

  /** Whether a connection is a member, or waits for the broker to become one. */
  has (name: string, member: Member): boolean {
    const subscription = this.#subscriptions.get(name)
    return subscription !== undefined && (subscription.group.has(member) || subscription.waiting.has(member))
  }

  /**
   * Publishes a message. The broker passes it to `deliver` of every process, this one included.
   *
   * @throws RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT
   */
  publish (name: string, message: unknown): void | Promise<void> {
    return this.#publish(name, this.toPayload(name, message))
  }

  /** Encodes a message for `publishText`. @throws the errors of `publish` */
  toPayload (name: string, message: unknown): string {
    checkName(name)
    return toPayload(message, this.#context.broker.keepsHistory === true)
  }

  /** Publishes a text that is known to be a JSON object. @throws RP_ERR_INVALID_GROUP */
  publishText (name: string, payload: string, options?: PublishOptions): void | Promise<void> {
    checkName(name)
    return this.#publish(name, payload, options)
  }

  #publish (name: string, payload: string, options?: PublishOptions): void | Promise<void> {
    const { broker } = this.#context
    if (!diagnostics.publish.hasSubscribers) return broker.publish(name, payload, options)
    return observePublish(name, payload, () => broker.publish(name, payload, options))
  }

  /** Delivers a message of the broker to the members of its group. */
  deliver (name: string, payload: string, position?: Position): void {
    this.#subscriptions.get(name)?.group.deliver(payload, position)
  }

  /**
   * Tells the members with positions that messages of a group are lost.
   *
   * @param top the position after which the log continues
   */
  lost (name: string, top: Position | undefined): void {
    const group = this.#subscriptions.get(name)?.group
    if (group === undefined) this.#context.onLost(name)
    else group.lost(top)
  }

  #open (name: string): BrokerSubscription {
    let subscription = this.#subscriptions.get(name)
    if (subscription === undefined) {
      checkName(name)
      subscription = { group: new Group(name, this.#context), waiting: new Map(), isSubscribed: false, isBusy: false }
      this.#subscriptions.set(name, subscription)
    }
    return subscription
  }

  #wait ({ waiting }: BrokerSubscription, member: Member): WaitingMember {
    let own = waiting.get(member)
    if (own === undefined) waiting.set(member, own = { join: undefined, request: undefined })
    return own
  }

  /**
   * Subscribes a group that has members, and unsubscribes a group that has none, with one call to the broker at a time.
   */
  #synchronize (subscription: BrokerSubscription): void {
    if (subscription.isBusy) return

    const { group, waiting, isSubscribed } = subscription
    const { broker } = this.#context
    const isWanted = group.size > 0 || waiting.size > 0
    if (isWanted === isSubscribed) {
      if (!isWanted) this.#subscriptions.delete(group.name)
      return
    }

    subscription.isBusy = true
    const onSuccess = (top: Position | void) => {
      if (isWanted) this.#onSubscribed(subscription, top)
      else this.#onUnsubscribed(subscription)
    }
    const onFailure = (cause: unknown) => this.#onFailed(subscription, isWanted, cause)
    let call: ReturnType<Broker['subscribe']>
    try {
      if (isWanted) group.resetTop()
      call = isWanted ? broker.subscribe(group.name) : broker.unsubscribe(group.name)
    } catch (error) {
      return onFailure(error)
    }
    if (isThenable(call)) Promise.resolve(call).then(onSuccess, onFailure)
    else onSuccess(call)
  }

  #onSubscribed (subscription: BrokerSubscription, top: Position | void): void {
    const { group, waiting } = subscription
    subscription.isBusy = false
    subscription.isSubscribed = true
    if (top) group.initializeTop(top)

    // a member that leaves at once must not end the subscription while other members wait: they leave `waiting` one by
    // one
    for (const [member, { join, request }] of waiting) {
      waiting.delete(member)
      if (join !== undefined) group.add(member)
      if (request !== undefined) group.subscribe(request)
      join?.resolve()
    }
    this.#synchronize(subscription)
  }

  #onUnsubscribed (subscription: BrokerSubscription): void {
    subscription.isBusy = false
    subscription.isSubscribed = false
    this.#synchronize(subscription)
  }

  #onFailed (subscription: BrokerSubscription, isWanted: boolean, cause: unknown): void {
    const { group: { name }, waiting } = subscription
    const error = new errors.RP_ERR_UNAVAILABLE(name, { cause })
    this.#context.onError(error, name)
    // messages for a group without members are ignored, so a failed unsubscribe counts as done
    if (!isWanted) return this.#onUnsubscribed(subscription)

    const failed = [...waiting.values()]
    waiting.clear()
    subscription.isBusy = false
    this.#synchronize(subscription)
    for (const { join, request } of failed) {
      join?.promise.catch(() => {})
      join?.reject(error)
      request?.failed(error)
    }
  }
}

/** Publishes a message, and reports its outcome on the channel `rohrpost:publish`. */
function observePublish (group: string, payload: string, publish: () => void | Promise<void>): void | Promise<void> {
  const startedAt = performance.now()
  const report = (error?: unknown) => diagnostics.publish.publish({
    group, size: Buffer.byteLength(payload), duration: performance.now() - startedAt, error
  })
  try {
    const publishing = publish()
    if (isThenable(publishing)) publishing.then(() => report(), report)
    else report()
    return publishing
  } catch (error) {
    report(error)
    throw error
  }
}

/** Checks that a value is a group name. @throws RP_ERR_INVALID_GROUP */
export function checkName (name: unknown): asserts name is string {
  if (!isGroupName(name)) throw new errors.RP_ERR_INVALID_GROUP(show(name))
}
