/** The contract between groups and what they are held in. Type-only. */

/** A place in a group's log. Offsets rise by one; another epoch means that the log was lost or rewound. */
export interface Position {
  epoch: string
  offset: number
}

/** A message kept by a broker, with its place in the group's log. */
export interface HistoryEntry {
  payload: string
  position: Position
}

/** What a broker tells about itself. */
export interface BrokerHealth {
  ok: boolean
  /** Why it is not, for people to read. */
  detail?: string
}

/** Where a broker hands over what it hears. None of these throws. */
export interface Receiver {
  /** A message for a group. MAY be called inside `publish`; ignored for a group without members. */
  deliver (group: string, payload: string, position?: Position): void
  /** Messages of a group are missing and can't be repaired. */
  lost (group: string, top?: Position): void
  /** Something failed that no caller hears of. */
  error (error: Error, context: { stage: 'publish' | 'subscribe' | 'deliver' | 'connect' }): void
}

/**
 * What holds the groups: one process (`memoryBroker`), or a server that many processes share. A payload is text that a broker MUST
 * forward as it is.
 */
export interface Broker {
  /** Called once, before anything else; a rejection fails the start of the app. */
  open (receiver: Receiver): void | Promise<void>
  /**
   * Resolves when the broker has the message. Everybody, this process too, hears it through `deliver`. Calls for one group MUST
   * reach everybody in the order in which they were made, retries included.
   */
  publish (group: string, payload: string): void | Promise<void>
  /** Resolves when every later `publish` will arrive, with the group's top where the broker keeps history. Never two calls for one group under way. */
  subscribe (group: string): Position | undefined | void | Promise<Position | undefined | void>
  /** The counterpart of `subscribe`. */
  unsubscribe (group: string): void | Promise<void>
  /** The messages after a position, oldest first; `undefined` where they can't be had any more. */
  history (group: string, after: Position, limit: number): HistoryEntry[] | undefined | Promise<HistoryEntry[] | undefined>
  /** Whether the broker does its work now. */
  health (): BrokerHealth
  /** Lets waiting publishes out, then rejects them. */
  close (): void | Promise<void>
}
