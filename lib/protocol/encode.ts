/** JSON text of everything that is sent. Plain values go to `JSON.stringify` as they are; all others are first copied to plain ones. */

const MAX_PLAIN_DEPTH = 32
/** Most levels of nesting: the time that `JSON.stringify` needs grows with the square of their number. */
const MAX_DEPTH = 2048

/**
 * Encodes a value as JSON, tolerantly: `Date` as ISO text, `bigint` as a number when it is safe, else as a string, `Map` as an
 * object, `Set` as an array, `Uint8Array` as base64, objects with `toJSON` as they say.
 *
 * @throws TypeError for a cycle or a value that has no JSON form (`undefined`, a function, a symbol); whatever a `toJSON`
 * throws; RangeError for nesting of more than 2048 levels
 */
export function encode (value: unknown): string {
  const text = JSON.stringify(isPlain(value, 0) ? value : toPlain(value, '', new Set()))
  if (text === undefined) throw new TypeError(`A value of type ${typeof value} has no JSON form`)
  return text
}

/** What JSON escapes in a string: control characters, quotes, backslashes, and surrogates that may be alone. */
const SPECIAL = /[^ !#-[\]-\ud7ff\ue000-\uffff]/

/** Encodes a string as JSON, most of them without `JSON.stringify`, which takes several times as long to begin. */
export function quote (text: string): string {
  return SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}

/** Whether `JSON.stringify` alone gives what `encode` promises. A value that is nested deeper than 32 levels is not looked at in full. */
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

/**
 * Copies a value to one that `JSON.stringify` writes as it is, without any `toJSON`.
 *
 * @param key the property that the value is read from, for its `toJSON`
 * @param above the objects around the value; as many as there are levels of nesting
 */
function toPlain (value: unknown, key: string | number, above: Set<object>): unknown {
  if (value instanceof Uint8Array) return toBase64(value)
  const json = hasToJSON(value) ? value.toJSON(String(key)) : value
  if (typeof json === 'bigint') return Number.isSafeInteger(Number(json)) ? Number(json) : json.toString()
  if (typeof json !== 'object' || json === null || isWrapper(json)) return json

  if (above.has(json)) throw new TypeError('Converting circular structure to JSON')
  if (above.size === MAX_DEPTH) throw new RangeError(`It is nested more than ${MAX_DEPTH} levels deep`)
  above.add(json)
  const copy = copyEntries(json instanceof Set ? [...json] : json instanceof Map ? Object.fromEntries(json) : json, above)
  above.delete(json)
  return copy
}

function copyEntries (value: object, above: Set<object>): object {
  if (Array.isArray(value)) {
    const items: unknown[] = []
    for (let i = 0; i < value.length; i++) items.push(toPlain(value[i], i, above))
    return items
  }

  const fields: Record<string, unknown> = {}
  for (const key of Object.keys(value)) {
    const field = toPlain((value as Record<string, unknown>)[key], key, above)
    // a function under `toJSON` would be called once more
    if (typeof field === 'function') continue
    if (key === '__proto__') Object.defineProperty(fields, key, { value: field, enumerable: true })
    else fields[key] = field
  }
  return fields
}

/** Whether `JSON.stringify` asks a value for its JSON: strings, numbers and booleans are not asked. */
export function hasToJSON (value: unknown): value is { toJSON (key: string): unknown } {
  if (value === null || !['object', 'function', 'bigint'].includes(typeof value)) return false
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
}

/** Whether a value is an object around a primitive value, which `JSON.stringify` takes out of it. */
function isWrapper (value: object): boolean {
  return value instanceof String || value instanceof Number || value instanceof Boolean || value instanceof BigInt
}

function toBase64 (bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}
