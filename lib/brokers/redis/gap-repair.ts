/**
 * The cursors of the groups that this process hears, with history. Whatever comes that does not follow on a cursor, and every lost connection, is first
 * repaired from what Redis keeps, portion by portion.
 */
import type { Position, Receiver } from '../broker.ts'
import { isPassing, isReply } from './redis-client.ts'
import type { Connection } from './redis-connection.ts'
import type { Run } from './batch.ts'
import type { Kept, Reader } from './reader.ts'

/** One group that this process hears. */
export interface Subscription {
  readonly group: string
  readonly channel: string
  /** The position of the last message that was delivered. */
  epoch: string
  offset: number
  /** `true` while messages are held until the missed ones are read from Redis. */
  isBehind: boolean
  /** `true` while a reading is under way whose answer still counts. */
  isAsked: boolean
  /** Messages that came since the reading began. */
  held: Run[]
  /** `true` if more messages came than are held. */
  isCut: boolean
  /** The caller that waits until the group is heard. */
  opening: PromiseWithResolvers<Position | undefined> | undefined
}

/** The events of catching up. */
export interface CatchUpEvents {
  /** The position of a group that is being opened is known. */
  opened (subscription: Subscription, top: Position): void
  /** The log of a group can't be read now. */
  failed (subscription: Subscription, error: Error): void
  /** The log of a group was read. */
  succeeded (subscription: Subscription): void
  /** Nothing can be read now, of these groups or any others: the call itself is refused. */
  refused (subscriptions: readonly Subscription[], error: Error): void
  /** Calls are not refused any more. */
  accepted (): void
}

export interface CatchUpOptions {
  receiver: Receiver
  reader: Reader
  connection: Connection
  /** How many messages are kept. */
  size: number
  events: CatchUpEvents
}

/** Groups of one question. */
const CHUNK = 100
/** Runs of a group, and characters of all groups, that are held while Redis is asked. What is more is read from Redis, too. */
const HELD = { runs: 100, length: 4 * 1024 * 1024 }

export class CatchUp {
  readonly #options: CatchUpOptions
  /** Subscriptions that are being opened. They do not wait until others have caught up. */
  readonly #joining = new Set<Subscription>()
  /** Subscriptions whose cursor may be behind. */
  readonly #stale = new Set<Subscription>()
  #heldLength = 0
  #isChecking = false
  /** `true` if `check` was called since the last portion was requested. */
  #isWanted = false

  constructor (options: CatchUpOptions) {
    this.#options = options
  }

  /** Has the cursor of a subscription checked by the next `check`. */
  add (subscription: Subscription): void {
    this.hold(subscription)
    const set = subscription.opening === undefined ? this.#stale : this.#joining
    set.add(subscription)
  }

  /** Holds what comes for a subscription until it is added. */
  hold (subscription: Subscription): void {
    subscription.isBehind = true
    subscription.isAsked = false
    this.#joining.delete(subscription)
    this.#stale.delete(subscription)
  }

  /** Forgets a subscription. */
  delete (subscription: Subscription): void {
    this.hold(subscription)
    this.#release(subscription)
  }

  /** Asks Redis about all subscriptions that may be behind, until none is. */
  async check (): Promise<void> {
    this.#isWanted = true
    if (this.#isChecking) return
    this.#isChecking = true
    // a connection that comes back while a call on the one before fails is not to be missed
    while (this.#isWanted) {
      this.#isWanted = false
      while (this.#joining.size + this.#stale.size > 0 && await this.#readPortion());
    }
    this.#isChecking = false
  }

  /** Delivers what follows on the cursor, leaves out what is behind it, and asks for what is missing before it. */
  take (subscription: Subscription, run: Run): void {
    if (subscription.isBehind) {
      this.#hold(subscription, run)
      return
    }
    if (run.epoch !== subscription.epoch || run.first > subscription.offset + 1) {
      // what it has is read with what is missing before it
      this.add(subscription)
      this.check()
      return
    }
    for (const payload of run.payloads.slice(subscription.offset + 1 - run.first)) {
      this.#options.receiver.deliver(subscription.group, payload, { epoch: run.epoch, offset: ++subscription.offset })
    }
  }

  /** Delivers what another process published without history, and tells those that follow positions, which can't have it. */
  takeWithoutPosition (subscription: Subscription, run: Run): void {
    if (subscription.opening !== undefined) return
    const { group, epoch, offset } = subscription
    for (const payload of run.payloads) this.#options.receiver.deliver(group, payload)
    this.#options.receiver.lost(group, { epoch, offset })
  }

  /** @returns whether to go on */
  async #readPortion (): Promise<boolean> {
    const { reader, connection, size, events } = this.#options
    const asked = this.#pick()
    try {
      const answers = await reader.read(asked.map(({ group, epoch, offset, opening }) => {
        return { group, epoch, offset, limit: opening === undefined ? size : 0 }
      }))
      events.accepted()
      answers.forEach((answer, index) => this.#repair(asked[index] as Subscription, answer))
      return true
    } catch (cause) {
      const error = cause as Error
      const waiting = asked.filter(({ isAsked }) => isAsked)
      for (const subscription of waiting) this.add(subscription)
      // the next connection asks again
      if (!isReply(error)) return false
      events.refused(waiting, error)
      if (isPassing(error)) connection.reconnect(error)
      return false
    }
  }

  #pick (): Subscription[] {
    const picked: Subscription[] = []
    for (const set of [this.#joining, this.#stale]) {
      for (const subscription of set) {
        if (picked.length === CHUNK) return picked
        set.delete(subscription)
        subscription.isAsked = true
        picked.push(subscription)
      }
    }
    return picked
  }

  /** Brings a cursor up to date with what Redis keeps, and goes on with what came meanwhile. */
  #repair (subscription: Subscription, answer: Kept | Error): void {
    // it was left meanwhile, or its connection was lost and it is asked about again
    if (!subscription.isAsked) return
    const { receiver, events } = this.#options
    subscription.isAsked = false
    if (answer instanceof Error) {
      events.failed(subscription, answer)
      return
    }
    events.succeeded(subscription)

    const { epoch, top, state, payloads } = answer
    const { group, isCut, opening } = subscription
    const held = this.#release(subscription)
    if (opening !== undefined) {
      // nobody hears yet, so what came while Redis was asked counts as being before
      const newest = held.findLast((run) => run.epoch === epoch)
      subscription.offset = newest === undefined ? top : Math.max(top, newest.first + newest.payloads.length - 1)
    } else if (state === 'gone') {
      // of another log nobody has heard anything yet: it was begun because Redis came back or forgot, for which no message need be missed
      subscription.offset = epoch === subscription.epoch ? top : 0
      receiver.lost(group, { epoch, offset: subscription.offset })
    } else {
      for (const payload of payloads) receiver.deliver(group, payload, { epoch, offset: ++subscription.offset })
    }
    subscription.epoch = epoch

    if (subscription.offset < top || isCut) {
      // the next answer has what is held, too
      this.add(subscription)
      return
    }
    subscription.isBehind = false
    if (opening !== undefined) events.opened(subscription, { epoch, offset: subscription.offset })
    for (const run of held) this.take(subscription, run)
  }

  #hold (subscription: Subscription, run: Run): void {
    const length = lengthOf(run)
    if (subscription.held.length === HELD.runs || this.#heldLength + length > HELD.length) {
      this.#release(subscription)
      subscription.isCut = true
    }
    if (this.#heldLength + length > HELD.length) return
    subscription.held.push(run)
    this.#heldLength += length
  }

  /** Takes what is held for a subscription out. */
  #release (subscription: Subscription): Run[] {
    const { held } = subscription
    for (const run of held) this.#heldLength -= lengthOf(run)
    subscription.held = []
    subscription.isCut = false
    return held
  }
}

function lengthOf ({ payloads }: Run): number {
  return payloads.reduce((sum, { length }) => sum + length, 0)
}
