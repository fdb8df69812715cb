/** Figures of the database broker. Type-only. */

/** Figures about reading the log, for metrics. The counters begin when the broker is opened. */
export interface LogStats {
  /** The newest id of the log minus the id up to which everything is delivered, as of the last read. */
  readonly lag: number
  /** Milliseconds since the last successful read. */
  readonly silence: number
  /** Milliseconds for which the reader has been waiting at a missing id; 0 if it does not wait. */
  readonly waiting: number
  /** Number of times that the reader has waited at missing ids. */
  readonly holes: number
  /** Number of times that the reader has stopped waiting although a transaction was still open. */
  readonly givenUp: number
  /** Number of polls. */
  readonly polls: number
  /** Number of notifications from other processes. */
  readonly notifications: number
}
