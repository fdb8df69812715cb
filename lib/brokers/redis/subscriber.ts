/**
 * Subscribes to the Redis channels of the groups that have members in this process. `GapRepair` delivers the messages
 * of a broker with history.
 */
import { errors } from '../../errors.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Outage } from '../../util/outage.ts'
import type { Position, Receiver } from '../broker.ts'
import { decodeChannelMessage } from './channel-message.ts'
import { GapRepair, type ChannelSubscription } from './gap-repair.ts'
import type { HistoryReader } from './history-reader.ts'
import { isErrorReply, isTemporary } from './redis-client.ts'
import type { RedisConnection } from './redis-connection.ts'

export interface ChannelSubscriberOptions {
  receiver: Receiver
  /** The connection that subscribes to channels. Redis allows no other commands on it. */
  subscriberConnection: RedisConnection
  /** The connection of `reader`. */
  commandConnection: RedisConnection
  reader: HistoryReader
  /** Prefix of all channels, before the group's name. */
  channelPrefix: string
  /** Milliseconds after which a `subscribe` call fails. */
  timeout: number
  /** Number of messages that Redis keeps for each group; 0 without history. */
  size: number
  /** The time in which Redis refuses to read any group. */
  readOutage: Outage
  /** The time in which Redis refuses to subscribe to, or to read, single groups. */
  groupOutage: Outage
  /** Called if this process keeps history and receives a message of a process that does not. */
  onMissingPosition: () => void
}

/** Most channels of one SUBSCRIBE or UNSUBSCRIBE command. */
const CHANNELS_PER_COMMAND = 100
/** Bounds of the delay before refused subscriptions and reads are retried, in milliseconds. */
const RETRY_DELAY = { min: 200, max: 30_000 }

export class ChannelSubscriber {
  /** All subscriptions by channel. */
  readonly #subscriptions = new Map<string, ChannelSubscription>()
  readonly #options: ChannelSubscriberOptions
  readonly #gapRepair: GapRepair
  /** Subscriptions and channels for the next commands, sent at the end of the turn of the event loop. */
  readonly #added = new Set<ChannelSubscription>()
  readonly #removed = new Set<string>()
  #isScheduled = false
  /** Number of the current subscriber connection. */
  #generation = 0
  /** Groups with members that Redis refuses, and the refused command. */
  readonly #refused = new Map<ChannelSubscription, 'subscribe' | 'read'>()
  readonly #backoff = new Backoff(RETRY_DELAY.min, RETRY_DELAY.max)
  #retryTimer: NodeJS.Timeout | undefined

  constructor (options: ChannelSubscriberOptions) {
    this.#options = options
    const { receiver, reader, commandConnection, size, readOutage } = options
    this.#gapRepair = new GapRepair({
      receiver,
      reader,
      connection: commandConnection,
      size,
      events: {
        positionFound: (subscription, top) => this.#resolve(subscription, top),
        groupFailed: (subscription, error) => this.#onRefused(subscription, 'read', error),
        groupRead: (subscription) => this.#onAccepted(subscription),
        readAccepted: () => {
          readOutage.end()
          this.#stopRetries()
        },
        readRefused: (subscriptions, error) => this.#onReadRefused(subscriptions, error)
      }
    })
  }

  /**
   * Subscribes to the channel of a group.
   *
   * @returns the group's position if the broker keeps history. Rejects with RP_ERR_BROKER_UNAVAILABLE if Redis refuses,
   * or does not reply within `timeout`
   */
  subscribe (group: string): Promise<Position | undefined> {
    const pending = Promise.withResolvers<Position | undefined>()
    const subscription: ChannelSubscription = {
      group,
      channel: this.#options.channelPrefix + group,
      epoch: '',
      offset: 0,
      isBuffering: true,
      isReading: false,
      buffer: [],
      hasOverflowed: false,
      pending
    }
    this.#subscriptions.set(subscription.channel, subscription)
    this.#added.add(subscription)
    this.#schedule()
    return pending.promise
  }

  unsubscribe (group: string): void {
    const channel = this.#options.channelPrefix + group
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    this.#subscriptions.delete(channel)
    this.#added.delete(subscription)
    this.#gapRepair.delete(subscription)
    this.#onAccepted(subscription)
    this.#removed.add(channel)
    this.#schedule()
  }

  /** Handles a message that Redis has sent on a channel. */
  onMessage (channel: string, text: string): void {
    const subscription = this.#subscriptions.get(channel)
    if (subscription === undefined) return
    const { receiver, size, onMissingPosition } = this.#options
    const batch = decodeChannelMessage(text)
    if (batch === undefined) {
      receiver.error(new Error(`Channel '${channel}' has a message that no broker published`), { stage: 'deliver' })
    } else if (size === 0) {
      for (const payload of batch.payloads) receiver.deliver(subscription.group, payload)
    } else if (batch.firstOffset === 0) {
      onMissingPosition()
      this.#gapRepair.deliverWithoutPosition(subscription, batch)
    } else {
      this.#gapRepair.deliver(subscription, batch)
    }
  }

  /** Subscribes to all channels on a new connection, then repairs the gap since the previous one. */
  resubscribe (): void {
    const isReconnect = ++this.#generation > 1
    // subscriptions of this turn stay in `#added`, so that the scheduled flush starts their timeout
    this.#removed.clear()
    const all = [...this.#subscriptions.values()]
    for (const subscription of all) this.#gapRepair.startBuffering(subscription)
    this.#sendSubscribe(all, isReconnect)
  }

  /** Continues with reads that failed with the previous command connection. */
  repairGaps (): void {
    this.#gapRepair.run()
  }

  /** Rejects pending `subscribe` calls and ignores all later messages. */
  close (): void {
    clearTimeout(this.#retryTimer)
    for (const subscription of [...this.#subscriptions.values()]) {
      this.#reject(subscription, 'the broker is closed')
      this.#gapRepair.delete(subscription)
    }
    this.#subscriptions.clear()
  }

  /** Plans the commands for all subscriptions that are added and removed in one turn of the event loop. */
  #schedule (): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      const { subscriberConnection: { isReady, redis }, timeout } = this.#options
      const added = [...this.#added]
      const removed = [...this.#removed]
      this.#added.clear()
      this.#removed.clear()
      if (added.length > 0) setTimeout(() => this.#onTimeout(added), timeout).unref()

      // the next connection subscribes to all channels
      if (!isReady) return
      for (let at = 0; at < removed.length; at += CHANNELS_PER_COMMAND) {
        redis.unsubscribe(...removed.slice(at, at + CHANNELS_PER_COMMAND)).catch(() => {})
      }
      this.#sendSubscribe(added, false)
    })
  }

  #sendSubscribe (subscriptions: readonly ChannelSubscription[], isReconnect: boolean): void {
    // sent without waiting for replies: a later UNSUBSCRIBE of one of these channels must follow its SUBSCRIBE
    for (let at = 0; at < subscriptions.length; at += CHANNELS_PER_COMMAND) {
      this.#sendCommand(subscriptions.slice(at, at + CHANNELS_PER_COMMAND), isReconnect)
    }
  }

  async #sendCommand (subscriptions: readonly ChannelSubscription[], isReconnect: boolean): Promise<void> {
    const { subscriberConnection, size } = this.#options
    const generation = this.#generation
    try {
      await subscriberConnection.redis.subscribe(...subscriptions.map(({ channel }) => channel))
      for (const subscription of subscriptions) this.#onSubscribed(subscription, isReconnect)
      // reads these groups while Redis handles the next command
      if (size > 0) this.repairGaps()
    } catch (error) {
      // the next connection subscribes to all channels
      if (!isErrorReply(error) || generation !== this.#generation) return
      const current = subscriptions.filter((subscription) => this.#isCurrent(subscription))
      // one forbidden channel makes Redis refuse the command for all of them
      if (subscriptions.length > 1) for (const subscription of current) this.#sendCommand([subscription], isReconnect)
      else for (const subscription of current) this.#onRefused(subscription, 'subscribe', error as Error)
    }
  }

  #isCurrent (subscription: ChannelSubscription): boolean {
    return this.#subscriptions.get(subscription.channel) === subscription
  }

  /** Redis sends all later messages of the group; earlier ones are read from its log. */
  #onSubscribed (subscription: ChannelSubscription, isReconnect: boolean): void {
    if (!this.#isCurrent(subscription)) return
    if (this.#options.size > 0) {
      this.#gapRepair.add(subscription)
      return
    }
    const wasRefused = this.#refused.has(subscription)
    this.#onAccepted(subscription)
    if (subscription.pending !== undefined) this.#resolve(subscription)
    else if (isReconnect || wasRefused) this.#options.receiver.lost(subscription.group)
  }

  #resolve (subscription: ChannelSubscription, top?: Position): void {
    const { pending } = subscription
    subscription.pending = undefined
    pending?.resolve(top)
  }

  /** Redis refuses a command for one group: a pending `subscribe` call is rejected, a group with members is retried. */
  #onRefused (subscription: ChannelSubscription, command: 'subscribe' | 'read', cause: Error): void {
    if (subscription.pending !== undefined) {
      this.#reject(subscription, cause.message)
      return
    }
    this.#refused.set(subscription, command)
    const { group } = subscription
    this.#options.groupOutage.fail(new Error(`Group '${group}' receives no messages: ${cause.message}`, { cause }))
    this.#retryLater()
  }

  /** Redis accepts the command for a group again, or the group is not needed any more. */
  #onAccepted (subscription: ChannelSubscription): void {
    if (!this.#refused.delete(subscription) || this.#refused.size > 0) return
    this.#options.groupOutage.end()
    this.#stopRetries()
  }

  #stopRetries (): void {
    const { groupOutage, readOutage } = this.#options
    if (groupOutage.error !== undefined || readOutage.error !== undefined) return
    clearTimeout(this.#retryTimer)
    this.#retryTimer = undefined
    this.#backoff.reset()
  }

  #onReadRefused (subscriptions: readonly ChannelSubscription[], error: Error): void {
    this.#options.readOutage.fail(error)
    // the command connection reconnects and reads again
    if (isTemporary(error)) return
    for (const subscription of subscriptions) this.#reject(subscription, error.message)
    this.#retryLater()
  }

  #retryLater (): void {
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      for (const [subscription, command] of this.#refused) {
        if (command === 'subscribe') this.#sendCommand([subscription], false)
        else this.#gapRepair.add(subscription)
      }
      this.repairGaps()
      this.#retryLater()
    }, this.#backoff.next()).unref()
  }

  #onTimeout (subscriptions: readonly ChannelSubscription[]): void {
    const reason = `Redis did not confirm the subscription within ${this.#options.timeout} ms`
    for (const subscription of subscriptions) this.#reject(subscription, reason)
  }

  /** Rejects a pending `subscribe` call and ends its subscription. */
  #reject (subscription: ChannelSubscription, reason: string): void {
    const { pending } = subscription
    if (pending === undefined || !this.#isCurrent(subscription)) return
    this.unsubscribe(subscription.group)
    pending.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(reason))
  }
}
