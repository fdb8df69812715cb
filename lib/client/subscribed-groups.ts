/** Subscriptions of the client: joins groups again after each reconnect, and recovers what was missed. */
import { ClientErrorCode, RohrpostError } from './error.ts'
import { callSafely, type Emitter } from './emitter.ts'
import { asNumber } from './option-checks.ts'
import type { Requests, ServerMessage } from './pending-requests.ts'
import { retryDelay, type DelayBounds } from './retry-delay.ts'
import {
  keyOf, takeNew, takesBatches, type Batch, type Change, type GroupRef, type Resync, type SubscribedGroup, type Watcher
} from './subscribed-group.ts'

/**
 * Random wait of clients before they load again when the server lost messages, as a multiple of `backoff.min`, unless
 * the server names one.
 */
const SPREAD = 4
/** Wait before a temporarily refused group is asked for after a reconnect, as a multiple of `backoff.min`. */
const RETURN = 3

/** All subscriptions of one client. */
export class SubscribedGroups {
  /** By reference, see `keyOf`. References that lead to the same group of the server share its entry. */
  readonly #groups = new Map<string, SubscribedGroup>()
  readonly #byName = new Map<unknown, SubscribedGroup>()
  readonly #request: Requests['request']
  readonly #emitter: Emitter
  readonly #backoff: DelayBounds
  #isOpen = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #failures = 0
  /** Why the connection is gone for good. */
  #end: RohrpostError | undefined

  constructor (request: Requests['request'], emitter: Emitter, backoff: DelayBounds) {
    this.#request = request
    this.#emitter = emitter
    this.#backoff = backoff
  }

  /** The names of the groups with a membership on this connection. */
  get names (): ReadonlySet<string> {
    return new Set([...this.#all()].filter(({ isJoined }) => isJoined).map(({ name }) => name as string))
  }

  /** Ends one call of `subscribe`; other calls and watchers keep the membership. */
  async unsubscribe (ref: GroupRef): Promise<void> {
    const group = this.#find(ref)
    const call = [...group.watchers].find(({ isCall }) => isCall)
    if (call) end(call, new RohrpostError('unsubscribed', { code: ClientErrorCode.UNSUBSCRIBED }))
    if (!group.watchers.size) await this.#leave(group)
  }

  /** Follows a group. @returns a function that ends it */
  watch (ref: GroupRef): (watcher: Watcher) => () => void {
    return (watcher) => {
      const group = watcher.group = this.#find(ref)
      this.#groups.set(group.key, group)
      group.watchers.add(watcher)
      if (this.#end) queueMicrotask(() => this.#remove(group, this.#end, this.#end))
      else this.#ask(group, ref)

      return () => {
        const { group } = watcher
        if (group?.watchers.delete(watcher) && !group.watchers.size) this.#leave(group).catch(this.#emitter.report)
      }
    }
  }

  /** Passes changes, or the announcement that messages are lost, to watchers and listeners. */
  receive (data: Change<never> | Batch | Resync, spread: unknown): void {
    const { group: name, type } = data
    const group = this.#byName.get(name)
    if (type === 'resync') {
      if (group) this.#resync(group, asNumber(spread) ?? SPREAD * this.#backoff.min)
      return
    }
    // servers without batches may have an own message of this type
    const isBatch = type === 'batch' && Array.isArray(data.changes)
    const all = isBatch ? data.changes.map((change) => ({ group: name, ...change })) : [data as Change<never>]
    const changes = group?.isJoined ? takeNew(group, all) : all
    for (const watcher of group?.watchers ?? []) {
      // until the reply to its own request, batches may arrive in parts
      if (!watcher.takesBatches || watcher.state !== 'asked') callSafely(watcher.changed, changes)
    }
    for (const change of changes) {
      // a listener may close the client, or give up the connection
      if (this.#isOpen) this.#emitter.emitToGroup(name, null, change)
    }
  }

  /** Notes the position of a handled message, the start of a recovery after a reconnect. */
  reached (position: { group?: unknown, offset?: unknown }): void {
    const group = this.#byName.get(position.group)
    if (!group?.isJoined || typeof position.offset !== 'number') return
    // that of a reply is noted already
    if (group.position !== position) group.arrived = group.received = 0
    group.position = position
    if (group.top !== position.offset) return
    group.top = undefined
    notifyJoined(group)
  }

  /** The connection is open: asks for all groups. */
  opened (): void {
    this.#isOpen = true
    this.#failures = 0
    for (const group of this.#all()) {
      // a restarted server has enough to do with the groups that clients were members of
      if (group.isRefused && !group.name) this.#askLater(RETURN * this.#backoff.min)
      else this.#ask(group)
    }
  }

  /**
   * The connection is gone: for now, or with `reason` for good.
   *
   * @param error the error for loops and collections, none after `close()`
   */
  lost (reason?: RohrpostError, error?: RohrpostError): void {
    this.#isOpen = false
    this.#end = reason
    this.#stop()
    for (const group of this.#all()) {
      group.isJoined = false
      if (reason) this.#remove(group, reason, error)
      for (const watcher of group.watchers) {
        watcher.state = watcher.state && watcher.state !== 'asked' ? 'away' : undefined
        watcher.lost?.()
      }
    }
  }

  #all (): Set<SubscribedGroup> {
    return new Set(this.#groups.values())
  }

  #find (ref: GroupRef): SubscribedGroup {
    const key = keyOf(ref)
    return this.#groups.get(key) ?? { key, ref, watchers: new Set(), asking: 0, arrived: 0, received: 0 }
  }

  #ask (group: SubscribedGroup, ref = group.ref): void {
    if (!this.#isOpen) return
    const { watchers, asking } = group
    const asked = [...watchers].filter(({ state }) => !state)
    for (const watcher of asked) watcher.state = 'asked'

    group.asking++
    const batch = takesBatches(group)
    this.#request('subscribe', ref, {
      still: () => watchers.size > 0,
      // a member, or soon a member, would receive twice what came after a position
      recover: (!group.isJoined && !asking && group.position) || true,
      batch,
      answered: (reply) => this.#joined(group, ref, asked, reply, batch)
    }).finally(() => { group.asking-- }).catch((error) => this.#refused(group, asked, error))
  }

  #joined (
    asking: SubscribedGroup,
    ref: GroupRef,
    asked: Watcher[],
    message: ServerMessage,
    batch: true | undefined
  ): void {
    const reply: { group: string } = Object(message.data)
    const name = asking.name = reply.group
    for (const { isCall, joined } of asked) {
      if (isCall) joined?.(reply)
    }
    if (!asking.watchers.size) return

    const known = this.#byName.get(name)
    const group = known ?? asking
    this.#byName.set(name, group)
    this.#groups.set(asking.key, group)
    if (group !== asking) {
      for (const watcher of asking.watchers) {
        watcher.group = group
        group.watchers.add(watcher)
      }
      asking.watchers.clear()
    }
    group.ref = ref
    group.position = message.position
    group.arrived = 0
    if (!message.recovered) group.received = 0
    if (known && !group.isJoined && !message.recovered) this.#resync(group, 0)
    group.isJoined = true
    group.top = message.top?.offset
    notifyJoined(group, reply)
    // another reference led to the same group: its request has ended the batches
    if (group !== asking && !batch && takesBatches(group)) this.#ask(group)
  }

  /** Notifies the watchers that were members before: they have missed changes. */
  #resync (group: SubscribedGroup, spread: number): void {
    const name = group.name as string
    group.top = undefined
    for (const watcher of group.watchers) {
      if (!watcher.state || watcher.state === 'asked') continue
      watcher.state = 'joined'
      callSafely(watcher.missed, { group: name, type: 'resync' }, spread)
    }
    this.#emitter.emit('resync', name)
  }

  #refused (group: SubscribedGroup, asked: Watcher[], error: RohrpostError): void {
    const { name } = group
    for (const watcher of asked) {
      // a call that still waits is repeated on the next connection
      if (!watcher.isCall || (!this.#isOpen && watcher.group?.watchers.has(watcher))) continue
      watcher.state = undefined
      end(watcher, error)
    }

    if (group.isJoined) return notifyJoined(group)
    // no longer wanted, or another request decides
    if (!this.#isOpen || group.asking || this.#groups.get(group.key) !== group) return
    const isTimeout = error.code === ClientErrorCode.TIMEOUT
    if (group.watchers.size && (error.retry || isTimeout)) {
      group.isRefused = true
      return this.#askLater(error.retryAfter)
    }

    this.#remove(group, error, error)
    // the server may still accept the request
    if (isTimeout) this.#leave(group).catch(this.#emitter.report)
    if (name) this.#emitter.emitToGroup(name, error)
  }

  /** Asks again for all groups without a membership, until the server decides. */
  #askLater (retryAfter?: number): void {
    if (retryAfter) this.#stop()
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      for (const group of this.#all()) {
        if (!group.isJoined && !group.asking) this.#ask(group)
      }
    }, retryDelay(this.#backoff, this.#failures++, retryAfter))
  }

  #stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /** Forgets a group, and leaves it. Resolves also when the connection goes: the membership ends with it. */
  async #leave (group: SubscribedGroup): Promise<void> {
    this.#remove(group)
    if (!this.#isOpen) return
    try {
      await this.#request('unsubscribe', group.ref, {
        still: () => !this.#groups.has(group.key),
        answered: () => {
          // another reference led to the same group, whose name was not known when this was sent
          const alias = this.#byName.get(group.name)
          if (!alias) return
          alias.isJoined = false
          this.#ask(alias)
        }
      })
    } catch (error) {
      if (this.#isOpen) throw error
    }
  }

  #remove (group: SubscribedGroup, reason?: RohrpostError, error?: RohrpostError): void {
    for (const map of [this.#groups, this.#byName]) {
      for (const [key, each] of map) {
        if (each === group) map.delete(key)
      }
    }
    for (const watcher of group.watchers) end(watcher, watcher.isCall ? reason : error)
  }
}

/** Ends a watcher, but for a call in flight, which its reply ends. */
function end (watcher: Watcher, error: RohrpostError | undefined): void {
  watcher.group?.watchers.delete(watcher)
  if (!watcher.isCall || watcher.state !== 'asked') watcher.ended(error)
}

/** Notifies new watchers of the membership, and returning ones once all missed changes have arrived. */
function notifyJoined ({ watchers, top }: SubscribedGroup, reply?: unknown): void {
  for (const watcher of watchers) {
    if (watcher.state === 'joined' || (watcher.state === 'away' && top)) continue
    watcher.state = 'joined'
    watcher.joined?.(reply)
  }
}
