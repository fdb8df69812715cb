/** The ids with which clients name a group of a declared type: what they may be, and the group's name for each. */
import type { TSchema } from '@sinclair/typebox'
import { encodeKey, isUuid } from '../../protocol/group-name.ts'

/** A checked id. An array is a composite key. */
export type GroupKey = string | number | ReadonlyArray<string | number> | undefined

/** Digits of an integer from 0, without leading zeros. */
const DIGITS = /^(?:0|[1-9]\d{0,19})$/
/** The largest unsigned integer of 64 bits. */
const MAX_UINT64 = 2n ** 64n - 1n

/** Checks an id where the group type has no schema: a safe integer from 0, an integer of up to 64 bits as text, or a UUID. */
export function checkDefaultId (id: unknown): string | undefined {
  if (typeof id === 'string' ? isUuid(id) || isInteger(id) : Number.isSafeInteger(id) && Number(id) >= 0) return undefined
  return "Expected a safe integer from 0, or a UUID at '/id'"
}

/** Checks that there is no id, for a group type that is a single group. */
export function checkNoId (id: unknown): string | undefined {
  return id === undefined ? undefined : "Expected no id at '/id'"
}

/** Checks that an id can be a part of a name, whatever the schema of the group type allows. */
export function checkKey (id: unknown): string | undefined {
  if (id === undefined || isScalar(id) || (Array.isArray(id) && id.length > 1 && id.every(isScalar))) return undefined
  return "Expected a string or a number at '/id'"
}

/**
 * Turns all ways of writing one id into one, so that `authorize` decides on the id that names the group: a UUID gets small letters,
 * and for the default schema a text of digits becomes a number if that is exact.
 *
 * @param uuids for each part of the id, whether a text of that form is a UUID
 */
export function canonicalId (id: GroupKey, isDefault: boolean, uuids: (part: number) => boolean): GroupKey {
  const write = (key: string | number, part: number) => {
    if (typeof key === 'number') return key
    if (isUuid(key)) return uuids(part) ? key.toLowerCase() : key
    return isDefault && Number.isSafeInteger(Number(key)) ? Number(key) : key
  }
  if (id === undefined) return undefined
  return typeof id === 'object' ? id.map(write) : write(id, 0)
}

/** Whether a schema is that of a UUID, or allows UUIDs beside other values. */
export function hasUuidFormat ({ format, anyOf = [] }: TSchema): boolean {
  return format === 'uuid' || anyOf.some(hasUuidFormat)
}

/**
 * Splits the text of a composite key, as it stands in a group's name: `A%3A1:2` has two parts.
 *
 * @param parts the number of parts; a text of another form is no composite key
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

/** Writes an id as text: the part of a group's name behind the type. */
export function keyText (id: Exclude<GroupKey, undefined>): string {
  return [id].flat().map(encodeKey).join(':')
}

/** `todo-5`, `seat-A:2` for a composite key, or `todo` for the single group of a type. A type has no dash, so no two types share a name. */
export function groupName (type: string, id: GroupKey): string {
  return id === undefined ? type : `${type}-${keyText(id)}`
}

function isInteger (text: string): boolean {
  return DIGITS.test(text) && BigInt(text) <= MAX_UINT64
}

function isScalar (id: unknown): id is string | number {
  return typeof id === 'string' || typeof id === 'number'
}
