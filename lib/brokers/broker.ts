/** The contract between groups and what they are held in. Type-only. */
import type { Stamp } from '../protocol/stamp.ts'

export type { Stamp }

/**
 * A place in a group's log: that of a message, or of the last message so far. Offsets rise by one, and that of a log without messages is 0;
 * another epoch means that the log was lost or rewound, and is never given to the same group again.
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

/** What a broker tells about itself. */
export interface BrokerHealth {
  ok: boolean
  /** Why it is not, for people to read. */
  detail?: string
}

/** Where a broker hands over what it hears. None of these throws. */
export interface Receiver {
  /**
   * A message for a group. MAY be called inside `publish` and before `open` has resolved; ignored for a group without members. A broker that keeps
   * history MUST give the position, and MUST deliver without gaps and repeats: what is missing it repairs from its history before it goes on. A
   * message that has no position, since a process without history published it, MUST be followed by `lost`.
   */
  deliver (group: string, payload: string, position?: Position): void
  /** Messages of a group are missing and can't be repaired. `top` is where it goes on: the next message is the one after it. */
  lost (group: string, top?: Position): void
  /** Something failed that no caller hears of. A failure that lasts is told once, when it begins. */
  error (error: Error, context: { stage: 'publish' | 'subscribe' | 'deliver' | 'connect' }): void
  /**
   * Something that belongs in the log and is no failure: that a failure which lasted is over, with the number of `failures`, or that processes have
   * different options.
   */
  notice? (text: string, details: { stage: 'publish' | 'subscribe' | 'deliver' | 'connect', failures?: number }): void
}

/**
 * What holds the groups: one process (`memoryBroker`), or a server that many processes share. A payload is text that a broker MUST
 * forward as it is.
 */
export interface Broker {
  /**
   * Whether the broker keeps history: then every message has a position, and payloads are JSON objects, which whoever publishes has checked.
   *
   * @defaultValue false
   */
  readonly keepsHistory?: boolean
  /** Whether `publish` uses stamps. Without, the stamps of transactions are not read. @defaultValue false */
  readonly usesStamps?: boolean
  /** Called once, before anything else; a rejection fails the start of the app. */
  open (receiver: Receiver): void | Promise<void>
  /**
   * Resolves when the broker has the message. Everybody, this process too, hears it through `deliver`. Calls for one group MUST
   * reach everybody in the order in which they were made, retries included.
   *
   * `stamp` is the age of the row state in the message, where processes that share a database may publish in another order than they committed.
   * A broker MAY leave out a message that a newer one replaces, and resolves then too. It MUST publish the message on any doubt; a broker that
   * ignores stamps is correct.
   */
  publish (group: string, payload: string, stamp?: Stamp): void | Promise<void>
  /**
   * Resolves when every later `publish` will arrive; where the broker keeps history, with the group's top: the next message that is delivered
   * is the one after it, or one that was delivered meanwhile. Never two calls for one group under way.
   */
  subscribe (group: string): Position | undefined | void | Promise<Position | undefined | void>
  /** The counterpart of `subscribe`. */
  unsubscribe (group: string): void | Promise<void>
  /**
   * The messages after a position, oldest first, without gaps and up to the group's top, or the first `limit` of them. `undefined` where they
   * can't be had: one of them is gone, or the position is of another epoch or beyond the top. May be called for any group, subscribed or
   * not, also while a `subscribe` is under way. A rejection means "not now".
   *
   * `bytes` bounds the payloads that the broker reads and returns: it MUST stop before the message that exceeds it. The caller sees by the
   * last position that messages are left out.
   */
  history (group: string, after: Position, limit: number, bytes?: number): HistoryEntry[] | undefined | Promise<HistoryEntry[] | undefined>
  /** Whether the broker does its work now. */
  health (): BrokerHealth
  /** Lets waiting publishes out, then rejects them. */
  close (): void | Promise<void>
}
