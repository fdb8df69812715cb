/**
 * Orders the states of a row that several processes publish. A stamp goes to the broker with a message and is never
 * sent to clients.
 */

/** The two values of `Stamp.part` that are not about certain properties. */
export const StampPart = {
  /**
   * The row has left the group: the message replaces older messages with any part, and any newer message replaces it.
   */
  All: 'all',
  /** The message carries properties that are not known. It replaces no message but older ones with `'all'`. */
  Some: 'some'
} as const

/** Age of the row state that a message carries. */
export interface Stamp {
  /** Identifies the row within its group, in all processes. */
  readonly key: string
  /**
   * Names what the message says of the row, in letters and digits: a message replaces older messages with the same
   * part.
   */
  readonly part: string
  /** Identifies the clock that `value` was read from, without spaces. The values of two clocks can't be compared. */
  readonly clock: string
  /** Decimal digits, as many as in all other values of the clock. A later state has a larger value. */
  readonly value: string
}
