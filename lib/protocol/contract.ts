/** What a server and its clients agree on: calls and groups with their schemas. TypeBox is needed for the types alone. */
import type { Static, TSchema } from '@sinclair/typebox'

/** Schemas of one call; what has none may be anything. */
export interface CallSchemas {
  readonly data?: TSchema
  readonly reply?: TSchema
}

/** Schemas of one group type. */
export interface GroupSchemas {
  /**
   * The group's id: strings, numbers, or arrays of them for composite keys; `false` for a single group that is named by the type alone. By
   * default an integer from 0, or a UUID.
   */
  readonly id?: TSchema | false
  /** The object of a change. */
  readonly object?: TSchema
}

/** Calls and group types by name. */
export interface Contract {
  readonly calls?: Readonly<Record<string, CallSchemas>>
  readonly groups?: Readonly<Record<string, GroupSchemas>>
}

/** What `JSON.parse` gives, for what no schema describes. */
export type Json = ReturnType<typeof JSON.parse>

/** The static type of a schema under a key; `Fallback` where there is none. */
type Of<Schemas, Key extends string, Fallback> = Schemas extends Readonly<Record<Key, infer Schema extends TSchema>> ? Static<Schema> : Fallback

/** What nothing is known about: a client without contract. */
type Plain<C extends Contract> = Contract extends C ? true : false

/** The calls of a contract by name. */
export type Calls<C extends Contract> = C extends { readonly calls: infer All } ? All : unknown
/** The group types of a contract by name. */
export type Groups<C extends Contract> = C extends { readonly groups: infer All } ? All : unknown

/** The names of the calls; any string without a contract. */
export type CallName<C extends Contract> = Plain<C> extends true ? string : keyof Calls<C> & string
/** What a call takes. */
export type CallData<C extends Contract, Name extends string> = Plain<C> extends true ? unknown : Of<Calls<C>[Name & keyof Calls<C>], 'data', unknown>
/** What a call answers. */
export type CallReply<C extends Contract, Name extends string> = Plain<C> extends true ? Json : Of<Calls<C>[Name & keyof Calls<C>], 'reply', unknown>

/** The names of the group types; any string without a contract. */
export type GroupType<C extends Contract> = Plain<C> extends true ? string : keyof Groups<C> & string
/** The object of a group's changes. */
export type GroupObject<C extends Contract, Type extends string> = Plain<C> extends true ? Json : Of<Groups<C>[Type & keyof Groups<C>], 'object', Json>
/** What stands beside `type` to say which group of its type is meant. */
export type GroupId<C extends Contract, Type extends string> = Plain<C> extends true
  ? { readonly id?: string | number | ReadonlyArray<string | number>, readonly [field: string]: unknown }
  : Groups<C>[Type & keyof Groups<C>] extends { readonly id: false }
    ? { readonly id?: never }
    : { readonly id: Of<Groups<C>[Type & keyof Groups<C>], 'id', string | number> }

/**
 * Declares what a server and its clients agree on. The server implements it with `app.rohrpost.implement`, clients take its type:
 * `new RohrpostClient<typeof api>(url)`.
 *
 * @returns what was given, with its exact type
 */
export function contract<const C extends Contract> (given: C): C {
  return given
}
