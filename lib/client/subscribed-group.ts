/** The state of one group that the client subscribes to. */
import { show } from './option-checks.ts'
import type { RohrpostError } from './error.ts'

/** A change as the server announces it. */
export interface Change<Item> {
  /** The name of the group. */
  readonly group: string
  /** What happened to the object, as this group sees it. */
  readonly type: 'create' | 'update' | 'delete'
  /** The object as the server shows it; updates may carry the names of the changed properties in `updated_fields`. */
  readonly object: Item
}

/** Says that changes of a group were missed: the state that the application knows may be out of date. */
export interface Resync {
  readonly group: string
  readonly type: 'resync'
}

/** The changes of one transaction, as the server sends them to clients that ask for batches. */
export interface Batch {
  readonly group: string
  readonly type: 'batch'
  readonly changes: readonly Omit<Change<never>, 'group'>[]
}

/** The `data` of a subscribe request, such as `{ type, id }`; servers of the original may take further fields. */
export type GroupRef = object | string

/** A call of `subscribe`, a loop over changes or a live collection: each keeps the subscription of its group. */
export interface Watcher {
  /** Whether this is a call of `subscribe`: a refusal rejects only this call, and `unsubscribe` ends it. */
  readonly isCall?: boolean
  /** Whether the changes of one transaction are to arrive in one call of `changed`. */
  readonly takesBatches?: boolean
  /** The group, set by `watch`. */
  group?: SubscribedGroup
  /**
   * `undefined`: not part of a request on this connection. `asked`: the reply to a request decides. `joined`: the
   * client is a member. `away`: the client was a member on an earlier connection.
   */
  state?: 'asked' | 'joined' | 'away' | undefined
  /** The client has become a member, or is one again and all missed changes have arrived. */
  joined? (reply: unknown): void
  /**
   * The changes of one message.
   *
   * @param changes a single change, or those of a batch
   */
  changed? (changes: readonly Change<never>[]): void
  /**
   * Changes were missed and will not arrive.
   *
   * @param spread milliseconds over which clients are to load again
   */
  missed? (resync: Resync, spread: number): void
  /** The connection is down; the group will be joined again. */
  lost? (): void
  /** No more changes come: after `close()`, or because of an error. */
  ended (error: RohrpostError | undefined): void
}

/** A group that the client subscribes to. */
export interface SubscribedGroup {
  readonly key: string
  /** The reference that the server accepted last. */
  ref: GroupRef
  readonly watchers: Set<Watcher>
  /** Number of subscribe requests in flight. */
  asking: number
  /** Whether the server has refused the group temporarily. */
  isRefused?: boolean
  /** The group's name, known from the first reply on. */
  name?: string
  /** Whether the client is a member on this connection. */
  isJoined?: boolean
  /** The position of the last message; see PROTOCOL.md, "Recovery". */
  position?: unknown
  /** Changes that have arrived after the position, in this membership. */
  arrived: number
  /** Changes after the position that watchers have received: a server may send a message in parts. */
  received: number
  /** The offset of the last missed message that is still to come. */
  top?: unknown
}

/** Whether a group is asked for with batches, as the field of the request. */
export function takesBatches ({ watchers }: SubscribedGroup): true | undefined {
  return [...watchers].some(({ takesBatches }) => takesBatches) || undefined
}

/** Counts the changes of a message, and leaves out those that come again: the connection broke in the middle of it. */
export function takeNew<Item> (group: SubscribedGroup, changes: readonly Item[]): readonly Item[] {
  const { arrived, received } = group
  group.arrived += changes.length
  group.received = Math.max(received, group.arrived)
  return changes.slice(Math.max(received - arrived, 0))
}

/** The same text for the same fields in any order. The ids 5 and '5' name one group. */
export function keyOf (ref: GroupRef): string {
  const fields = Object.entries(ref).filter(([, value]) => value !== undefined)
  return JSON.stringify(fields.map((field) => field.map(show)).sort())
}
