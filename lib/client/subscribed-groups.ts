/** Subscriptions of the client: joins groups again after each reconnect, and recovers what was missed. */
import { ClientErrorCode, RohrpostError } from './error.ts'
import { callSafely, type Emitter } from './emitter.ts'
import { asNumber } from './option-checks.ts'
import type { Requests, ServerMessage } from './pending-requests.ts'
import { retryDelay, type DelayBounds } from './retry-delay.ts'
import { keyOf, type Change, type GroupRef, type Membership, type Resync, type SubscribedGroup, type Watcher } from './subscribed-group.ts'

/** Milliseconds that the server has to answer; its own deadline is the same by default. */
const ANSWER_TIMEOUT = 30_000
/** Random wait of clients before they load again when the server lost messages, as a multiple of `backoff.min`, unless the server names one. */
const SPREAD = 4
/** Wait before a temporarily refused group is asked for after a reconnect, as a multiple of `backoff.min`. */
const RETURN = 3

/** All subscriptions of one client. */
export class SubscribedGroups {
  readonly #groups = new Map<string, SubscribedGroup>()
  /** By the name of the group. */
  readonly #memberships = new Map<string | undefined, Membership>()
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
    return new Set([...this.#memberships].flatMap(([name, { isJoined }]) => isJoined && name ? [name] : []))
  }

  /** Ends one call of `subscribe`; other calls and watchers keep the membership. */
  async unsubscribe (ref: GroupRef): Promise<void> {
    const group = this.#find(ref)
    const call = [...group.watchers].find(({ isCall }) => isCall)
    if (call) end(group, call, new RohrpostError('unsubscribed', { code: ClientErrorCode.UNSUBSCRIBED }))
    if (!group.watchers.size) await this.#leave(group)
  }

  /** Follows a group. @returns a function that ends it */
  watch (ref: GroupRef, watcher: Watcher): () => void {
    const group = this.#find(ref)
    this.#groups.set(group.key, group)
    group.watchers.add(watcher)
    if (this.#end) queueMicrotask(() => this.#remove(group, this.#end, this.#end))
    else this.#ask(group, ref)

    return () => {
      if (group.watchers.delete(watcher) && !group.watchers.size) this.#leaveQuietly(group)
    }
  }

  /** Passes a change, or the announcement that messages are lost, to watchers and listeners. */
  receive (change: Change<never> | Resync, spread: unknown): void {
    const { group: name, type } = change
    const membership = this.#memberships.get(name)
    if (type !== 'resync') {
      if (membership?.isJoined) {
        for (const watcher of watchersOf(membership)) callSafely(() => watcher.changed?.(change))
      }
      this.#emitter.emitToGroup(name, null, change)
    } else if (membership?.isJoined) this.#resync(membership, name, asNumber(spread) ?? SPREAD * this.#backoff.min)
  }

  /** Notes the position of a handled message, the start of a recovery after a reconnect. */
  reached (position: { group?: string, offset?: unknown }): void {
    const membership = this.#memberships.get(position.group)
    if (!membership?.isJoined || typeof position.offset !== 'number') return
    membership.position = position
    if (membership.top !== keyOf(position)) return
    membership.top = undefined
    notifyJoined(membership)
  }

  /** The connection is open: asks for all groups. */
  opened (): void {
    this.#isOpen = true
    this.#failures = 0
    for (const group of this.#groups.values()) {
      // a restarted server has enough to do with the groups that clients were members of
      if (group.isRefused) this.#askLater(RETURN * this.#backoff.min)
      else this.#ask(group)
    }
  }

  /** The connection is gone for now. */
  lost (): void {
    this.#isOpen = false
    this.#stop()
    for (const membership of this.#memberships.values()) membership.isJoined = false
    for (const { watchers } of this.#groups.values()) {
      for (const watcher of watchers) {
        watcher.state = watcher.state && watcher.state !== 'asked' ? 'away' : undefined
        watcher.lost?.()
      }
    }
  }

  /** The connection is gone for good. @param error the error for loops and collections, none after `close()` */
  end (reason: RohrpostError, error: RohrpostError | undefined): void {
    this.#isOpen = false
    this.#end = reason
    this.#stop()
    for (const group of this.#groups.values()) this.#remove(group, reason, error)
  }

  #ask (group: SubscribedGroup, ref = group.ref): void {
    if (!this.#isOpen) return
    const { watchers } = group
    const asked = [...watchers].filter(({ state }) => !state)
    for (const watcher of asked) watcher.state = 'asked'
    const { isJoined, position, groups } = this.#memberships.get(group.name) ?? { groups: [] }
    // a member, or soon a member, would receive twice what came after a position
    const isMember = isJoined || [...groups].some(({ asking }) => asking)

    group.asking++
    this.#request('subscribe', ref, {
      timeout: ANSWER_TIMEOUT,
      still: () => watchers.size > 0,
      fields: { recover: (!isMember && position) || true },
      answered: (reply) => this.#joined(group, ref, asked, reply)
    }).finally(() => { group.asking-- }).catch((error) => this.#refused(group, asked, error))
  }

  #joined (group: SubscribedGroup, ref: GroupRef, asked: Watcher[], { data, position, recovered, top }: ServerMessage): void {
    const reply: { group: string } = Object(data)
    const isReturning = group.name !== undefined
    const name = group.name = reply.group
    group.ref = ref
    group.isRefused = false
    for (const { isCall, joined } of asked) {
      if (isCall) joined?.(reply)
    }
    if (!group.watchers.size) return

    const membership = this.#memberships.get(name) ?? { groups: new Set() }
    this.#memberships.set(name, membership)
    membership.groups.add(group)
    membership.position = position
    if (isReturning && !membership.isJoined && !recovered) this.#resync(membership, name, 0)
    membership.isJoined = true
    membership.top = top ? keyOf(top) : undefined
    notifyJoined(membership, reply)
  }

  /** Notifies the watchers that were members before: they have missed changes. */
  #resync (membership: Membership, group: string, spread: number): void {
    membership.top = undefined
    for (const watcher of watchersOf(membership)) {
      if (!watcher.state || watcher.state === 'asked') continue
      watcher.state = 'joined'
      callSafely(() => watcher.changed?.({ group, type: 'resync' }, spread))
    }
    this.#emitter.emit('resync', group)
  }

  #refused (group: SubscribedGroup, asked: Watcher[], error: RohrpostError): void {
    const { watchers, name } = group
    for (const watcher of asked) {
      // a call that still waits is repeated on the next connection
      if (watcher.isCall && (this.#isOpen || !watchers.has(watcher))) {
        watchers.delete(watcher)
        watcher.ended(error)
      }
    }

    const membership = this.#memberships.get(name)
    if (membership?.isJoined) return notifyJoined(membership)
    // no longer wanted, or another request decides
    if (!this.#isOpen || group.asking || this.#groups.get(group.key) !== group) return
    const isTimeout = error.code === ClientErrorCode.TIMEOUT
    if (watchers.size && (error.retry || isTimeout)) {
      group.isRefused = !name
      return this.#askLater(error.retryAfter)
    }

    this.#remove(group, error, error)
    // the server may still accept the request
    if (isTimeout) this.#leaveQuietly(group)
    if (name) this.#emitter.emitToGroup(name, error)
  }

  /** Asks again for all groups without a membership, until the server decides. */
  #askLater (retryAfter = 0): void {
    if (retryAfter > 0) this.#stop()
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      for (const group of this.#groups.values()) {
        if (!this.#memberships.get(group.name)?.isJoined && !group.asking) this.#ask(group)
      }
    }, retryDelay(this.#backoff, this.#failures++, retryAfter))
  }

  #stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #leaveQuietly (group: SubscribedGroup): void {
    this.#leave(group).catch(this.#emitter.report)
  }

  #find (ref: GroupRef): SubscribedGroup {
    const key = keyOf(ref)
    return this.#groups.get(key) ?? { key, ref, watchers: new Set(), asking: 0 }
  }

  /**
   * Forgets a group, and leaves it unless another reference leads to the same one. Resolves also when the connection goes: the membership ends
   * with it.
   */
  async #leave (group: SubscribedGroup): Promise<void> {
    this.#remove(group)
    if (!this.#isOpen || this.#memberships.has(group.name)) return
    try {
      await this.#request('unsubscribe', group.ref, {
        timeout: ANSWER_TIMEOUT,
        still: () => !this.#groups.has(group.key),
        answered: () => {
          // another reference led to the same group, whose name was not known when this was sent
          const membership = this.#memberships.get(group.name)
          if (!membership) return
          membership.isJoined = false
          for (const alias of membership.groups) this.#ask(alias)
        }
      })
    } catch (error) {
      if (this.#isOpen) throw error
    }
  }

  #remove (group: SubscribedGroup, reason?: RohrpostError, error?: RohrpostError): void {
    const { key, name, watchers } = group
    this.#groups.delete(key)
    const membership = this.#memberships.get(name)
    if (membership?.groups.delete(group) && !membership.groups.size) this.#memberships.delete(name)
    for (const watcher of watchers) end(group, watcher, watcher.isCall ? reason : error)
  }
}

/** Ends a watcher, but for a call in flight, which its reply ends. */
function end ({ watchers }: SubscribedGroup, watcher: Watcher, error: RohrpostError | undefined): void {
  watchers.delete(watcher)
  if (!watcher.isCall || watcher.state !== 'asked') watcher.ended(error)
}

function watchersOf ({ groups }: Membership): Watcher[] {
  return [...groups].flatMap(({ watchers }) => [...watchers])
}

/** Notifies new watchers of the membership, and returning ones once all missed changes have arrived. */
function notifyJoined (membership: Membership, reply?: unknown): void {
  for (const watcher of watchersOf(membership)) {
    if (watcher.state === 'joined' || (watcher.state === 'away' && membership.top)) continue
    watcher.state = 'joined'
    watcher.joined?.(reply)
  }
}
