/** Every error that is thrown to developers. docs/errors.md lists them; a test holds the two against each other. */
import createError from '@fastify/error'
import { hasToJSON } from './protocol/encode.ts'

/** The table of errors by code. Those with a status below 500, and RP_ERR_UNAVAILABLE, show their message to the client when a handler lets them pass. */
export const errors = {
  RP_ERR_ALREADY_REGISTERED: createError('RP_ERR_ALREADY_REGISTERED', "fastify-rohrpost is already registered here, path '%s' was not added"),
  RP_ERR_INVALID_OPTION: createError('RP_ERR_INVALID_OPTION', "Invalid option '%s': expected %s, got %s"),
  RP_ERR_UNKNOWN_OPTION: createError('RP_ERR_UNKNOWN_OPTION', "Unknown option '%s', the options are: %s"),

  RP_ERR_INVALID_HANDLER: createError('RP_ERR_INVALID_HANDLER', 'Invalid handler: expected %s, got %s'),
  RP_ERR_DUPLICATE_HANDLER: createError('RP_ERR_DUPLICATE_HANDLER', "A handler for message type '%s' is already registered"),
  RP_ERR_INVALID_SCHEMA: createError('RP_ERR_INVALID_SCHEMA', "Invalid schema '%s' of '%s': %s"),
  RP_ERR_TYPEBOX_MISSING: createError('RP_ERR_TYPEBOX_MISSING', "%s needs the package '@sinclair/typebox' (npm install @sinclair/typebox@0.34): %s"),
  RP_ERR_INVALID_REPLY: createError('RP_ERR_INVALID_REPLY', "The reply of '%s' fails its schema: %s"),
  RP_ERR_INVALID_DATA: createError('RP_ERR_INVALID_DATA', 'Invalid data: %s.', 400),
  RP_ERR_NEXT_CALLED_TWICE: createError('RP_ERR_NEXT_CALLED_TWICE', "next() was called twice for a message of type '%s'"),

  RP_ERR_INVALID_GROUP_TYPE: createError('RP_ERR_INVALID_GROUP_TYPE', "Invalid group type '%s': expected a letter, then letters, digits, '_' or '.' (no dash)"),
  RP_ERR_DUPLICATE_GROUP_TYPE: createError('RP_ERR_DUPLICATE_GROUP_TYPE', "Group type '%s' is already declared"),
  RP_ERR_INVALID_GROUP: createError('RP_ERR_INVALID_GROUP', 'Invalid group name %s: expected 1 to 200 characters of printable ASCII without spaces', 400),
  RP_ERR_TOO_MANY_GROUPS: createError('RP_ERR_TOO_MANY_GROUPS', "Can't join '%s': the connection is in %d groups, as many as it may be", 400),
  RP_ERR_ACCESS_DENIED: createError('RP_ERR_ACCESS_DENIED', 'ACCESS_DENIED', 403),
  RP_ERR_UNAVAILABLE: createError('RP_ERR_UNAVAILABLE', "Can't join '%s' now", 503),

  RP_ERR_EMPTY_MESSAGE: createError('RP_ERR_EMPTY_MESSAGE', "Can't send an empty message: it needs an id, a type, an error or data"),
  RP_ERR_INVALID_MESSAGE: createError('RP_ERR_INVALID_MESSAGE', "Can't send a message with this %s: expected %s, got %s"),
  RP_ERR_NOT_ENCODABLE: createError('RP_ERR_NOT_ENCODABLE', "Can't send %s: it has no JSON form (%s)"),
  RP_ERR_NOT_AN_OBJECT: createError('RP_ERR_NOT_AN_OBJECT', "Can't send %s to a group: the broker keeps history, so messages must be JSON objects"),
  RP_ERR_INVALID_CLOSE: createError('RP_ERR_INVALID_CLOSE', "Can't close with this %s: expected %s, got %s"),
  RP_ERR_INVALID_PREDICATE: createError('RP_ERR_INVALID_PREDICATE', "Can't pick the connections to end: expected true or false for each, got %s"),

  RP_ERR_BROKER_IN_USE: createError('RP_ERR_BROKER_IN_USE', 'This %s broker is already in use: give each app a broker of its own'),
  RP_ERR_BROKER_UNAVAILABLE: createError('RP_ERR_BROKER_UNAVAILABLE', "The broker can't do this now: %s", 503),
  RP_ERR_NOT_PUBLISHED: createError('RP_ERR_NOT_PUBLISHED', 'The message was not published: %s', 503),

  RP_ERR_ORM_ALREADY_REGISTERED: createError('RP_ERR_ORM_ALREADY_REGISTERED', "The changes of the ORM '%s' are already announced"),
  RP_ERR_UNKNOWN_ENTITY: createError('RP_ERR_UNKNOWN_ENTITY', "Can't announce changes of '%s': no entity of the ORM is it or extends it"),
  RP_ERR_UNKNOWN_PROPERTY: createError('RP_ERR_UNKNOWN_PROPERTY', "Unknown property '%s' of entity '%s' in %s"),
  RP_ERR_INVALID_TEMPLATE: createError('RP_ERR_INVALID_TEMPLATE', "Invalid group template '%s': expected %s"),
  RP_ERR_ROLLED_BACK: createError('RP_ERR_ROLLED_BACK', 'The database has rolled the transaction back: an earlier error of it was not handled')
} as const

/** Longest text that `show` returns. */
const MAX_SHOWN = 80

/** A short picture of any value for an error message: JSON where it has some, cut at 80 characters. Reads no more of it. Never throws. */
export function show (value: unknown): string {
  let text: string | undefined
  try {
    text = typeof value === 'bigint' ? `${value}n` : preview(value, MAX_SHOWN, [])
  } catch {
    // a cycle, or a getter or toJSON that throws
  }
  text ??= typeof value === 'object' || typeof value === 'function' ? `a value of type ${typeof value}` : String(value)
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN - 1)}…` : text
}

/**
 * The beginning of a value's JSON, not much longer than `room`.
 *
 * @param above the objects around the value
 * @returns `undefined` where it has no JSON
 */
function preview (value: unknown, room: number, above: readonly object[]): string | undefined {
  if (ArrayBuffer.isView(value)) return undefined
  const json = hasToJSON(value) ? value.toJSON('') : value
  if (typeof json === 'string') return JSON.stringify(json.slice(0, room + 1))
  if (typeof json !== 'object' || json === null) return JSON.stringify(json)
  if (above.includes(json)) throw new TypeError('Converting circular structure to JSON')

  let text = ''
  for (const [key, property] of entriesOf(json)) {
    if (text.length >= room) break
    const name = key === undefined ? '' : `${JSON.stringify(key.slice(0, room + 1))}:`
    // each level takes at least its bracket
    const item = preview(property, room - text.length - name.length - 1, [...above, json]) ?? (key === undefined ? 'null' : undefined)
    if (item !== undefined) text += `${text === '' ? '' : ','}${name}${item}`
  }
  return Array.isArray(json) ? `[${text}]` : `{${text}}`
}

/** The items of an array without keys, or the fields of an object. */
function * entriesOf (value: object): Generator<[key: string | undefined, value: unknown]> {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) yield [undefined, value[i]]
    return
  }
  for (const key in value) {
    if (Object.hasOwn(value, key)) yield [key, (value as Record<string, unknown>)[key]]
  }
}
