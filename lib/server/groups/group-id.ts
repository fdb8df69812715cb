/**
 * The ids in `subscribe` and `unsubscribe`: their default schema, their canonical form, and the group name for each id.
 */
import type { TSchema } from '@sinclair/typebox'
import { encodeKey, isUuid } from '../../protocol/group-name.ts'

/** A valid id. An array is a composite key; `undefined` names the single group of a type. */
export type GroupKey = string | number | ReadonlyArray<string | number> | undefined

/** A non-negative integer in decimal digits, without leading zeros. */
const DIGITS = /^(?:0|[1-9]\d{0,19})$/
const MAX_UINT64 = 2n ** 64n - 1n

/** Checks an id against the default schema: a safe integer from 0, an integer of up to 64 bits as text, or a UUID. */
export function checkDefaultId (id: unknown): string | undefined {
  const isValid = typeof id === 'string' ? isUuid(id) || isInteger(id) : Number.isSafeInteger(id) && Number(id) >= 0
  return isValid ? undefined : "Expected a safe integer from 0, or a UUID at '/id'"
}

/** Checks that a message has no id, for a group type with a single group. */
export function checkNoId (id: unknown): string | undefined {
  return id === undefined ? undefined : "Expected no id at '/id'"
}

/** Checks that an id can be a part of a group name. The schema of the group type may allow other values. */
export function checkKey (id: unknown): string | undefined {
  if (id === undefined || isScalar(id) || (Array.isArray(id) && id.length > 1 && id.every(isScalar))) return undefined
  return "Expected a string or a number at '/id'"
}

/**
 * Returns the canonical form of an id, so that `authorize` decides on the same id that names the group: a UUID in lower
 * case, and with the default schema a number instead of its digits, if it is a safe integer.
 *
 * @param isUuidPart whether UUIDs in a part of the id are case-insensitive
 */
export function canonicalId (id: GroupKey, isDefault: boolean, isUuidPart: (part: number) => boolean): GroupKey {
  const toCanonical = (key: string | number, part: number) => {
    if (typeof key === 'number') return key
    if (isUuid(key)) return isUuidPart(part) ? key.toLowerCase() : key
    return isDefault && Number.isSafeInteger(Number(key)) ? Number(key) : key
  }
  if (id === undefined) return undefined
  return typeof id === 'object' ? id.map(toCanonical) : toCanonical(id, 0)
}

/** Whether a schema has the format `uuid`, or allows it as an alternative. */
export function hasUuidFormat ({ format, anyOf = [] }: TSchema): boolean {
  return format === 'uuid' || anyOf.some(hasUuidFormat)
}

/**
 * Splits the text of a composite key, as in group names: `A%3A1:2` has two parts.
 *
 * @param parts the number of parts of the key
 * @returns `undefined` for a text that is no composite key with so many parts
 */
export function splitKey (text: string, parts: number): string[] | undefined {
  const keys = text.split(':')
  if (parts < 2 || keys.length !== parts) return undefined
  try {
    return keys.map(decodeURIComponent)
  } catch {
    return undefined
  }
}

/** Returns an id as text: the part of a group name after the type. */
export function keyText (id: Exclude<GroupKey, undefined>): string {
  return [id].flat().map(encodeKey).join(':')
}

/**
 * Returns a group name: `todo-5`, `seat-A:2` for a composite key, `todo` for the single group of a type. A type
 * contains no dash, so the names of two types are never equal.
 */
export function groupName (type: string, id: GroupKey): string {
  return id === undefined ? type : `${type}-${keyText(id)}`
}

function isInteger (text: string): boolean {
  return DIGITS.test(text) && BigInt(text) <= MAX_UINT64
}

function isScalar (id: unknown): id is string | number {
  return typeof id === 'string' || typeof id === 'number'
}
