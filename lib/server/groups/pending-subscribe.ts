/**
 * A pending `subscribe` of one connection: from its arrival until the connection is a member, or the request has
 * failed.
 */
import { errors } from '../../errors.ts'
import type { Member, Recover, SubscribeRequest, SubscribeResult } from './member.ts'

/**
 * Whatever ends a membership cancels the pending `subscribe` requests for the group, too. The handler of `subscribe`
 * learns of that from `check`, which it calls after each `await`.
 */
export class PendingSubscribe implements SubscribeRequest {
  readonly group: string
  readonly member: Member
  /** The two fields are set when `authorize` has allowed the subscribe. */
  recover: Recover | undefined
  batch = false
  readonly #onEnd: (pending: PendingSubscribe, isCancelled: boolean) => void
  readonly #ended = Promise.withResolvers<void>()
  #isPending = true
  #reason: unknown
  #reply: ((result: SubscribeResult | undefined) => void) | undefined

  /** @param onEnd called once, synchronously, when the request is no longer pending */
  constructor (group: string, member: Member, onEnd: (pending: PendingSubscribe, isCancelled: boolean) => void) {
    this.group = group
    this.member = member
    this.#onEnd = onEnd
  }

  /** Resolves when the request is no longer pending. */
  get ended (): Promise<void> {
    return this.#ended.promise
  }

  /** @throws the reason of the cancellation */
  check (): void {
    if (!this.#isPending) throw this.#reason
  }

  /** Waits for a promise that does not reject, or for the cancellation. @throws the reason of the cancellation */
  async wait (promise: Promise<void>): Promise<void> {
    await Promise.race([promise, this.#ended.promise])
    this.check()
  }

  /**
   * Waits until the connection is a member.
   *
   * @param start requests the membership
   * @param reply called when the membership begins, before the first message of the group
   * @throws the reason of the cancellation
   */
  async join (start: () => void, reply: (result: SubscribeResult | undefined) => void): Promise<void> {
    this.#reply = reply
    start()
    await this.#ended.promise
    if (this.#reason !== undefined) throw this.#reason
  }

  joined (result: SubscribeResult | undefined): void {
    this.#end(false)
    this.#reply?.(result)
  }

  failed (error: Error): void {
    this.cancel(error)
  }

  /**
   * Ends the request without a membership of its own. A membership by `join` continues.
   *
   * @param reason access denied by default
   */
  cancel (reason?: unknown): void {
    if (!this.#isPending) return
    this.#reason = reason ?? new errors.RP_ERR_ACCESS_DENIED()
    this.#end(true)
  }

  #end (isCancelled: boolean): void {
    this.#isPending = false
    this.#onEnd(this, isCancelled)
    this.#ended.resolve()
  }
}
