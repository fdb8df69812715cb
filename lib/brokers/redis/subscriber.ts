/** The groups that this process hears: their channels at Redis. With history `CatchUp` sees to it that nothing is missing in between. */
import { errors } from '../../errors.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Trouble } from '../../util/trouble.ts'
import type { Position, Receiver } from '../broker.ts'
import { CatchUp, type Subscription } from './gap-repair.ts'
import { isPassing, isReply } from './redis-client.ts'
import type { Connection } from './redis-connection.ts'
import { open } from './batch.ts'
import type { Reader } from './reader.ts'

/** What hearing needs. */
export interface SubscriberOptions {
  receiver: Receiver
  /** The connection that hears. */
  ears: Connection
  /** The connection for commands, and what reads on it. */
  commands: Connection
  reader: Reader
  /** What a group's name is appended to. */
  channel: string
  /** Milliseconds. */
  timeout: number
  /** How many messages are kept; 0 without history. */
  size: number
  /** Told of calls that Redis refuses as a whole, and of those that it takes. */
  reading: Trouble
  /** Told of groups that can't be heard or read although others can. */
  groups: Trouble
  /** Called when another process publishes without history, while this one has it. */
  onUnkept: () => void
}

/** Channels of one command. */
const CHUNK = 100
/** The bounds of the delay before what Redis refuses is tried again, in milliseconds. */
const RETRY = { min: 200, max: 30_000 }

export class Subscriber {
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #options: SubscriberOptions
  readonly #catchUp: CatchUp
  /** What is to be told to Redis at the end of the turn. */
  readonly #added = new Set<Subscription>()
  readonly #removed = new Set<string>()
  #isScheduled = false
  /** Counts the connections. */
  #session = 0
  /** The groups that members hear, but Redis does not let us hear or read; true if the channel is refused. */
  readonly #refused = new Map<Subscription, boolean>()
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  #retrying: NodeJS.Timeout | undefined

  constructor (options: SubscriberOptions) {
    this.#options = options
    const { receiver, reader, commands, size, reading } = options
    this.#catchUp = new CatchUp({
      receiver,
      reader,
      connection: commands,
      size,
      events: {
        opened: (subscription, top) => this.#opened(subscription, top),
        failed: (subscription, error) => this.#refuse(subscription, error, false),
        succeeded: (subscription) => this.#accept(subscription),
        accepted: () => {
          reading.end()
          this.#calm()
        },
        refused: (subscriptions, error) => this.#unreadable(subscriptions, error)
      }
    })
  }

  /** Rejects with RP_ERR_BROKER_UNAVAILABLE when Redis refuses, or takes longer than `timeout`. */
  subscribe (group: string): Promise<Position | undefined> {
    const channel = this.#options.channel + group
    const opening = Promise.withResolvers<Position | undefined>()
    const subscription: Subscription = { group, channel, epoch: '', offset: 0, isBehind: true, isAsked: false, held: [], isCut: false, opening }
    this.#subscriptions.set(channel, subscription)
    this.#added.add(subscription)
    this.#schedule()
    return opening.promise
  }

  unsubscribe (group: string): void {
    const channel = this.#options.channel + group
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    this.#subscriptions.delete(channel)
    this.#added.delete(subscription)
    this.#catchUp.delete(subscription)
    this.#accept(subscription)
    this.#removed.add(channel)
    this.#schedule()
  }

  /** Takes a message of Redis. */
  receive (channel: string, text: string): void {
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    const { receiver, size, onUnkept } = this.#options
    const run = open(text)
    if (run === undefined) {
      receiver.error(new Error(`Channel '${channel}' has a message that no broker published`), { stage: 'deliver' })
    } else if (size === 0) {
      for (const payload of run.payloads) receiver.deliver(subscription.group, payload)
    } else if (run.first === 0) {
      onUnkept()
      this.#catchUp.takeWithoutPosition(subscription, run)
    } else {
      this.#catchUp.take(subscription, run)
    }
  }

  /** Hears all groups on a connection that is new, and looks for what was missed meanwhile. */
  resume (): void {
    const isReturn = ++this.#session > 1
    // what was added in this turn still has to be given its time at the end of it
    this.#removed.clear()
    const all = [...this.#subscriptions.values()]
    for (const subscription of all) this.#catchUp.hold(subscription)
    this.#announce(all, isReturn)
  }

  /** Goes on with questions that Redis could not answer. */
  check (): void {
    this.#catchUp.check()
  }

  /** Hears nothing any more. */
  close (): void {
    clearTimeout(this.#retrying)
    for (const subscription of [...this.#subscriptions.values()]) {
      this.#fail(subscription, 'it is closed')
      this.#catchUp.delete(subscription)
    }
    this.#subscriptions.clear()
  }

  /** Everything that joins and leaves in one turn goes out in few commands. */
  #schedule (): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      const { ears, timeout } = this.#options
      const added = [...this.#added]
      const removed = [...this.#removed]
      this.#added.clear()
      this.#removed.clear()
      if (added.length > 0) setTimeout(() => this.#timeOut(added), timeout).unref()

      // without a connection it is done when there is one
      if (!ears.isReady) return
      for (let at = 0; at < removed.length; at += CHUNK) ears.redis.unsubscribe(...removed.slice(at, at + CHUNK)).catch(() => {})
      this.#announce(added, false)
    })
  }

  /** Subscribes at Redis. What comes from then on is heard, so what came before can be asked for. */
  #announce (subscriptions: readonly Subscription[], isReturn: boolean): void {
    // all of them are sent at once, so that no group that is left meanwhile is subscribed to afterwards
    for (let at = 0; at < subscriptions.length; at += CHUNK) this.#announceSome(subscriptions.slice(at, at + CHUNK), isReturn)
  }

  async #announceSome (some: readonly Subscription[], isReturn: boolean): Promise<void> {
    const { ears, size } = this.#options
    const session = this.#session
    try {
      await ears.redis.subscribe(...some.map(({ channel }) => channel))
      for (const subscription of some) this.#heard(subscription, isReturn)
      // the next ones are announced while these are asked for
      if (size > 0) this.check()
    } catch (error) {
      // a lost connection comes back, and all are announced again
      if (!isReply(error) || session !== this.#session) return
      const current = some.filter((subscription) => this.#isCurrent(subscription))
      // Redis refuses a command as a whole: the other groups are to be heard all the same
      if (some.length > 1) for (const subscription of current) this.#announceSome([subscription], isReturn)
      else for (const subscription of current) this.#refuse(subscription, error as Error, true)
    }
  }

  #isCurrent (subscription: Subscription): boolean {
    return this.#subscriptions.get(subscription.channel) === subscription
  }

  /** Redis sends what is published in a group from now on. */
  #heard (subscription: Subscription, isReturn: boolean): void {
    if (!this.#isCurrent(subscription)) return
    if (this.#options.size > 0) {
      this.#catchUp.add(subscription)
      return
    }
    const wasRefused = this.#refused.has(subscription)
    this.#accept(subscription)
    if (subscription.opening !== undefined) this.#opened(subscription)
    else if (isReturn || wasRefused) this.#options.receiver.lost(subscription.group)
  }

  #opened (subscription: Subscription, top?: Position): void {
    const { opening } = subscription
    subscription.opening = undefined
    opening?.resolve(top)
  }

  /** Redis does not let us hear or read a group. The caller of a new subscription is told; one with members is tried again. */
  #refuse (subscription: Subscription, error: Error, isChannel: boolean): void {
    if (subscription.opening !== undefined) {
      this.#fail(subscription, error.message)
      return
    }
    this.#refused.set(subscription, isChannel)
    this.#options.groups.fail(new Error(`Group '${subscription.group}' is not heard: ${error.message}`, { cause: error }))
    this.#retryLater()
  }

  /** A group is heard and read again, or was left. */
  #accept (subscription: Subscription): void {
    if (!this.#refused.delete(subscription) || this.#refused.size > 0) return
    this.#options.groups.end()
    this.#calm()
  }

  /** Ends the retries when there is no trouble any more. */
  #calm (): void {
    const { groups, reading } = this.#options
    if (groups.error !== undefined || reading.error !== undefined) return
    clearTimeout(this.#retrying)
    this.#retrying = undefined
    this.#backoff.reset()
  }

  /** Redis refuses to read anything. */
  #unreadable (subscriptions: readonly Subscription[], error: Error): void {
    this.#options.reading.fail(error)
    // the connection is made anew, which asks again
    if (isPassing(error)) return
    for (const subscription of subscriptions) this.#fail(subscription, error.message)
    this.#retryLater()
  }

  #retryLater (): void {
    this.#retrying ??= setTimeout(() => {
      this.#retrying = undefined
      for (const [subscription, isChannel] of this.#refused) {
        if (isChannel) this.#announceSome([subscription], false)
        else this.#catchUp.add(subscription)
      }
      this.check()
      this.#retryLater()
    }, this.#backoff.next()).unref()
  }

  #timeOut (subscriptions: readonly Subscription[]): void {
    for (const subscription of subscriptions) this.#fail(subscription, `Redis did not confirm the subscription within ${this.#options.timeout} ms`)
  }

  /** Gives up a subscription that nobody hears yet. */
  #fail (subscription: Subscription, reason: string): void {
    const { opening } = subscription
    if (opening === undefined || !this.#isCurrent(subscription)) return
    this.unsubscribe(subscription.group)
    opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(reason))
  }
}
