/** One group that the client wants to hear, and those who want it. */
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

/** Somebody within the client who follows a group. */
export interface Watcher {
  /** The client is a member; changes come from now on. */
  joined (): void
  changed (change: Change<never>): void
  /** The connection is down; the group will be joined again. */
  lost (): void
  /** The client is a member again, and what it missed comes now. */
  recovered (): void
  /** Changes were missed that will not come, while the connection was down or on the way. */
  resync (resync: Resync): void
  /** Nothing more will come: after `close()`, or because of an error. */
  ended (error: RohrpostError | undefined): void
}

/** A caller of `subscribe` who waits. */
export interface Waiter {
  readonly resolve: (reply: unknown) => void
  readonly reject: (reason: unknown) => void
  /** Whether a request under way will answer. */
  asked: boolean
}

/** One group that is wanted: by `subscribe`, by watchers, or both. */
export interface Subscription {
  readonly key: string
  readonly ref: GroupRef
  /** Those who follow the group, and whether they know that it is joined, or that it was. */
  readonly watchers: Map<Watcher, 'new' | 'joined' | 'away'>
  readonly waiters: Set<Waiter>
  /** Those who called `subscribe` and want to know when changes were missed. */
  readonly resyncs: Set<() => void>
  /** Whether `subscribe` asked for it. */
  manual: boolean
  /** Requests under way. */
  asking: number
  /** The group's name, once the server has told it. */
  group: string | undefined
  /** The server's name for the last message of the group; see PROTOCOL.md, "Recovery". */
  position: unknown
  /** Whether the client is a member on this connection. */
  joined: boolean
  /** Whether nobody wants it any more. */
  gone: boolean
}

/** The same text for the same fields, in whichever order they stand. */
export function keyOf (ref: GroupRef): string {
  return JSON.stringify(Object.entries(ref).filter(([, value]) => value !== undefined).sort())
}
