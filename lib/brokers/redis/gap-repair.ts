/**
 * Repairs gaps in the messages of subscribed groups, for a Redis broker with history. A message whose offset is not the
 * next one, and each lost connection, starts a read of the missing messages from Redis, one portion at a time. Messages
 * that arrive meanwhile are buffered.
 */
import type { Position, Receiver } from '../broker.ts'
import type { ChannelMessage } from './channel-message.ts'
import type { HistoryReader, ReadReply } from './history-reader.ts'
import { isErrorReply, isTemporary } from './redis-client.ts'
import type { RedisConnection } from './redis-connection.ts'

/** The subscription of this process to the channel of one group. */
export interface ChannelSubscription {
  readonly group: string
  readonly channel: string
  /** The cursor: epoch and offset of the last message that was delivered. */
  epoch: string
  offset: number
  /** `true` while messages are buffered, until the missing ones are read from Redis. */
  isBuffering: boolean
  /** `true` while a read is in flight whose reply is still wanted. */
  isReading: boolean
  /** Batches that have arrived while `isBuffering`. */
  buffer: ChannelMessage[]
  /** `true` if the buffer was too small and some batches were dropped; Redis still has them. */
  hasOverflowed: boolean
  /** The `subscribe` call that waits for Redis; `undefined` once it is settled. */
  pending: PromiseWithResolvers<Position | undefined> | undefined
}

/** Callbacks of `GapRepair`. */
export interface GapRepairEvents {
  /** The position of a group with a pending `subscribe` call is known. */
  positionFound (subscription: ChannelSubscription, top: Position): void
  /** Redis can't read the log of this group now. */
  groupFailed (subscription: ChannelSubscription, error: Error): void
  /** Redis has read the log of this group. */
  groupRead (subscription: ChannelSubscription): void
  /** Redis refuses to read any group. `subscriptions` are those of the refused read. */
  readRefused (subscriptions: readonly ChannelSubscription[], error: Error): void
  /** Redis does not refuse to read. */
  readAccepted (): void
}

export interface GapRepairOptions {
  receiver: Receiver
  reader: HistoryReader
  connection: RedisConnection
  /** Number of messages that Redis keeps for each group. */
  size: number
  events: GapRepairEvents
}

/** Most groups of one read. */
const GROUPS_PER_READ = 100
/** Most batches buffered for one group, and most characters for all groups. Redis is read again for the rest. */
const BUFFER_LIMIT = { batches: 100, characters: 4 * 1024 * 1024 }

export class GapRepair {
  readonly #options: GapRepairOptions
  /** Queue of subscriptions with a pending `subscribe` call. They are read before those that catch up. */
  readonly #joining = new Set<ChannelSubscription>()
  /** Queue of subscriptions that may have missed messages. */
  readonly #stale = new Set<ChannelSubscription>()
  #bufferedCharacters = 0
  #isRunning = false
  /** `true` if `run` was called since the current round of reads began. */
  #isRunRequested = false

  constructor (options: GapRepairOptions) {
    this.#options = options
  }

  /** Queues a subscription for a read. `run` starts it. */
  add (subscription: ChannelSubscription): void {
    this.startBuffering(subscription)
    const queue = subscription.pending === undefined ? this.#stale : this.#joining
    queue.add(subscription)
  }

  /** Buffers the messages of a subscription until `add` is called and its read is finished. */
  startBuffering (subscription: ChannelSubscription): void {
    subscription.isBuffering = true
    subscription.isReading = false
    this.#joining.delete(subscription)
    this.#stale.delete(subscription)
  }

  /** Drops the buffer of a subscription that ends, and ignores the reply to its read. */
  delete (subscription: ChannelSubscription): void {
    this.startBuffering(subscription)
    this.#takeBuffer(subscription)
  }

  /** Reads portions from Redis until the queues are empty or a read fails. */
  async run (): Promise<void> {
    this.#isRunRequested = true
    if (this.#isRunning) return
    this.#isRunning = true
    // a new connection may request a run while the read on the old one is still failing
    while (this.#isRunRequested) {
      this.#isRunRequested = false
      while (this.#joining.size + this.#stale.size > 0 && await this.#readPortion());
    }
    this.#isRunning = false
  }

  /** Delivers the messages of a batch that come next, skips those already delivered, and repairs a gap before them. */
  deliver (subscription: ChannelSubscription, batch: ChannelMessage): void {
    if (subscription.isBuffering) {
      this.#buffer(subscription, batch)
      return
    }
    const { epoch, firstOffset, payloads } = batch
    if (epoch !== subscription.epoch || firstOffset > subscription.offset + 1) {
      // the read returns the missing messages and this batch
      this.add(subscription)
      this.run()
      return
    }
    for (const payload of payloads.slice(subscription.offset + 1 - firstOffset)) {
      this.#options.receiver.deliver(subscription.group, payload, { epoch, offset: ++subscription.offset })
    }
  }

  /** Delivers messages of a process without history. Members that follow positions can't get them, hence `lost`. */
  deliverWithoutPosition (subscription: ChannelSubscription, { payloads }: ChannelMessage): void {
    if (subscription.pending !== undefined) return
    const { group, epoch, offset } = subscription
    for (const payload of payloads) this.#options.receiver.deliver(group, payload)
    this.#options.receiver.lost(group, { epoch, offset })
  }

  /** @returns whether the next portion can be read */
  async #readPortion (): Promise<boolean> {
    const { reader, connection, size, events } = this.#options
    const subscriptions = this.#takeFromQueues()
    try {
      const replies = await reader.read(subscriptions.map(({ group, epoch, offset, pending }) => {
        return { group, epoch, offset, limit: pending === undefined ? size : 0 }
      }))
      events.readAccepted()
      replies.forEach((reply, index) => this.#repair(subscriptions[index] as ChannelSubscription, reply))
      return true
    } catch (cause) {
      const error = cause as Error
      const unread = subscriptions.filter(({ isReading }) => isReading)
      for (const subscription of unread) this.add(subscription)
      // without a reply the connection was lost, and the next one calls `run`
      if (!isErrorReply(error)) return false
      events.readRefused(unread, error)
      if (isTemporary(error)) connection.reconnect(error)
      return false
    }
  }

  #takeFromQueues (): ChannelSubscription[] {
    const taken: ChannelSubscription[] = []
    for (const queue of [this.#joining, this.#stale]) {
      for (const subscription of queue) {
        if (taken.length === GROUPS_PER_READ) return taken
        queue.delete(subscription)
        subscription.isReading = true
        taken.push(subscription)
      }
    }
    return taken
  }

  /** Moves the cursor of a subscription to what Redis has, then delivers the buffer. */
  #repair (subscription: ChannelSubscription, reply: ReadReply | Error): void {
    // the subscription has ended, or its connection was lost and it is read again
    if (!subscription.isReading) return
    const { receiver, events } = this.#options
    subscription.isReading = false
    if (reply instanceof Error) {
      events.groupFailed(subscription, reply)
      return
    }
    events.groupRead(subscription)

    const { epoch, top, state, payloads } = reply
    const { group, hasOverflowed, pending } = subscription
    const buffer = this.#takeBuffer(subscription)
    if (pending !== undefined) {
      // messages that arrived during the read count as published before the subscription
      const newest = buffer.findLast((batch) => batch.epoch === epoch)
      subscription.offset = newest === undefined ? top : Math.max(top, newest.firstOffset + newest.payloads.length - 1)
    } else if (state === 'gone') {
      // no message of a new epoch was delivered yet, so that its log is read from the beginning
      subscription.offset = epoch === subscription.epoch ? top : 0
      receiver.lost(group, { epoch, offset: subscription.offset })
    } else {
      for (const payload of payloads) receiver.deliver(group, payload, { epoch, offset: ++subscription.offset })
    }
    subscription.epoch = epoch

    if (subscription.offset < top || hasOverflowed) {
      // the next read returns the buffered messages too
      this.add(subscription)
      return
    }
    subscription.isBuffering = false
    if (pending !== undefined) events.positionFound(subscription, { epoch, offset: subscription.offset })
    for (const batch of buffer) this.deliver(subscription, batch)
  }

  #buffer (subscription: ChannelSubscription, batch: ChannelMessage): void {
    const characters = charactersOf(batch)
    const { buffer } = subscription
    if (buffer.length === BUFFER_LIMIT.batches || this.#bufferedCharacters + characters > BUFFER_LIMIT.characters) {
      this.#takeBuffer(subscription)
      subscription.hasOverflowed = true
    }
    if (this.#bufferedCharacters + characters > BUFFER_LIMIT.characters) return
    subscription.buffer.push(batch)
    this.#bufferedCharacters += characters
  }

  /** Empties the buffer of a subscription. @returns the batches that were in it */
  #takeBuffer (subscription: ChannelSubscription): ChannelMessage[] {
    const { buffer } = subscription
    for (const batch of buffer) this.#bufferedCharacters -= charactersOf(batch)
    subscription.buffer = []
    subscription.hasOverflowed = false
    return buffer
  }
}

function charactersOf ({ payloads }: ChannelMessage): number {
  return payloads.reduce((sum, { length }) => sum + length, 0)
}
