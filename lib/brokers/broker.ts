/** The contract between the groups of a server and their broker. Type-only. */
import type { PublishOptions, Stamp } from '../protocol/stamp.ts'

export type { PublishOptions, Stamp }

/**
 * A place in a group's log: the place of a message, or of the last message so far. Offsets rise by one, and the offset
 * of a log without messages is 0, unless the broker `hasSparseOffsets`. Another epoch means that the log was lost or
 * rewound, and is never given to the same group again.
 */
export interface Position {
  readonly epoch: string
  /** A safe integer from 0. */
  readonly offset: number
}

/** A message kept by a broker, with its place in the group's log. */
export interface HistoryEntry {
  readonly payload: string
  readonly position: Position
}

/** Rows that a broker has read, and their place in the log of a group. */
export interface Snapshot<Value> {
  readonly value: Value
  /** The place in the log after which messages can be missing in the rows. */
  readonly position: Position
  /** Whether the rows contain the change that a message of the group with this offset reports. */
  includes (offset: number): boolean
}

/** State of a broker. */
export interface BrokerHealth {
  ok: boolean
  /** The reason why the broker is not ok, for people to read. */
  detail?: string
}

/** Receives the messages and reports of a broker. None of its functions throws. */
export interface Receiver {
  /**
   * Delivers a message of a group. A broker MAY call it inside `publish` and before `open` has resolved. Messages of
   * groups without members are ignored. A broker that keeps history MUST pass the position, and MUST deliver without
   * gaps and repeats: it repairs a gap from its history before it continues. A message without a position, which a
   * process without history published, MUST be followed by `lost`.
   */
  deliver (group: string, payload: string, position?: Position): void
  /**
   * Reports that messages of a group are missing and can't be repaired.
   *
   * @param top position after which the next message is delivered
   */
  lost (group: string, top?: Position): void
  /** Reports a failure that no caller gets as a rejection. A lasting failure is reported once, when it begins. */
  error (error: Error, context: { stage: 'publish' | 'subscribe' | 'deliver' | 'connect' }): void
  /**
   * Reports an event for the log that is no failure: the end of a lasting failure, with the number of `failures`, or
   * different options of two processes.
   */
  notice? (text: string, details: { stage: 'publish' | 'subscribe' | 'deliver' | 'connect', failures?: number }): void
}

/**
 * A broker carries the messages of groups, within one process (`memoryBroker`) or between processes, through a server
 * that they share. A payload is text that a broker MUST forward unchanged.
 */
export interface Broker {
  /**
   * Whether the broker keeps history. Then every message has a position, and every payload is a JSON object, which the
   * publishing server has checked.
   *
   * @defaultValue false
   */
  readonly keepsHistory?: boolean
  /** Whether `publish` uses stamps. If not, the plugin reads no stamps of transactions. @defaultValue false */
  readonly usesStamps?: boolean
  /**
   * Whether the offsets of a group rise without being contiguous, because all groups share a log. Only the broker can
   * then detect that a message is missing. `subscribe` may return any position before the next message for a group
   * without messages, and `history` after it MUST be `[]` until there is one. `history` MUST return `undefined` rather
   * than `[]` if the first message exceeds `bytes`.
   *
   * @defaultValue false
   */
  readonly hasSparseOffsets?: boolean
  /** Called once, before anything else; a rejection fails the start of the app. */
  open (receiver: Receiver): void | Promise<void>
  /**
   * Publishes a message to a group, and resolves when the broker has it. Every process with members of the group
   * receives it through `deliver`, this process too. Messages of one group MUST arrive in the order of the calls,
   * retries included.
   *
   * @param options what identifies the message among those of all processes. A broker that ignores them is correct.
   */
  publish (group: string, payload: string, options?: PublishOptions): void | Promise<void>
  /**
   * Subscribes this process to a group, and resolves when every later `publish` will arrive. A broker that keeps
   * history resolves with the position of the group's last message: the next delivered message follows it, or was
   * delivered during the call. The server never has two calls for one group in progress.
   */
  subscribe (group: string): Position | undefined | void | Promise<Position | undefined | void>
  /** Ends the subscription of this process to a group. */
  unsubscribe (group: string): void | Promise<void>
  /**
   * Reads the messages after a position, oldest first, without gaps and up to the last message of the group, or the
   * first `limit` of them. May be called for any group, subscribed or not, also during `subscribe`. A rejection means
   * that the history can't be read now.
   *
   * @param bytes limit of the payloads that the broker reads and returns: it MUST stop before the message that exceeds
   * it. The caller recognizes by the last position that messages are left out.
   * @returns `undefined` if one of the messages is gone, or the position is of another epoch or after the last message
   */
  history (
    group: string,
    after: Position,
    limit: number,
    bytes?: number
  ): HistoryEntry[] | undefined | Promise<HistoryEntry[] | undefined>
  /**
   * Reads rows of the database that also has the log. Rows and messages fit: whoever applies the messages of the group
   * after `position`, without those that `includes` recognizes, has missed none and applies none twice. All messages
   * that are delivered after the call are after the position, provided that this process is subscribed to the group. If
   * `lost` is reported meanwhile, the rows are to be read again.
   *
   * @param read reads the rows with what the broker provides; called once, or not at all if the broker rejects before
   */
  snapshot?<Value> (group: string, read: (em: unknown) => Promise<Value>): Promise<Snapshot<Value>>
  /** Returns whether the broker can publish and receive now. */
  health (): BrokerHealth
  /** Sends the queued messages, rejects those that it can't send, and closes the connections. */
  close (): void | Promise<void>
}
