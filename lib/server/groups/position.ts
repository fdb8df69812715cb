/** Comparison of positions in the log of one group. */
import type { Position } from '../../brokers/broker.ts'

/** Whether a client whose last message is at `last` has the message at `position`, too. */
export function includes (last: Position, position: Position): boolean {
  return position.epoch === last.epoch && position.offset <= last.offset
}

/**
 * Whether `position` is directly after `last`. With sparse offsets (`Broker.hasSparseOffsets`) any later position may
 * be: the broker delivers without gaps.
 */
export function isNext (last: Position, position: Position, isSparse: boolean): boolean {
  if (position.epoch !== last.epoch) return false
  return isSparse ? position.offset > last.offset : position.offset === last.offset + 1
}

/** Whether `position` comes after `top`, the last position that was delivered on this process, in the same epoch. */
export function isAhead (position: Position | undefined, top: Position | undefined): boolean {
  return position !== undefined && top !== undefined && includes(position, top) && !includes(top, position)
}
