/** Check of a handler's result before it is sent as `data` of the reply. */
import { errors } from '../../errors.ts'

/**
 * Refuses a result that holds its data back, such as a stream: as JSON it would be `{}`.
 *
 * @throws RP_ERR_NOT_ENCODABLE for an iterator, a generator, a stream or a `Response`
 */
export function checkResult (result: unknown): void {
  if (typeof result !== 'object' || result === null || Array.isArray(result) || !mustBeRead(result)) return
  const name = result.constructor?.name || Object.prototype.toString.call(result).slice('[object '.length, -1)
  throw new errors.RP_ERR_NOT_ENCODABLE(
    `a result of type ${name}`,
    "a request has one reply: read it to its end and return its data, such as 'await Array.fromAsync(items)' " +
    "or 'await response.json()', or send each part with 'connection.send'"
  )
}

/**
 * Whether the data of an object must be read from it first: iterators, async iterables, Node.js streams and responses
 * of `fetch`.
 */
function mustBeRead (value: object): boolean {
  const { next } = value as { next?: unknown }
  const isIterator = typeof next === 'function' && (Symbol.asyncIterator in value || Symbol.iterator in value)
  // fast path: nearly all results are plain objects, and each further property lookup takes time
  if (!isIterator && Object.getPrototypeOf(value) === Object.prototype) return false

  const { pipe, json, toJSON } = value as Record<string, unknown>
  if (typeof toJSON === 'function') return false
  return isIterator || Symbol.asyncIterator in value || typeof pipe === 'function' ||
    (typeof json === 'function' && Object.prototype.toString.call(value) === '[object Response]')
}
