/**
 * The members of groups: the interface to the sending side of a connection, and the `subscribe` requests that make it a
 * member.
 */
import type { Position } from '../../brokers/broker.ts'
import type { Frame } from '../sending/frame.ts'

/** A member of a group. It receives the messages of the group as frames, with positions or without. */
export interface Member {
  send (frame: Frame): void
  /**
   * Sends the frames that `next` returns, until it returns `undefined`, as fast as the client reads. Earlier replays
   * run first.
   */
  replay (next: () => Frame | undefined): void
  /** Drops a replay that has not started. */
  dropReplay (next: () => Frame | undefined): void
}

/** The field `recover` of a `subscribe`: asks for positions, and for the messages after one of them. */
export interface Recover {
  readonly after: Position | undefined
}

/** The fields that recovery adds to the reply of a `subscribe`. */
export interface SubscribeResult {
  /** The member receives the messages after this position; `undefined` if the broker keeps no history. */
  position?: Position | undefined
  /** Whether the member receives every message that it missed; `undefined` if the request names no position. */
  recovered?: boolean
  /** The last missed message, if the member receives all of them. */
  top?: Position | undefined
}

/**
 * A `subscribe` that waits for its membership. Either `joined` or `failed` is called, once; neither is called after the
 * request was cancelled or the member left.
 */
export interface SubscribeRequest {
  readonly member: Member
  /** `undefined` for a membership without positions. */
  readonly recover: Recover | undefined
  /** Whether the member takes batches; otherwise it receives a frame for each change of a batch. */
  readonly batch: boolean
  /**
   * Called when the membership begins, before the first message of the group. `result` is `undefined` without
   * `recover`.
   */
  joined (result: SubscribeResult | undefined): void
  /** Called when the broker can't subscribe or read history now. The request still has to be cancelled. */
  failed (error: Error): void
}

/** Notes whether a member takes batches, as its `subscribe` requests. */
export function noteBatches ({ member, batch }: SubscribeRequest, batchMembers: Set<Member>): void {
  if (batch) batchMembers.add(member)
  else batchMembers.delete(member)
}
