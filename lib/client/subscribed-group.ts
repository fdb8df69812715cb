/** One group that the client wants to hear, and those who want it. */
import { show } from './option-checks.ts'
import type { RohrpostError } from './error.ts'

/** A change as the server announces it. */
export interface Change<Item> {
  /** The group that heard of it. */
  readonly group: string
  /** What happened to the object, as this group sees it. */
  readonly type: 'create' | 'update' | 'delete'
  /** The object as the server shows it; updates may carry the names of the changed properties in `updated_fields`. */
  readonly object: Item
}

/** Says that changes of a group were missed: what is known may be out of date. */
export interface Resync {
  readonly group: string
  readonly type: 'resync'
}

/** What says which group is meant; servers of the original may take further fields. */
export type GroupRef = object | string

/** A part of the client, or of the application, that follows a group. */
export interface Watcher {
  /** Whether this is a call of `subscribe`: it is refused for itself, and ended by `unsubscribe`. */
  readonly isCall?: boolean
  /** The client is a member; changes come from now on. */
  joined? (reply: unknown): void
  changed? (change: Change<never>): void
  /** The connection is down; the group will be joined again. */
  lost? (): void
  /** The client is a member again, and what it missed has come. */
  recovered? (): void
  /** Changes were missed that will not come, while the connection was down or on the way. @param spread milliseconds over which to load again */
  resync? (resync: Resync, spread: number): void
  /** Nothing more will come: after `close()`, or because of an error. */
  ended (error: RohrpostError | undefined): void
}

/** One group that is wanted. */
export interface Subscription {
  readonly key: string
  /** What the server is asked for: what it let the client in for last. */
  ref: GroupRef
  /**
   * What follows the group, and what it knows: `new`, not asked for on this connection; `asked`, a request will answer; `joined`; `away`, it
   * was joined on an earlier connection.
   */
  readonly watchers: Map<Watcher, 'new' | 'asked' | 'joined' | 'away'>
  /** Requests under way. */
  asking: number
  /** Whether the server refused the group for now, and never let the client in. */
  isRefused?: boolean
  /** The group's name, once the server has told it. */
  group?: string
  /** The server's name for the last message of the group; see PROTOCOL.md, "Recovery". */
  position?: unknown
  /** The position of the last message that was missed and still comes, as a key. */
  top?: string | undefined
  /** Whether the client is a member on this connection. */
  joined: boolean
}

/** The same text for the same fields, in whichever order they stand; 5 and '5' name one group. */
export function keyOf (ref: GroupRef): string {
  return JSON.stringify(Object.entries(ref).flatMap(([name, value]) => value === undefined ? [] : [[name, show(value)]]).sort())
}
