/** One group on this process: its members, and the position of the last message that was delivered to them. */
import type { Broker, Position } from '../../brokers/broker.ts'
import { diagnostics } from '../../diagnostics.ts'
import { errors } from '../../errors.ts'
import { isThenable } from '../../util/thenable.ts'
import { GroupMessage, sendToAll } from './group-message.ts'
import { noteBatches, type Member, type SubscribeRequest } from './member.ts'
import { includes, isNext } from './position.ts'
import { PositionedMembers } from './positioned-members.ts'
import type { RecoveryLimit } from './shared-history.ts'

/** Shared by all groups of a server. */
export interface GroupContext {
  readonly broker: Broker
  readonly recoveryLimit: RecoveryLimit
  /** Called when the broker fails to subscribe, to unsubscribe or to read history. */
  onError (error: Error, group: string): void
  /** Called when messages of a group are lost. */
  onLost (group: string): void
}

/** Delivers messages to the members of a group. `Groups` manages its subscription at the broker. */
export class Group {
  readonly name: string
  readonly #context: GroupContext
  /** Members without positions. */
  readonly #plainMembers = new Set<Member>()
  /** Members that take batches, with positions or without. Made for the first of them. */
  #batchMembers: Set<Member> | undefined
  #positionedMembers: PositionedMembers | undefined
  /** The last message that was delivered, where the broker keeps history. */
  #top: Position | undefined

  constructor (name: string, context: GroupContext) {
    this.name = name
    this.#context = context
  }

  get #isSparse (): boolean {
    return this.#context.broker.hasSparseOffsets === true
  }

  get size (): number {
    return this.#plainMembers.size + (this.#positionedMembers?.size ?? 0)
  }

  has (member: Member): boolean {
    return this.#plainMembers.has(member) || this.#positionedMembers?.has(member) === true
  }

  /** Adds a member without positions. A member with positions stays as it is. */
  add (member: Member): void {
    if (this.#positionedMembers?.keep(member) !== true) this.#plainMembers.add(member)
  }

  /** Adds a member with or without positions, as its `subscribe` requests. An existing member is changed to that. */
  subscribe (request: SubscribeRequest): void {
    const { member, recover, batch } = request
    const { broker, recoveryLimit } = this.#context
    if (recover === undefined || broker.keepsHistory !== true) {
      if (this.#positionedMembers === undefined) this.#plainMembers.add(member)
      else this.#positionedMembers.makePlain(member, this.#top)
      if (batch) this.#batchMembers ??= new Set()
      if (this.#batchMembers !== undefined) noteBatches(request, this.#batchMembers)
      return request.joined(recover && { recovered: false })
    }

    const batchMembers = this.#batchMembers ??= new Set()
    const members = this.#positionedMembers ??=
      new PositionedMembers(this.name, recoveryLimit, this.#plainMembers, batchMembers, this.#isSparse)
    const { after } = recover
    members.startBuffering(request, this.#top)
    if (after === undefined || !this.#isNear(after)) return members.complete(request, undefined, this.#top)
    // after a restart nearly every client missed nothing, which needs no read of the history
    if (after.offset === this.#top?.offset) return members.complete(request, [], this.#top)

    const { messages, bytes } = recoveryLimit
    const history = members.read(after, this.#top, () => broker.history(this.name, after, messages, bytes), (cause) => {
      const error = new errors.RP_ERR_UNAVAILABLE(this.name, { cause })
      this.#context.onError(error, this.name)
      return error
    })
    if (!isThenable(history)) return members.complete(request, history, this.#top)
    Promise.resolve(history).then(
      (history) => members.complete(request, history, this.#top),
      (error: Error) => { if (members.isPending(request)) request.failed(error) }
    )
  }

  /** Ends a request that waits for history. The connection is the member that it was before, if it was one. */
  cancel (request: SubscribeRequest): void {
    this.#positionedMembers?.cancel(request, this.#top)
  }

  /** Ends a membership. */
  delete (member: Member): void {
    this.#plainMembers.delete(member)
    this.#batchMembers?.delete(member)
    this.#positionedMembers?.delete(member)
  }

  /** Called before the broker subscribes: messages of an earlier subscription do not count. */
  resetTop (): void {
    this.#top = undefined
  }

  /** Called when the broker has subscribed. Messages may have been delivered meanwhile, and be ahead of its answer. */
  initializeTop (top: Position): void {
    if (this.#top === undefined || !includes(this.#top, top)) this.#top = top
  }

  /**
   * Delivers a message to all members: one frame for all without positions, another for all with positions; and of a
   * batch its parts for members that do not take batches.
   */
  deliver (payload: string, position?: Position): void {
    if (position !== undefined && !this.#advance(position)) return

    const message = new GroupMessage(payload)
    sendToAll(message, this.#plainMembers, this.#batchMembers)
    if (position !== undefined) this.#positionedMembers?.deliver(message, position)

    if (!diagnostics.deliver.hasSubscribers || this.size === 0) return
    diagnostics.deliver.publish({ group: this.name, size: Buffer.byteLength(payload), members: this.size })
  }

  /** Tells the members with positions that messages are lost. @param top the position after which the log continues */
  lost (top: Position | undefined): void {
    this.#context.onLost(this.name)
    this.#top = top
    this.#positionedMembers?.lost(top)
  }

  /** Whether the messages after a position can be within `recoveryLimit`: otherwise reading the history is in vain. */
  #isNear (after: Position): boolean {
    const top = this.#top
    if (top?.epoch !== after.epoch) return false
    return this.#isSparse || top.offset - after.offset <= this.#context.recoveryLimit.messages
  }

  /** Moves the top to the position of a message. @returns `false` if the message was delivered before */
  #advance (position: Position): boolean {
    const top = this.#top
    if (top !== undefined) {
      if (includes(top, position)) return false
      // a correct broker reports a gap itself; members must not take an unreported gap for a complete log
      if (!isNext(top, position, this.#isSparse)) this.lost({ epoch: position.epoch, offset: position.offset - 1 })
    }
    this.#top = position
    return true
  }
}
