/**
 * The groups that this process hears. With history each has a cursor; whatever comes that does not follow on it, and every lost connection, is
 * first made good from what Redis keeps.
 */
import { errors } from '../../errors.ts'
import type { Position, Receiver } from '../broker.ts'
import { isReply } from './client.ts'
import type { Connection } from './connection.ts'
import { open, type Run } from './envelope.ts'

/** What Redis keeps of a group from a position on. */
export interface Kept {
  epoch: string
  /** The group's last offset. */
  top: number
  /** Whether nothing is missing between the position and the payloads. */
  complete: boolean
  payloads: string[]
}

/** What hearing needs. */
export interface SubscriberOptions {
  /** What a group's name is appended to. */
  channel: string
  /** Milliseconds. */
  timeout: number
  /** How many messages are kept; 0 without history. */
  size: number
  connection: () => Connection | undefined
  /** Asks Redis what it keeps. @throws as ioredis does */
  read: (asked: { group: string, epoch: string, offset: number, limit: number }[]) => Promise<Kept[]>
  /** Called when what was read could not be had from a Redis that answers. */
  retry: () => void
}

interface Subscription {
  group: string
  channel: string
  epoch: string
  offset: number
  /** Whether messages are held until Redis has been asked what was missed. */
  isBehind: boolean
  /** What came since it was asked. */
  held: Run[]
  /** Who waits to hear the group. */
  opening: PromiseWithResolvers<Position | undefined> | undefined
}

/** Channels of one command, groups of one question. */
const CHUNK = 100
/** Runs of a group that are held while Redis is asked; past it they are asked for, too. */
const HELD = 100

export class Subscriber {
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #receiver: Receiver
  readonly #options: SubscriberOptions
  /** What is to be told to Redis at the end of the turn. */
  readonly #added = new Set<Subscription>()
  readonly #removed = new Set<string>()
  #isScheduled = false
  /** Those whose cursor may be behind. */
  readonly #stale = new Set<Subscription>()
  #isChecking = false
  #wasReady = false

  constructor (receiver: Receiver, options: SubscriberOptions) {
    this.#receiver = receiver
    this.#options = options
  }

  /** Rejects with RP_ERR_BROKER_UNAVAILABLE when Redis takes longer than `timeout`. */
  subscribe (group: string): Promise<Position | undefined> {
    const channel = this.#options.channel + group
    const subscription: Subscription = { group, channel, epoch: '', offset: 0, isBehind: true, held: [], opening: Promise.withResolvers() }
    this.#subscriptions.set(channel, subscription)
    this.#added.add(subscription)
    this.#schedule()
    return (subscription.opening as PromiseWithResolvers<Position | undefined>).promise
  }

  unsubscribe (group: string): void {
    const channel = this.#options.channel + group
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    this.#forget(subscription)
    this.#removed.add(channel)
    this.#schedule()
  }

  /** Takes a message of Redis. */
  receive (channel: string, text: string): void {
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    const run = open(text)
    if (run === undefined) {
      this.#receiver.error(new Error(`Channel '${channel}' has a message that no broker published`), { stage: 'deliver' })
    } else if (this.#options.size === 0) {
      for (const payload of run.payloads) this.#receiver.deliver(subscription.group, payload)
    } else {
      this.#take(subscription, run)
    }
  }

  /** Hears all groups on a connection that is new, and looks for what was missed meanwhile. */
  resume (): void {
    const isReturn = this.#wasReady
    this.#wasReady = true
    this.#stale.clear()
    // what was added in this turn still has to be given its time at the end of it
    this.#removed.clear()
    const all = [...this.#subscriptions.values()]
    for (const subscription of all) subscription.isBehind = true
    this.#announce(all, isReturn)
  }

  /** Goes on with questions that Redis could not answer. */
  async check (): Promise<void> {
    if (this.#isChecking) return
    this.#isChecking = true
    while (this.#stale.size > 0) {
      const asked = [...this.#stale].slice(0, CHUNK)
      for (const subscription of asked) this.#stale.delete(subscription)
      try {
        const kept = await this.#options.read(asked.map(({ group, epoch, offset, opening }) => ({ group, epoch, offset, limit: opening === undefined ? this.#options.size : 0 })))
        kept.forEach((found, index) => this.#repair(asked[index] as Subscription, found))
      } catch (error) {
        for (const subscription of asked) this.#stale.add(subscription)
        if (isReply(error)) {
          this.#receiver.error(error as Error, { stage: 'subscribe' })
          this.#options.retry()
        }
        break
      }
    }
    this.#isChecking = false
  }

  close (): void {
    for (const subscription of this.#subscriptions.values()) this.#fail(subscription, 'it is closed')
  }

  /** Everything that joins and leaves in one turn goes out in few commands. */
  #schedule (): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      const added = [...this.#added]
      const removed = [...this.#removed]
      this.#added.clear()
      this.#removed.clear()
      if (added.length > 0) setTimeout(() => this.#timeOut(added), this.#options.timeout).unref()

      const connection = this.#options.connection()
      // without a connection it is done when there is one
      if (!connection?.isReady) return
      for (let at = 0; at < removed.length; at += CHUNK) connection.redis.unsubscribe(...removed.slice(at, at + CHUNK)).catch(() => {})
      this.#announce(added, false)
    })
  }

  /** Subscribes at Redis. What comes from then on is heard, so what came before can be asked for. */
  async #announce (subscriptions: Subscription[], isReturn: boolean): Promise<void> {
    const connection = this.#options.connection()
    const chunks = Array.from({ length: Math.ceil(subscriptions.length / CHUNK) }, (_, n) => subscriptions.slice(n * CHUNK, (n + 1) * CHUNK))
    // all of them are sent at once, so that no group that is left meanwhile is subscribed to afterwards
    await Promise.all(chunks.map(async (some) => {
      try {
        await connection?.redis.subscribe(...some.map(({ channel }) => channel))
        for (const subscription of some) this.#heard(subscription, isReturn)
      } catch (error) {
        // a lost connection comes back, and all are announced again
        if (isReply(error)) this.#refused(some, error as Error)
      }
      // the next ones are announced while these are asked for
      if (this.#stale.size > 0) this.check()
    }))
  }

  /** Redis sends what is published in a group from now on. */
  #heard (subscription: Subscription, isReturn: boolean): void {
    if (this.#subscriptions.get(subscription.channel) !== subscription) return
    if (this.#options.size > 0) this.#stale.add(subscription)
    else if (subscription.opening !== undefined) this.#opened(subscription)
    else if (isReturn) this.#receiver.lost(subscription.group)
  }

  #opened (subscription: Subscription): void {
    const { epoch, offset, opening } = subscription
    subscription.opening = undefined
    opening?.resolve(this.#options.size > 0 ? { epoch, offset } : undefined)
  }

  /** Brings a cursor up to date with what Redis keeps, and goes on with what came meanwhile. */
  #repair (subscription: Subscription, { epoch, top, complete, payloads }: Kept): void {
    if (this.#subscriptions.get(subscription.channel) !== subscription) return
    const { held } = subscription
    subscription.held = []
    subscription.isBehind = false

    if (subscription.opening !== undefined) {
      // nobody hears yet, so what came while Redis was asked counts as being before
      const newest = held.findLast((run) => run.epoch === epoch)
      subscription.epoch = epoch
      subscription.offset = newest === undefined ? top : Math.max(top, newest.first + newest.payloads.length - 1)
      this.#opened(subscription)
    } else if (complete) {
      this.#take(subscription, { epoch, first: subscription.offset + 1, payloads })
    } else {
      // of another log nobody has heard anything yet: it was begun because Redis came back or forgot, for which no message need be missed
      const isNew = epoch !== subscription.epoch
      subscription.epoch = epoch
      subscription.offset = isNew ? 0 : top
      this.#receiver.lost(subscription.group, { epoch, offset: subscription.offset })
      if (subscription.offset < top) {
        subscription.isBehind = true
        this.#stale.add(subscription)
      }
    }
    for (const run of held) this.#take(subscription, run)
  }

  /** Delivers what follows on the cursor, leaves out what is behind it, and asks for what is missing before it. */
  #take (subscription: Subscription, run: Run): void {
    const { group, held } = subscription
    if (subscription.isBehind) {
      if (held.length === HELD) held.length = 0
      held.push(run)
      return
    }
    if (run.epoch !== subscription.epoch || run.first > subscription.offset + 1) {
      subscription.isBehind = true
      this.#stale.add(subscription)
      this.check()
      return
    }
    for (const payload of run.payloads.slice(subscription.offset + 1 - run.first)) {
      this.#receiver.deliver(group, payload, { epoch: run.epoch, offset: ++subscription.offset })
    }
  }

  /** Redis does not let us hear these groups. */
  #refused (subscriptions: readonly Subscription[], error: Error): void {
    this.#receiver.error(error, { stage: 'subscribe' })
    for (const subscription of subscriptions) this.#fail(subscription, error.message)
    // those that were heard before would be deaf from now on without a word
    if (subscriptions.some(({ channel }) => this.#subscriptions.has(channel))) this.#options.connection()?.reconnect()
  }

  #timeOut (subscriptions: readonly Subscription[]): void {
    for (const subscription of subscriptions) this.#fail(subscription, `Redis did not confirm the subscription within ${this.#options.timeout} ms`)
  }

  /** Gives up a subscription that nobody hears yet. */
  #fail (subscription: Subscription, reason: string): void {
    const { opening } = subscription
    if (opening === undefined || this.#subscriptions.get(subscription.channel) !== subscription) return
    this.unsubscribe(subscription.group)
    opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(reason))
  }

  #forget (subscription: Subscription): void {
    this.#subscriptions.delete(subscription.channel)
    this.#added.delete(subscription)
    this.#stale.delete(subscription)
  }
}
