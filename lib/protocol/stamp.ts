/** What a broker is told of a message besides its group and its text. Clients never receive it. */

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

/** Options of `publish`, for messages that several processes may publish in another order or more than once. */
export interface PublishOptions {
  /**
   * The ages of the row states in the message, where processes that share a database may publish in another order than
   * they committed. A broker MAY leave out a message if newer ones replace all of its states, and resolves then too. If
   * they replace some of them only, it MUST publish the message, and SHOULD publish a resync of the group after it. It
   * MUST publish the message on any doubt.
   */
  readonly stamps?: readonly Stamp[] | undefined
  /**
   * Identifies a message that several processes may publish, in printable ASCII without spaces. A broker MAY leave out
   * a message if one with the same group and id was published before, and resolves then too.
   */
  readonly id?: string | undefined
}
