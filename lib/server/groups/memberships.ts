/** The memberships of one connection: the groups that it has joined, and its pending `subscribe` requests. */
import { errors } from '../../errors.ts'
import { checkName, type Groups } from './groups.ts'
import type { Member, SubscribeRequest, SubscribeResult } from './member.ts'
import { PendingSubscribe } from './pending-subscribe.ts'

/** Joins and leaves groups on behalf of one connection, and counts them against `maxGroups`. */
export class Memberships {
  readonly #groups: Groups
  readonly #member: Member
  readonly #maxGroups: number
  // both are created on demand, as a server may have very many idle connections
  #names: Set<string> | undefined
  #pending: Set<PendingSubscribe> | undefined
  /** Whether the connection is closing: it has left all groups and joins no others. */
  #isEnded = false

  constructor (groups: Groups, member: Member, maxGroups: number) {
    this.#groups = groups
    this.#member = member
    this.#maxGroups = maxGroups
  }

  /** The names of the groups. After `leaveAll`, the groups until then. */
  get names (): ReadonlySet<string> {
    this.#names ??= new Set()
    return this.#names
  }

  /** Whether the connection is a member of a group, or waits to become one. A pending `subscribe` counts. */
  has (group: string): boolean {
    if (this.#names?.has(group)) return true
    for (const pending of this.#pending ?? []) if (pending.group === group) return true
    return false
  }

  /** See `RohrpostConnection.join`. */
  join (group: string): Promise<void> | undefined {
    checkName(group)
    if (this.#isEnded) return

    this.#reserve(group)
    const joining = this.#groups.join(group, this.#member)
    joining?.catch(() => this.#release(group))
    return joining
  }

  /** Ends a membership and cancels the pending `subscribe` requests for the group. */
  leave (group: string): void {
    this.unsubscribe(group)
    for (const pending of this.#pending ?? []) if (pending.group === group) pending.cancel()
  }

  /** Ends a membership, but no pending `subscribe`. */
  unsubscribe (group: string): void {
    if (this.#names?.delete(group)) this.#groups.leave(group, this.#member)
  }

  /** Registers a `subscribe`. From now on everything that ends a membership of the group cancels it. */
  beginSubscribe (group: string): PendingSubscribe {
    const pending = new PendingSubscribe(group, this.#member, (pending, isCancelled) => {
      this.#pending?.delete(pending)
      if (this.#pending?.size === 0) this.#pending = undefined
      if (!isCancelled) return
      this.#groups.cancel(group, pending)
      this.#release(group)
    })
    this.#pending ??= new Set()
    this.#pending.add(pending)
    return pending
  }

  /**
   * Makes the connection a member, as an authorized `subscribe` requests.
   *
   * @param reply called when the membership begins, before the first message of the group
   * @throws RP_ERR_TOO_MANY_GROUPS, RP_ERR_UNAVAILABLE, the reason of the cancellation
   */
  subscribe (
    pending: PendingSubscribe,
    { recover, batch }: Pick<SubscribeRequest, 'recover' | 'batch'>,
    reply: (result: SubscribeResult | undefined) => void
  ): Promise<void> {
    return pending.join(() => {
      const { group } = pending
      this.#reserve(group)
      Object.assign(pending, { recover, batch })
      this.#groups.subscribe(group, pending)
    }, reply)
  }

  /** Waits until all earlier replays to the client have been sent. @throws the reason of the cancellation */
  async waitForReplays (pending: PendingSubscribe): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const emptyReplay = () => {
      resolve()
      return undefined
    }
    this.#member.replay(emptyReplay)
    await pending.wait(promise).finally(() => this.#member.dropReplay(emptyReplay))
  }

  /** Cancels all pending `subscribe` requests: the server stops. */
  cancelPending (): void {
    for (const pending of this.#pending ?? []) pending.cancel(new errors.RP_ERR_UNAVAILABLE(pending.group))
  }

  /**
   * Ends all memberships and pending `subscribe` requests, for good. `names` keeps the groups until now, for
   * `onDisconnect`.
   */
  leaveAll (): void {
    if (this.#isEnded) return
    this.#isEnded = true
    // memberships first: a cancelled request sends buffered messages to a connection that is still a member
    for (const group of this.#names ?? []) this.#groups.leave(group, this.#member)
    for (const pending of this.#pending ?? []) pending.cancel()
  }

  /** Counts a group. @throws RP_ERR_TOO_MANY_GROUPS */
  #reserve (group: string): void {
    const names = this.#names ??= new Set()
    if (!names.has(group) && names.size >= this.#maxGroups) throw new errors.RP_ERR_TOO_MANY_GROUPS(group, names.size)
    names.add(group)
  }

  /** No longer counts a group, unless the connection is still a member or waits to become one. */
  #release (group: string): void {
    if (!this.#isEnded && !this.#groups.has(group, this.#member)) this.#names?.delete(group)
  }
}
