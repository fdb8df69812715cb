/**
 * Contract between a server and its clients: the calls and group types with their schemas. TypeBox is imported for its
 * types only.
 */
import type { Static, TSchema } from '@sinclair/typebox'

/** Schemas of one call. Without a schema, any value is valid. */
export interface CallSchemas {
  readonly data?: TSchema
  readonly reply?: TSchema
}

/** Schemas of one group type. */
export interface GroupSchemas {
  /**
   * Schema of the group's id: a string, a number, or for composite keys an array of them. `false` declares a single
   * group whose name is the type. By default the id is a non-negative integer or a UUID.
   */
  readonly id?: TSchema | false
  /** Schema of the object in change notifications. */
  readonly object?: TSchema
}

/** Calls and group types by name. */
export interface Contract {
  readonly calls?: Readonly<Record<string, CallSchemas>>
  readonly groups?: Readonly<Record<string, GroupSchemas>>
}

/** Result type of `JSON.parse` (`any`), for values without a schema. */
export type Untyped = ReturnType<typeof JSON.parse>

/** Static type of the schema under a key; `Fallback` if there is no schema. */
type SchemaType<Schemas, Key extends string, Fallback> =
  Schemas extends Readonly<Record<Key, infer Schema extends TSchema>> ? Static<Schema> : Fallback

/** Whether a client has no contract, so that its names and data have no types. */
type IsUntyped<C extends Contract> = Contract extends C ? true : false

/** Calls of a contract by name. */
type CallsOf<C extends Contract> = C extends { readonly calls: infer All } ? All : unknown
/** Group types of a contract by name. */
type GroupTypesOf<C extends Contract> = C extends { readonly groups: infer All } ? All : unknown

/** Name of a call; any string without a contract. */
export type CallName<C extends Contract> = IsUntyped<C> extends true ? string : keyof CallsOf<C> & string
/** `data` of a call. */
export type CallData<C extends Contract, Name extends string> =
  IsUntyped<C> extends true ? unknown : SchemaType<CallsOf<C>[Name & keyof CallsOf<C>], 'data', unknown>
/** `data` of the reply to a call. */
export type CallReply<C extends Contract, Name extends string> =
  IsUntyped<C> extends true ? Untyped : SchemaType<CallsOf<C>[Name & keyof CallsOf<C>], 'reply', unknown>

/** Name of a group type; any string without a contract. */
export type GroupType<C extends Contract> = IsUntyped<C> extends true ? string : keyof GroupTypesOf<C> & string
/** Object in the change notifications of a group. */
export type GroupObject<C extends Contract, Type extends string> =
  IsUntyped<C> extends true ? Untyped : SchemaType<GroupTypesOf<C>[Type & keyof GroupTypesOf<C>], 'object', Untyped>
/** Fields that select one group of a type: its `id`. */
export type GroupId<C extends Contract, Type extends string> = IsUntyped<C> extends true
  ? { readonly id?: string | number | ReadonlyArray<string | number>, readonly [field: string]: unknown }
  : GroupTypesOf<C>[Type & keyof GroupTypesOf<C>] extends { readonly id: false }
    ? { readonly id?: never }
    : { readonly id: SchemaType<GroupTypesOf<C>[Type & keyof GroupTypesOf<C>], 'id', string | number> }

/**
 * Declares a contract. The server implements it with `app.rohrpost.implement`, and clients use its type: `new
 * RohrpostClient<typeof api>(url)`.
 *
 * @returns the same object, with its exact type
 */
export function contract<const C extends Contract> (given: C): C {
  return given
}
