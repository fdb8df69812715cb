/** What the client wants to hear: kept over reconnects, and in line with what the server was asked for. */
import { backoff, type Backoff } from './retry-delay.ts'
import { waitFor } from './deferred.ts'
import { attempt } from './emitter.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import type { Message, RequestOptions } from './pending-requests.ts'
import { keyOf, type Change, type GroupRef, type Subscription, type Watcher } from './subscribed-group.ts'

/** What subscriptions need of the client. */
export interface Line {
  readonly isOpen: () => boolean
  readonly request: (type: 'subscribe' | 'unsubscribe', data: GroupRef, options: RequestOptions) => Promise<unknown>
  /** Something failed that no caller hears of. */
  readonly report: (error: unknown) => void
  /** Tells listeners that a group is heard no more. */
  readonly failed: (group: string, error: RohrpostError) => void
  /** Tells listeners that changes of a group were missed. */
  readonly resync: (group: string) => void
  readonly backoff: Backoff
}

/** Milliseconds that the server has to answer; its own deadline is the same by default. */
const ANSWER_TIMEOUT = 30_000
/** Clients load again over this many of their shortest waits when the server lost messages, unless it says over how long. */
const SPREAD = 4

/** A group that was refused for now is asked for this many of the shortest waits after a reconnect. */
const RETURN = 3

/** The subscriptions of one client. */
export class Subscriptions {
  readonly #all = new Map<string, Subscription>()
  readonly #line: Line
  #retry: ReturnType<typeof setTimeout> | undefined
  #failures = 0

  constructor (line: Line) {
    this.#line = line
  }

  /** The names of the groups that the client is in. */
  get groups (): ReadonlySet<string> {
    return new Set([...this.#all.values()].flatMap(({ joined, group }) => joined && group ? [group] : []))
  }

  /** Asks for membership, now or when the connection is back. @returns the data of the reply */
  subscribe (ref: GroupRef, signal: AbortSignal | undefined, onResync: (() => void) | undefined): Promise<unknown> {
    let leave: () => void
    return waitFor(signal, Infinity, undefined, ({ resolve, reject }) => {
      leave = this.watch(ref, { isCall: true, joined: resolve, resync: () => onResync?.(), ended: reject })
    }, () => {
      if (signal?.aborted) leave()
    })
  }

  /** Ends one call of `subscribe`; other calls and watchers keep the membership. */
  async unsubscribe (ref: GroupRef): Promise<unknown> {
    const subscription = this.#all.get(keyOf(ref))
    if (subscription) {
      const { watchers } = subscription
      const call = [...watchers].find(([{ isCall }]) => isCall)
      if (call) end(watchers, call, new RohrpostError('unsubscribed', { code: ClientErrorCode.UNSUBSCRIBED }))
      if (watchers.size) return
    }
    return this.#leave(ref, subscription)
  }

  /** Follows a group. @returns ends it */
  watch (ref: GroupRef, watcher: Watcher): () => void {
    const key = keyOf(ref)
    const subscription: Subscription = this.#all.get(key) ?? { key, ref, watchers: new Map(), asking: 0, joined: false }
    const { watchers } = subscription
    this.#all.set(key, subscription)
    watchers.set(watcher, 'new')
    this.#ask(subscription, ref)

    return () => {
      if (watchers.delete(watcher) && !watchers.size) this.#leaveQuietly(subscription)
    }
  }

  /** Hands a change to those who watch its group. */
  receive (change: Change<never>): void {
    for (const { watchers } of this.#members(change.group)) {
      for (const watcher of watchers.keys()) attempt(() => watcher.changed?.(change))
    }
  }

  /** A message of a group was handled: where to go on from after a reconnect. */
  reached (position: { group?: unknown, offset?: unknown }): void {
    if (typeof position.offset !== 'number') return
    for (const subscription of this.#members(position.group)) {
      subscription.position = position
      if (subscription.top !== keyOf(position)) continue
      subscription.top = undefined
      tell(subscription)
    }
  }

  /** Messages of a group are lost, though the connection is there. @param spread milliseconds over which clients are to load again */
  resync (name: unknown, spread: unknown): void {
    for (const subscription of this.#members(name)) {
      this.#resync(subscription, String(name), typeof spread === 'number' ? spread : SPREAD * this.#line.backoff.min)
    }
  }

  /** The connection is there: asks for all that is wanted. */
  opened (): void {
    this.#failures = 0
    for (const subscription of this.#all.values()) {
      // groups that the client was in come first: a server that restarts has enough to do with them
      if (subscription.isRefused) this.#askLater(RETURN * this.#line.backoff.min)
      else this.#ask(subscription)
    }
  }

  /** The connection is gone for now. */
  lost (): void {
    this.#stop()
    for (const subscription of this.#all.values()) {
      subscription.joined = false
      subscription.top = undefined
      for (const [watcher, known] of subscription.watchers) {
        subscription.watchers.set(watcher, known === 'joined' || known === 'away' ? 'away' : 'new')
        watcher.lost?.()
      }
    }
  }

  /** The connection is gone for good. @param error what watchers are told, nothing after `close()` */
  end (reason: RohrpostError, error: RohrpostError | undefined): void {
    this.#stop()
    for (const subscription of this.#all.values()) this.#remove(subscription, reason, error)
  }

  async #ask (subscription: Subscription, ref = subscription.ref): Promise<void> {
    if (!this.#line.isOpen()) return
    const { watchers } = subscription
    const asked = [...watchers.keys()].filter((watcher) => watchers.get(watcher) === 'new')
    for (const watcher of asked) watchers.set(watcher, 'asked')
    // who is a member, or is about to be one, would hear twice what came after a position
    const isMember = [subscription, ...this.#twins(subscription)].some(({ joined, asking }) => joined || asking)

    let failure: RohrpostError | undefined
    subscription.asking++
    try {
      await this.#line.request('subscribe', ref, {
        timeout: ANSWER_TIMEOUT,
        still: () => watchers.size > 0,
        fields: { recover: (!isMember && subscription.position) || true },
        answered: (reply) => this.#joined(subscription, ref, asked, reply)
      })
    } catch (error) {
      failure = error as RohrpostError
    }
    subscription.asking--
    if (failure) this.#refused(subscription, asked, failure)
  }

  #joined (subscription: Subscription, ref: GroupRef, asked: Watcher[], { data, position, recovered, top }: Message): void {
    const { joined, group } = subscription
    const reply: { group: string } = Object(data)
    const isRecovered = recovered === true
    subscription.ref = ref
    subscription.group = reply.group
    subscription.isRefused = false
    subscription.position = position

    for (const { isCall, joined } of asked) {
      if (isCall) joined?.(reply)
    }
    if (group && !joined && !isRecovered) this.#resync(subscription, reply.group, 0)
    // what was missed comes once, for all that were equally far
    const isEqual = (twin: Subscription) => isRecovered && !twin.joined && keyOf(Object(twin.position)) === keyOf(Object(position))
    for (const each of [subscription, ...this.#twins(subscription).filter(isEqual)]) {
      each.joined = each.watchers.size > 0
      each.top = isRecovered && top ? keyOf(top) : undefined
      tell(each, reply)
    }
  }

  /** Those that knew the group before have missed something. */
  #resync (subscription: Subscription, group: string, spread: number): void {
    const { watchers } = subscription
    subscription.top = undefined
    for (const [watcher, known] of watchers) {
      if (known === 'new' || known === 'asked') continue
      watchers.set(watcher, 'joined')
      attempt(() => watcher.resync?.({ group, type: 'resync' }, spread))
    }
    this.#line.resync(group)
  }

  #refused (subscription: Subscription, asked: Watcher[], error: RohrpostError): void {
    const { watchers, group } = subscription
    const { code } = error
    const isLost = code === ClientErrorCode.CONNECTION_LOST
    for (const watcher of asked) {
      // one that is still there is asked for again
      if (watcher.isCall && !(isLost && watchers.has(watcher))) {
        watchers.delete(watcher)
        watcher.ended(error)
      }
    }

    // still a member, wanted no more, or another request decides
    if (isLost || subscription.joined || subscription.asking || this.#all.get(subscription.key) !== subscription) return
    const isTimeout = code === ClientErrorCode.TIMEOUT
    if (watchers.size && (error.retry || isTimeout)) {
      subscription.isRefused = !group
      return this.#askLater(error.retryAfter)
    }

    this.#remove(subscription, error, error)
    // the server may let the client in after all
    if (isTimeout) this.#leaveQuietly(subscription)
    if (group) this.#line.failed(group, error)
  }

  /** What is wanted is asked for until the server decides. */
  #askLater (retryAfter = 0): void {
    if (retryAfter > 0) this.#stop()
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined
      for (const subscription of this.#all.values()) {
        if (!subscription.joined && !subscription.asking) this.#ask(subscription)
      }
    }, backoff(this.#line.backoff, this.#failures++, retryAfter))
  }

  #stop (): void {
    clearTimeout(this.#retry)
    this.#retry = undefined
  }

  #leaveQuietly (subscription: Subscription): void {
    this.#leave(subscription.ref, subscription).catch(this.#line.report)
  }

  /**
   * Forgets a subscription, and leaves its group unless another one is for the same. Resolves also when the connection goes: the membership
   * goes with it.
   */
  async #leave (ref: GroupRef, subscription?: Subscription): Promise<unknown> {
    if (subscription) this.#remove(subscription)
    if (!this.#line.isOpen() || this.#twins(subscription).length) return
    try {
      return await this.#line.request('unsubscribe', ref, {
        timeout: ANSWER_TIMEOUT,
        still: () => !this.#all.has(keyOf(ref)),
        answered: () => {
          // other subscriptions for the same group, whose name was not known when this was sent
          for (const twin of this.#twins(subscription)) {
            twin.joined = false
            this.#ask(twin)
          }
        }
      })
    } catch (error) {
      const { code } = error as RohrpostError
      if (code !== ClientErrorCode.CONNECTION_LOST && code !== ClientErrorCode.CLOSED) throw error
    }
  }

  #filter (fits: (subscription: Subscription) => boolean): Subscription[] {
    return [...this.#all.values()].filter(fits)
  }

  /** What makes the client a member of a group: it may have been asked for in several ways. */
  #members (name: unknown): Subscription[] {
    return this.#filter(({ joined, group }) => joined && group === name)
  }

  /** What asked for the same group in another way. */
  #twins (subscription: Subscription | undefined): Subscription[] {
    const group = subscription?.group
    return this.#filter((other) => other !== subscription && Boolean(group) && other.group === group)
  }

  #remove (subscription: Subscription, reason?: RohrpostError, error?: RohrpostError): void {
    const { key, watchers } = subscription
    subscription.joined = false
    this.#all.delete(key)
    for (const each of watchers) end(watchers, each, each[0].isCall ? reason : error)
  }
}

/** Ends a watcher; a call that is under way is ended by its answer. */
function end (watchers: Subscription['watchers'], [watcher, known]: [Watcher, string], error: RohrpostError | undefined): void {
  watchers.delete(watcher)
  if (!watcher.isCall || known !== 'asked') watcher.ended(error)
}

/** The client is a member, for the first time or again: then once all that was missed has come. */
function tell ({ watchers, top }: Subscription, reply?: unknown): void {
  for (const [watcher, known] of watchers) {
    if (known === 'joined' || (known === 'away' && top)) continue
    watchers.set(watcher, 'joined')
    if (known === 'away') watcher.recovered?.()
    else watcher.joined?.(reply)
  }
}
