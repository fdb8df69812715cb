/** What the client wants to hear: kept over reconnects, and in line with what the server was asked for. */
import { backoff, type Backoff } from './backoff.ts'
import { attempt } from './emitter.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import type { Message, RequestOptions } from './requests.ts'
import { keyOf, type Change, type GroupRef, type Subscription, type Waiter, type Watcher } from './subscription.ts'

/** What subscriptions need of the client. */
export interface Line {
  readonly isOpen: () => boolean
  readonly request: (type: 'subscribe' | 'unsubscribe', data: GroupRef, options: RequestOptions) => Promise<unknown>
  /** Something failed that no caller hears of. */
  readonly report: (error: RohrpostError) => void
  /** Tells listeners that a group is heard no more. */
  readonly failed: (group: string, error: RohrpostError) => void
  /** Tells listeners that changes of a group were missed. */
  readonly resync: (group: string) => void
  readonly backoff: Backoff
}

/** Milliseconds that the server has to answer; its own deadline is the same by default. */
const ANSWER_TIMEOUT = 30_000

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
    return new Set([...this.#all.values()].flatMap(({ joined, group }) => joined && group !== undefined ? [group] : []))
  }

  /** Asks for membership, now or when the connection is back. @returns the data of the reply */
  async subscribe (ref: GroupRef, signal: AbortSignal | undefined, onResync: (() => void) | undefined): Promise<unknown> {
    signal?.throwIfAborted()
    const subscription = this.#find(ref)
    subscription.manual = true

    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    if (onResync !== undefined) {
      subscription.resyncs.add(onResync)
      promise.catch(() => subscription.resyncs.delete(onResync))
    }
    const waiter = { resolve, reject, asked: false }
    const abort = () => {
      reject(signal?.reason)
      subscription.waiters.delete(waiter)
      if (subscription.group === undefined && subscription.waiters.size === 0) {
        subscription.manual = false
        this.#release(subscription)
      }
    }
    signal?.addEventListener('abort', abort)
    subscription.waiters.add(waiter)
    this.#ask(subscription)
    try {
      return await promise
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Ends what `subscribe` began; watchers keep the membership. */
  async unsubscribe (ref: GroupRef): Promise<unknown> {
    const subscription = this.#all.get(keyOf(ref))
    if (subscription !== undefined) {
      subscription.manual = false
      subscription.resyncs.clear()
      if (subscription.watchers.size > 0) return
      this.#remove(subscription, new RohrpostError('unsubscribed', { code: ClientErrorCode.UNSUBSCRIBED }))
    }
    if (this.#line.isOpen()) return this.#leave(ref)
  }

  /** Follows a group. @returns ends it */
  watch (ref: GroupRef, watcher: Watcher): () => void {
    const subscription = this.#find(ref)
    subscription.watchers.set(watcher, 'new')
    this.#ask(subscription)

    return () => {
      if (subscription.watchers.delete(watcher)) this.#release(subscription)
    }
  }

  /** Hands a change to those who watch its group. */
  receive (change: Change<never>): void {
    for (const { watchers } of this.#members(change.group)) {
      for (const watcher of watchers.keys()) attempt(() => watcher.changed(change))
    }
  }

  /** A message of a group came: where to go on from after a reconnect. */
  reached (position: { group?: unknown }): void {
    for (const subscription of this.#members(position.group)) subscription.position = position
  }

  /** Messages of a group are lost, though the connection is there. */
  resync (name: unknown): void {
    for (const subscription of this.#members(name)) this.#resync(subscription, String(name))
  }

  /** The connection is there: asks for all that is wanted. */
  opened (): void {
    this.#failures = 0
    for (const subscription of this.#all.values()) this.#ask(subscription)
  }

  /** The connection is gone for now. */
  lost (): void {
    this.#stop()
    for (const subscription of this.#all.values()) {
      subscription.joined = false
      for (const [watcher, known] of subscription.watchers) {
        if (known === 'joined') subscription.watchers.set(watcher, 'away')
        watcher.lost()
      }
    }
  }

  /** The connection is gone for good. @param error what watchers are told, nothing after `close()` */
  end (reason: RohrpostError, error: RohrpostError | undefined): void {
    this.#stop()
    for (const subscription of this.#all.values()) this.#remove(subscription, reason, error)
  }

  async #ask (subscription: Subscription): Promise<void> {
    if (!this.#line.isOpen()) return
    const { ref, waiters } = subscription
    const asked = [...waiters].filter((waiter) => !waiter.asked)
    for (const waiter of asked) waiter.asked = true
    // who is a member, or is about to be one, would hear twice what came after a position
    const isMember = [subscription, ...this.#twins(subscription)].some(({ joined, asking }) => joined || asking > 0)
    const recover = isMember ? true : subscription.position ?? true

    subscription.asking++
    try {
      await this.#line.request('subscribe', ref, {
        timeout: ANSWER_TIMEOUT,
        still: () => !subscription.gone,
        fields: { recover },
        answered: (reply) => this.#joined(subscription, asked, reply)
      })
      subscription.asking--
    } catch (cause) {
      subscription.asking--
      this.#refused(subscription, asked, cause as RohrpostError)
    }
  }

  #joined (subscription: Subscription, asked: Waiter[], { data, position, recovered }: Message): void {
    const { watchers, waiters, joined, group } = subscription
    const reply: { group: string } = Object(data)
    const isRecovered = recovered === true
    subscription.group = reply.group
    subscription.position = position
    subscription.joined = !subscription.gone

    for (const waiter of asked) {
      waiters.delete(waiter)
      waiter.resolve(reply)
    }
    if (group !== undefined && !joined && !isRecovered) this.#resync(subscription, reply.group)
    tell(watchers)
    if (!isRecovered) return
    // what was missed comes once, for all that were equally far
    for (const twin of this.#twins(subscription)) {
      if (twin.joined || keyOf(Object(twin.position)) !== keyOf(Object(position))) continue
      twin.joined = true
      tell(twin.watchers)
    }
  }

  /** Those that knew the group before have missed something. */
  #resync ({ watchers, resyncs }: Subscription, group: string): void {
    for (const [watcher, known] of watchers) {
      if (known === 'new') continue
      watchers.set(watcher, 'joined')
      attempt(() => watcher.resync({ group, type: 'resync' }))
    }
    for (const call of resyncs) attempt(call)
    this.#line.resync(group)
  }

  #refused (subscription: Subscription, asked: Waiter[], error: RohrpostError): void {
    const { waiters, group } = subscription
    if (error.code === ClientErrorCode.CONNECTION_LOST && !subscription.gone) {
      for (const waiter of asked) waiter.asked = false
      return
    }
    for (const waiter of asked) {
      waiters.delete(waiter)
      waiter.reject(error)
    }

    // still a member, or another request decides
    if (subscription.gone || subscription.joined || subscription.asking > 0) return
    if (group !== undefined && (error.retry || error.code === ClientErrorCode.TIMEOUT)) return this.#askLater()

    this.#remove(subscription, error, error)
    // the server may let the client in after all
    if (error.code === ClientErrorCode.TIMEOUT) this.#leaveQuietly(subscription.ref)
    if (group !== undefined) this.#line.failed(group, error)
  }

  /** A group that the client was in before is asked for until the server decides. */
  #askLater (): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined
      for (const subscription of this.#all.values()) {
        if (!subscription.joined && subscription.asking === 0) this.#ask(subscription)
      }
    }, backoff(this.#line.backoff, this.#failures++))
  }

  #stop (): void {
    clearTimeout(this.#retry)
    this.#retry = undefined
  }

  /** Leaves a group that nobody wants any more. */
  #release (subscription: Subscription): void {
    if (subscription.gone || subscription.manual || subscription.watchers.size > 0) return
    this.#remove(subscription)
    if (this.#line.isOpen()) this.#leaveQuietly(subscription.ref)
  }

  #leaveQuietly (ref: GroupRef): void {
    this.#leave(ref).catch((error: RohrpostError) => this.#line.report(error))
  }

  /** Resolves also when the connection goes: the membership goes with it. */
  async #leave (ref: GroupRef): Promise<unknown> {
    try {
      const key = keyOf(ref)
      return await this.#line.request('unsubscribe', ref, { timeout: ANSWER_TIMEOUT, still: () => !this.#all.has(key) })
    } catch (error) {
      const { code } = error as RohrpostError
      if (code !== ClientErrorCode.CONNECTION_LOST && code !== ClientErrorCode.CLOSED) throw error
    }
  }

  /** What makes the client a member of a group: it may have been asked for in several ways. */
  #members (group: unknown): Subscription[] {
    return [...this.#all.values()].filter((subscription) => subscription.joined && subscription.group === group)
  }

  /** What asked for the same group in another way. */
  #twins ({ key, group }: Subscription): Subscription[] {
    return group === undefined ? [] : [...this.#all.values()].filter((other) => other.key !== key && other.group === group)
  }

  #find (ref: GroupRef): Subscription {
    const key = keyOf(ref)
    let subscription = this.#all.get(key)
    if (subscription === undefined) {
      subscription = { key, ref, watchers: new Map(), waiters: new Set(), resyncs: new Set(), manual: false, asking: 0, group: undefined, position: undefined, joined: false, gone: false }
      this.#all.set(key, subscription)
    }
    return subscription
  }

  #remove (subscription: Subscription, reason?: RohrpostError, error?: RohrpostError): void {
    const { key, watchers, waiters } = subscription
    subscription.gone = true
    subscription.joined = false
    this.#all.delete(key)
    for (const waiter of waiters) {
      if (!waiter.asked) waiter.reject(reason)
    }
    for (const watcher of watchers.keys()) watcher.ended(error)
  }
}

/** The client is a member, for the first time or again. */
function tell (watchers: Subscription['watchers']): void {
  for (const [watcher, known] of watchers) {
    if (known === 'joined') continue
    watchers.set(watcher, 'joined')
    if (known === 'new') watcher.joined()
    else watcher.recovered()
  }
}
