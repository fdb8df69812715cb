/** The members with positions of one group: live members, and members that still catch up. */
import type { Position } from '../../brokers/broker.ts'
import { CatchUp } from './catch-up.ts'
import { sendTo, sendToAll, type GroupMessage } from './group-message.ts'
import { noteBatches, type Member, type SubscribeRequest } from './member.ts'
import { includes, isAhead, isNext } from './position.ts'
import { makeResync, PositionedMessage } from './positioned-message.ts'
import { SharedHistory, type History, type RecoveryLimit } from './shared-history.ts'

/** `top` is always the last message that was delivered on this process. */
export class PositionedMembers {
  readonly #group: string
  readonly #limit: RecoveryLimit
  readonly #isSparse: boolean
  readonly #history: SharedHistory
  /** The members of the group without positions. */
  readonly #plainMembers: Set<Member>
  /** The members of the group that take batches, with positions or without. */
  readonly #batchMembers: Set<Member>
  /** Members that have every delivered message, and receive the next one at once. */
  readonly #live = new Set<Member>()
  readonly #catchUps = new Map<Member, CatchUp>()

  constructor (
    group: string,
    limit: RecoveryLimit,
    plainMembers: Set<Member>,
    batchMembers: Set<Member>,
    isSparse = false
  ) {
    this.#group = group
    this.#limit = limit
    this.#isSparse = isSparse
    this.#history = new SharedHistory(group, limit, isSparse)
    this.#plainMembers = plainMembers
    this.#batchMembers = batchMembers
  }

  get size (): number {
    return this.#live.size + this.#catchUps.size
  }

  has (member: Member): boolean {
    return this.#live.has(member) || this.#catchUps.has(member)
  }

  /** Ends a membership. Buffered and queued messages are dropped. */
  delete (member: Member): void {
    this.#live.delete(member)
    this.#catchUps.get(member)?.stop()
    this.#catchUps.delete(member)
  }

  /** Keeps a member even if its pending request fails. @returns `false` if it is no member with positions */
  keep (member: Member): boolean {
    const catchUp = this.#catchUps.get(member)
    if (catchUp !== undefined) catchUp.keptFrom ??= catchUp.buffered.length
    return this.has(member)
  }

  /** Makes a connection a member without positions, whether it is a member or not. */
  makePlain (member: Member, top: Position | undefined): void {
    const last = this.#flush(member, top)
    this.delete(member)
    this.#addPlain(member, last)
  }

  /** Buffers the messages that are delivered to a connection until its request is completed or cancelled. */
  startBuffering (request: SubscribeRequest, top: Position | undefined): void {
    const { member } = request
    const last = this.#flush(member, top)
    const wasPlain = this.#plainMembers.delete(member) || this.#catchUps.get(member)?.isPlain === true
    const wasPositioned = !wasPlain && this.has(member)
    this.delete(member)

    const catchUp = new CatchUp(member, !wasPositioned, last, this.#history)
    catchUp.request = request
    catchUp.keptFrom = wasPlain || wasPositioned ? 0 : undefined
    this.#catchUps.set(member, catchUp)
  }

  /** Whether a request still waits for history. */
  isPending (request: SubscribeRequest): boolean {
    return this.#catchUps.get(request.member)?.request === request
  }

  /** Reads the messages after a position. See {@link SharedHistory.read}. */
  read (...parameters: Parameters<SharedHistory['read']>): History | Promise<History> {
    return this.#history.read(...parameters)
  }

  /**
   * Ends a request with success. The member receives all messages after the requested position if history has all of
   * them, otherwise the messages that are delivered from now on.
   */
  complete (request: SubscribeRequest, history: History, top: Position | undefined): void {
    const catchUp = this.#pending(request)
    // the request was cancelled, or completed because messages were lost
    if (catchUp === undefined) return

    const after = request.recover?.after
    const missed = after && history && this.#missed(after, history, catchUp.buffered, top)
    const position = missed !== undefined ? after : isAhead(catchUp.last, top) ? catchUp.last : top
    request.joined(after === undefined && position !== undefined
      ? { position }
      : { position, recovered: missed !== undefined, top: missed && (missed.at(-1)?.position ?? after) })
    // `joined` may have ended the membership
    if (this.#pending(request) === undefined) return
    noteBatches(request, this.#batchMembers)
    catchUp.replay(missed ?? [], position, request.batch)
    if (missed !== undefined) this.#history.share(missed)
  }

  /** Ends a request without success. The connection is the member that it was before, if it was one. */
  cancel (request: SubscribeRequest, top: Position | undefined): void {
    const catchUp = this.#pending(request)
    if (catchUp === undefined) return

    // the read under way may never end: no other request may wait for it
    this.#history.abandonRead()
    const { member, buffered, keptFrom, isPlain, last } = catchUp
    if (keptFrom === undefined) return this.delete(member)

    const kept = buffered.slice(keptFrom).filter(({ position }) => last === undefined || !includes(last, position))
    const takesBatches = this.#batchMembers.has(member)
    if (!isPlain) return catchUp.replay(kept, last, takesBatches)
    this.delete(member)
    for (const { plain } of kept) sendTo(member, plain, takesBatches)
    this.#addPlain(member, isAhead(last, top) ? last : undefined)
  }

  /** Delivers a message to all members, in its place in the order of each. */
  deliver (plain: GroupMessage, position: Position): void {
    if (this.size === 0) return

    const message = new PositionedMessage(plain, this.#group, position)
    this.#history.extend(message)
    sendToAll(message, this.#live, this.#batchMembers)
    for (const catchUp of this.#catchUps.values()) this.#catchUpWith(message, catchUp)
  }

  /** Sends a `resync` to all members: messages are lost. */
  lost (top: Position | undefined): void {
    if (this.size === 0) return

    this.#history.clear()
    const resync = makeResync(this.#group, top)
    sendToAll(resync, this.#live, this.#batchMembers)
    for (const catchUp of this.#catchUps.values()) {
      // history that is read now can't be complete any more
      if (catchUp.request !== undefined) this.complete(catchUp.request, undefined, top)
      else if (catchUp.isPlain) this.#setLive(catchUp)
      else catchUp.resync(resync, top)
    }
  }

  #catchUpWith (message: PositionedMessage, catchUp: CatchUp): void {
    const { member, request, isPlain, last } = catchUp
    if (request !== undefined) {
      // a buffer beyond the limit can't be replayed: the request need not wait any longer
      if (!catchUp.buffer(message, this.#limit)) this.complete(request, undefined, message.position)
      return
    }
    if (last !== undefined && includes(last, message.position)) return
    if (catchUp.enqueue(message, this.#limit)) return
    this.#setLive(catchUp)
    sendTo(member, isPlain ? message.plain : message, this.#batchMembers.has(member))
  }

  /** Returns the messages after a position, or `undefined` if any is missing or they are beyond the limit. */
  #missed (
    after: Position,
    history: readonly PositionedMessage[],
    buffered: readonly PositionedMessage[],
    top: Position | undefined
  ): PositionedMessage[] | undefined {
    const missed: PositionedMessage[] = []
    let last = after
    let bytes = 0
    for (const message of [...history, ...buffered]) {
      const { position } = message
      if (includes(last, position)) continue
      if (!isNext(last, position, this.#isSparse)) return undefined
      last = position
      bytes += message.bytes
      missed.push(message)
    }

    // with sparse offsets the top of a group without messages rises, and no history after a position is a complete one
    const isComplete = top !== undefined && (includes(last, top) || (this.#isSparse && history.length === 0))
    return isComplete && missed.length <= this.#limit.messages && bytes <= this.#limit.bytes ? missed : undefined
  }

  #pending (request: SubscribeRequest): CatchUp | undefined {
    const catchUp = this.#catchUps.get(request.member)
    return catchUp?.request === request ? catchUp : undefined
  }

  /**
   * Adds a member without positions.
   *
   * @param last the last message that it has, if it is ahead of the messages delivered on this process
   */
  #addPlain (member: Member, last: Position | undefined): void {
    if (last === undefined) this.#plainMembers.add(member)
    else this.#catchUps.set(member, new CatchUp(member, true, last, this.#history))
  }

  /**
   * Sends the queued messages of a member at once.
   *
   * @returns its last message, if it is ahead of the messages delivered on this process
   */
  #flush (member: Member, top: Position | undefined): Position | undefined {
    const catchUp = this.#catchUps.get(member)
    if (catchUp === undefined) return undefined
    catchUp.flush()
    return isAhead(catchUp.last, top) ? catchUp.last : undefined
  }

  /** Ends a catch-up: the member has every delivered message. */
  #setLive ({ member, isPlain }: CatchUp): void {
    this.#catchUps.delete(member)
    if (isPlain) this.#plainMembers.add(member)
    else this.#live.add(member)
  }
}
