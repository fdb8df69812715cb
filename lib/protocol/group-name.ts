/** Names of groups: what a name may be, and how a key is written in it. The server and the MikroORM plugin share these rules. */

const NAME = /^[\x21-\x7e]{1,200}$/
const UUID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i

/** Whether a group can be called so: 1 to 200 characters of printable ASCII without spaces. */
export function isGroupName (name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name)
}

/** Whether a text has the form of a UUID, in small or capital letters. */
export function isUuid (text: string): boolean {
  return UUID.test(text)
}

/**
 * Writes a key, or one part of a composite key, as it stands in a group's name: a number in digits, a text as `encodeURIComponent` writes
 * it. A text with half a surrogate pair can't be encoded; it is returned unchanged, and no group can have it in its name.
 */
export function encodeKey (key: string | number): string {
  const text = String(key)
  return text.isWellFormed() ? encodeURIComponent(text) : text
}

/** Groups that a notification rule sends to. */
export interface NotifiedGroups {
  /** The group type that the names begin with. */
  readonly type: string
  /** The entity whose rule it is. */
  readonly entity: string
  /** For each part of the groups' id, whether it is a UUID; empty where the id has another form than that of a key. */
  readonly uuids: readonly boolean[]
}
