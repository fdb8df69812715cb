/** JSON text for everything that is sent: plain values take the native path, the rest is made plain on the way. */

const MAX_PLAIN_DEPTH = 32

/**
 * Encodes a value as JSON, tolerantly: `Date` as ISO text, `bigint` as a number when it is safe, else as a string, `Map` as an
 * object, `Set` as an array, `Uint8Array` as base64, objects with `toJSON` as they say.
 *
 * @throws TypeError for a cycle or a value that has no JSON form (`undefined`, a function, a symbol); whatever a `toJSON`
 * throws; RangeError for nesting that is too deep
 */
export function encode (value: unknown): string {
  const text = isPlain(value, 0) ? JSON.stringify(value) : JSON.stringify(value, toPlain)

  if (text === undefined) throw new TypeError(`A value of type ${typeof value} has no JSON form`)
  return text
}

/** Whether `JSON.stringify` alone gives what `encode` promises. Anything unusual, deep nesting included, is "no". */
function isPlain (value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return typeof value !== 'bigint'
  if (depth === MAX_PLAIN_DEPTH) return false

  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      if (!isPlain(value[i], depth + 1)) return false
    }
    return true
  }

  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false

  for (const key in value) {
    const property: unknown = (value as Record<string, unknown>)[key]
    if (typeof property === 'function' || !isPlain(property, depth + 1)) return false
  }
  return true
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
