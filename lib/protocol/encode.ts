/**
 * JSON encoder of sent messages. Plain values go directly to `JSON.stringify`; other values are first copied into plain
 * ones.
 */

/** Maximum nesting of a value that is encoded without a copy. */
const MAX_PLAIN_DEPTH = 32
/** Maximum nesting of any value: the time of `JSON.stringify` grows with the square of the depth. */
const MAX_DEPTH = 2048

/**
 * Encodes a value as JSON: a `Date` as an ISO string, a `bigint` as a number if it is a safe integer and otherwise as a
 * string, a `Map` as an object, a `Set` as an array, a `Uint8Array` as base64, an object with `toJSON` as the result of
 * that.
 *
 * @throws TypeError for a cycle or a value without a JSON form (`undefined`, a function, a symbol); RangeError for more
 * than 2048 levels of nesting; the error of a `toJSON`
 */
export function encode (value: unknown): string {
  const text = JSON.stringify(isPlain(value, 0) ? value : toPlain(value, '', new Set()))
  if (text === undefined) throw new TypeError(`A value of type ${typeof value} has no JSON form`)
  return text
}

/** Pattern of characters that JSON may have to escape: control characters, quotes, backslashes and surrogates. */
const SPECIAL = /[^ !#-[\]-\ud7ff\ue000-\uffff]/

/**
 * Encodes a string as JSON. Most strings need no escape, and a call of `JSON.stringify` takes several times as long.
 */
export function quote (text: string): string {
  return SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}

/**
 * Whether `JSON.stringify` encodes a value as `encode` should. It is `false` for any value with more than 32 levels of
 * nesting.
 */
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
 * Copies a value into one that `JSON.stringify` encodes without a call of `toJSON`.
 *
 * @param key name of the property that has the value, the argument of its `toJSON`
 * @param ancestors the objects that contain the value, one for each level of nesting
 */
function toPlain (value: unknown, key: string | number, ancestors: Set<object>): unknown {
  if (value instanceof Uint8Array) return toBase64(value)
  const json = hasToJSON(value) ? value.toJSON(String(key)) : value
  if (typeof json === 'bigint') return Number.isSafeInteger(Number(json)) ? Number(json) : json.toString()
  if (typeof json !== 'object' || json === null || isWrapper(json)) return json

  if (ancestors.has(json)) throw new TypeError('Converting circular structure to JSON')
  if (ancestors.size === MAX_DEPTH) throw new RangeError(`It is nested more than ${MAX_DEPTH} levels deep`)
  ancestors.add(json)
  const source = json instanceof Set ? [...json] : json instanceof Map ? Object.fromEntries(json) : json
  const copy = copyEntries(source, ancestors)
  ancestors.delete(json)
  return copy
}

function copyEntries (value: object, ancestors: Set<object>): object {
  if (Array.isArray(value)) {
    const items: unknown[] = []
    for (let i = 0; i < value.length; i++) items.push(toPlain(value[i], i, ancestors))
    return items
  }

  const fields: Record<string, unknown> = {}
  for (const key of Object.keys(value)) {
    const field = toPlain((value as Record<string, unknown>)[key], key, ancestors)
    // a copied `toJSON` function would be called again
    if (typeof field === 'function') continue
    if (key === '__proto__') Object.defineProperty(fields, key, { value: field, enumerable: true })
    else fields[key] = field
  }
  return fields
}

/** Whether `JSON.stringify` calls `toJSON` of a value. It does not for strings, numbers and booleans. */
export function hasToJSON (value: unknown): value is { toJSON (key: string): unknown } {
  if (value === null || !['object', 'function', 'bigint'].includes(typeof value)) return false
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
}

/** Whether an object wraps a primitive value, which `JSON.stringify` unwraps. */
function isWrapper (value: object): boolean {
  return value instanceof String || value instanceof Number || value instanceof Boolean || value instanceof BigInt
}

function toBase64 (bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}
