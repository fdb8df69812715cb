/**
 * Group names: valid characters, and the encoding of keys in a name. The server and the MikroORM plugin share these
 * rules.
 */

const NAME = /^[\x21-\x7e]{1,200}$/
const UUID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i

/** Whether a value is a valid group name: 1 to 200 characters of printable ASCII without spaces. */
export function isGroupName (name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name)
}

/** Whether a text is a UUID, in lower or upper case. */
export function isUuid (text: string): boolean {
  return UUID.test(text)
}

/**
 * Encodes a key, or one part of a composite key, for a group name: a number as digits, a text with
 * `encodeURIComponent`. A text with a lone surrogate cannot be encoded and is returned unchanged; it is not valid in a
 * group name.
 */
export function encodeKey (key: string | number): string {
  const text = String(key)
  return text.isWellFormed() ? encodeURIComponent(text) : text
}

/** Groups to which a notification rule publishes. */
export interface NotifiedGroups {
  /** Group type at the start of the names. */
  readonly type: string
  /** Entity of the rule. */
  readonly entity: string
  /** For each part of the id in the names, whether it is a UUID; empty if the id is not a key. */
  readonly uuids: readonly boolean[]
}
