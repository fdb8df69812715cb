/** A `subscribe` of one connection, from its arrival until the connection is a member or never will be. */
import { errors } from '../../errors.ts'
import type { Follower, JoinRequest, Recover, Start } from './catch-up.ts'

/**
 * The connection knows each pending subscribe, so everything that ends a membership ends a pending one too: after each `await`, `check`
 * tells whether that has happened.
 */
export class PendingSubscribe implements JoinRequest {
  readonly group: string
  readonly member: Follower
  /** Set when `authorize` has allowed the subscribe. */
  recover: Recover | undefined
  readonly #onEnd: (pending: PendingSubscribe, isCancelled: boolean) => void
  readonly #ended = Promise.withResolvers<void>()
  #isOpen = true
  #reason: unknown
  #reply: ((start: Start | undefined) => void) | undefined

  /** @param onEnd called once, synchronously, when the subscribe is pending no more */
  constructor (group: string, member: Follower, onEnd: (pending: PendingSubscribe, isCancelled: boolean) => void) {
    this.group = group
    this.member = member
    this.#onEnd = onEnd
  }

  /** Resolves when the subscribe is pending no more. */
  get ended (): Promise<void> {
    return this.#ended.promise
  }

  /** @throws the reason of the cancellation */
  check (): void {
    if (!this.#isOpen) throw this.#reason
  }

  /** Waits for a promise that does not reject, or for the cancellation. @throws the reason of the cancellation */
  async wait (promise: Promise<void>): Promise<void> {
    await Promise.race([promise, this.#ended.promise])
    this.check()
  }

  /**
   * Waits until the connection is a member.
   *
   * @param enter asks for the membership
   * @param reply called at the moment of membership, before the first message of the group
   * @throws the reason of the cancellation
   */
  async enter (enter: () => void, reply: (start: Start | undefined) => void): Promise<void> {
    this.#reply = reply
    enter()
    await this.#ended.promise
    if (this.#reason !== undefined) throw this.#reason
  }

  joined (start: Start | undefined): void {
    this.#end(false)
    this.#reply?.(start)
  }

  failed (error: Error): void {
    this.cancel(error)
  }

  /** Ends the subscribe without a membership of its own; another membership of the same group stays. @param reason access denied by default */
  cancel (reason?: unknown): void {
    if (!this.#isOpen) return
    this.#reason = reason ?? new errors.RP_ERR_ACCESS_DENIED()
    this.#end(true)
  }

  #end (isCancelled: boolean): void {
    this.#isOpen = false
    this.#onEnd(this, isCancelled)
    this.#ended.resolve()
  }
}
