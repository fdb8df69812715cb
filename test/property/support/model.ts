/** The answers that the protocol requires. */
import assert from 'node:assert/strict'

/** An answer. The text of an error is only set if the protocol specifies it. */
export interface Answer {
  id?: unknown
  type?: string
  error?: string | RegExp
  data?: unknown
  code?: string
}

/** The answer to any binary frame. */
export const EMPTY: Answer = { error: 'Received empty message.', code: 'empty_message' }

/** The answer to a text frame, from a server with the handlers `echo` and `point` and no group types. */
export function answerTo (text: string): Answer {
  if (text === '') return EMPTY

  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return { error: /^Could not decode JSON message\. Error: ./s, code: 'invalid_json' }
  }
  if (!isObject(message)) return { error: 'Expected a JSON object as message.', code: 'invalid_envelope' }

  const fields = new Map(Object.entries(message))
  const [id, type] = [fields.get('id'), fields.get('type')]
  const echoed = id === null || !isReadable(id) ? {} : { id }
  if (!fields.has('type')) return { ...echoed, error: "Missing required field 'type'.", code: 'invalid_envelope' }
  if (!fields.has('id')) return { error: "Missing required field 'id'.", code: 'invalid_envelope' }
  if (typeof type !== 'string') return { ...echoed, error: /'type'/, code: 'invalid_envelope' }
  if (!isReadable(id)) return { error: /'id'/, code: 'invalid_envelope' }
  return { ...echoed, ...answerOf(type, fields.get('data')) }
}

function answerOf (type: string, data: unknown): Answer {
  const invalid = { type, error: /^Invalid data: ./s, code: 'invalid_data' }
  switch (type) {
    case 'ping': return { type: 'pong', data }
    case 'echo': return { type, data }
    case 'point': return isObject(data) && typeof data.x === 'number' && Number.isFinite(data.x) ? { type, data: data.x } : invalid
    case 'subscribe': return isObject(data) && typeof data.type === 'string' ? { type, error: 'ACCESS_DENIED', code: 'access_denied' } : invalid
    case 'unsubscribe': return isObject(data) && typeof data.type === 'string' ? { type } : invalid
    default: return { ...(type !== '' && { type }), error: `Unknown message type '${type}'.`, code: 'unknown_type' }
  }
}

/** Asserts that a frame is the answer, with the same keys in the same order. */
export function assertAnswer (received: string | undefined, expected: Answer, message: string): void {
  const actual: unknown = JSON.parse(received ?? 'null')
  assert.ok(isObject(actual), `answered ${received} to ${message}`)

  const { id, type, error, data, code } = expected
  if (error instanceof RegExp) assert.match(String(actual.error), error, `answered ${received} to ${message}`)
  const text = error instanceof RegExp ? actual.error : error
  assert.equal(JSON.stringify(actual), JSON.stringify({ id, type, error: text, data, code }), `answered ${received} to ${message}`)
}

/** Whether an id can be returned unchanged. */
function isReadable (id: unknown): boolean {
  if (typeof id === 'number') return Number.isFinite(id) && (id % 1 !== 0 || Math.abs(id) < 2 ** 53)
  return id === null || typeof id === 'string' || typeof id === 'boolean'
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
