/** JSON text for everything that is sent: plain values take the native path, the rest is made plain on the way. */

const MAX_PLAIN_DEPTH = 32
/** Levels of nesting that are written: what `JSON.stringify` needs for them grows with the square of their number. */
const MAX_DEPTH = 2048

/**
 * Encodes a value as JSON, tolerantly: `Date` as ISO text, `bigint` as a number when it is safe, else as a string, `Map` as an
 * object, `Set` as an array, `Uint8Array` as base64, objects with `toJSON` as they say.
 *
 * @throws TypeError for a cycle or a value that has no JSON form (`undefined`, a function, a symbol); whatever a `toJSON`
 * throws; RangeError for nesting of more than 2048 levels
 */
export function encode (value: unknown): string {
  const kind = kindOf(value, 0)
  if (kind === 'deep' && isTooDeep(value)) throw new RangeError(`It is nested more than ${MAX_DEPTH} levels deep`)
  const text = kind === 'plain' ? JSON.stringify(value) : JSON.stringify(value, toPlain)

  if (text === undefined) throw new TypeError(`A value of type ${typeof value} has no JSON form`)
  return text
}

/** What JSON escapes in a string: control characters, quotes, backslashes, and surrogates that may be alone. */
const SPECIAL = /[^ !#-[\]-\ud7ff\ue000-\uffff]/

/** Encodes a string as JSON, most of them without `JSON.stringify`, which takes several times as long to begin. */
export function quote (text: string): string {
  return SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}

/** Whether `JSON.stringify` alone gives what `encode` promises: not if there is anything special, or if it is too deep to be looked at in full. */
function kindOf (value: unknown, depth: number): 'plain' | 'special' | 'deep' {
  if (typeof value !== 'object' || value === null) return typeof value === 'bigint' ? 'special' : 'plain'
  if (depth === MAX_PLAIN_DEPTH) return 'deep'

  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const kind = kindOf(value[i], depth + 1)
      if (kind !== 'plain') return kind
    }
    return 'plain'
  }

  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return 'special'

  for (const key in value) {
    const property: unknown = (value as Record<string, unknown>)[key]
    const kind = typeof property === 'function' ? 'special' : kindOf(property, depth + 1)
    if (kind !== 'plain') return kind
  }
  return 'plain'
}

/** Whether arrays and plain objects are nested too deep to be written; a cycle is not deep. */
export function isTooDeep (value: unknown, above = new Set<object>()): boolean {
  if (typeof value !== 'object' || value === null || above.has(value)) return false
  if (above.size === MAX_DEPTH) return true

  const prototype: unknown = Object.getPrototypeOf(value)
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return false
  above.add(value)
  for (const key in value) {
    if (isTooDeep((value as Record<string, unknown>)[key], above)) return true
  }
  above.delete(value)
  return false
}

/** The replacer of `JSON.stringify`: `this[key]` is the value before its own `toJSON` was asked. */
function toPlain (this: Record<string, unknown>, key: string, value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value.toString()
  }
  if (typeof value !== 'object' || value === null) return value

  const original = this[key]
  if (original instanceof Uint8Array) return toBase64(original)
  if (value instanceof Map) return Object.fromEntries(value)
  if (value instanceof Set) return [...value]
  return value
}

function toBase64 (bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}
