/** Errors that the package throws, with their codes. docs/errors.md documents each of them; a test compares the two. */
import createError from '@fastify/error'
import { hasToJSON } from './protocol/encode.ts'

/**
 * Error classes by code. Thrown in a handler, errors with a status below 500 and RP_ERR_UNAVAILABLE show their message
 * to the client.
 */
export const errors = {
  RP_ERR_ALREADY_REGISTERED: createError(
    'RP_ERR_ALREADY_REGISTERED',
    "fastify-rohrpost is already registered on this Fastify instance: path '%s' was not added"
  ),
  RP_ERR_INVALID_OPTION: createError('RP_ERR_INVALID_OPTION', "Invalid option '%s': expected %s, got %s"),
  RP_ERR_UNKNOWN_OPTION: createError('RP_ERR_UNKNOWN_OPTION', "Unknown option '%s', the options are: %s"),

  RP_ERR_INVALID_HANDLER: createError('RP_ERR_INVALID_HANDLER', 'Invalid handler: expected %s, got %s'),
  RP_ERR_DUPLICATE_HANDLER: createError(
    'RP_ERR_DUPLICATE_HANDLER',
    "A handler for message type '%s' is already registered"
  ),
  RP_ERR_INVALID_SCHEMA: createError('RP_ERR_INVALID_SCHEMA', "Invalid schema '%s' of '%s': %s"),
  RP_ERR_TYPEBOX_MISSING: createError(
    'RP_ERR_TYPEBOX_MISSING',
    "%s needs the package '@sinclair/typebox' (npm install @sinclair/typebox@0.34): %s"
  ),
  RP_ERR_INVALID_REPLY: createError('RP_ERR_INVALID_REPLY', "The reply of '%s' fails its schema: %s"),
  RP_ERR_INVALID_DATA: createError('RP_ERR_INVALID_DATA', 'Invalid data: %s.', 400),
  RP_ERR_NEXT_CALLED_TWICE: createError(
    'RP_ERR_NEXT_CALLED_TWICE',
    "next() was called twice for a message of type '%s'"
  ),

  RP_ERR_INVALID_GROUP_TYPE: createError(
    'RP_ERR_INVALID_GROUP_TYPE',
    "Invalid group type '%s': expected a letter, then letters, digits, '_' or '.' (no dash)"
  ),
  RP_ERR_DUPLICATE_GROUP_TYPE: createError('RP_ERR_DUPLICATE_GROUP_TYPE', "Group type '%s' is already declared"),
  RP_ERR_INVALID_GROUP: createError(
    'RP_ERR_INVALID_GROUP',
    'Invalid group name %s: expected 1 to 200 characters of printable ASCII without spaces',
    400
  ),
  RP_ERR_TOO_MANY_GROUPS: createError(
    'RP_ERR_TOO_MANY_GROUPS',
    "Can't join '%s': the connection is in %d groups, the maximum",
    400
  ),
  RP_ERR_ACCESS_DENIED: createError('RP_ERR_ACCESS_DENIED', 'ACCESS_DENIED', 403),
  RP_ERR_UNAVAILABLE: createError('RP_ERR_UNAVAILABLE', "Can't join '%s' now", 503),

  RP_ERR_EMPTY_MESSAGE: createError(
    'RP_ERR_EMPTY_MESSAGE',
    "Can't send an empty message: it needs an id, a type, an error or data"
  ),
  RP_ERR_INVALID_MESSAGE: createError(
    'RP_ERR_INVALID_MESSAGE',
    "Can't send a message with this %s: expected %s, got %s"
  ),
  RP_ERR_NOT_ENCODABLE: createError('RP_ERR_NOT_ENCODABLE', "Can't send %s: it has no JSON form (%s)"),
  RP_ERR_NOT_AN_OBJECT: createError(
    'RP_ERR_NOT_AN_OBJECT',
    "Can't send %s to a group: the broker keeps history, so messages must be JSON objects"
  ),
  RP_ERR_INVALID_CLOSE: createError('RP_ERR_INVALID_CLOSE', "Can't close with this %s: expected %s, got %s"),
  RP_ERR_INVALID_PREDICATE: createError(
    'RP_ERR_INVALID_PREDICATE',
    'Invalid predicate of disconnect: expected it to return true or false, got %s'
  ),

  RP_ERR_BROKER_IN_USE: createError(
    'RP_ERR_BROKER_IN_USE',
    'This %s broker is already in use: create a separate broker for each app'
  ),
  RP_ERR_TABLE_MISSING: createError(
    'RP_ERR_TABLE_MISSING',
    "The table %s is missing: create it with MikroORM's schema generator or a migration"
  ),
  RP_ERR_BROKER_UNAVAILABLE: createError('RP_ERR_BROKER_UNAVAILABLE', 'The broker is unavailable: %s', 503),
  RP_ERR_NOT_PUBLISHED: createError('RP_ERR_NOT_PUBLISHED', 'The message was not published: %s', 503),

  RP_ERR_ORM_ALREADY_REGISTERED: createError(
    'RP_ERR_ORM_ALREADY_REGISTERED',
    "A ChangeSubscriber is already connected to the ORM '%s'"
  ),
  RP_ERR_UNKNOWN_ENTITY_MANAGER: createError(
    'RP_ERR_UNKNOWN_ENTITY_MANAGER',
    "Can't send to group '%s' with the transaction of 'em': it is no EntityManager of an ORM " +
      'that is registered with rohrpostMikroOrm'
  ),
  RP_ERR_UNKNOWN_ENTITY: createError(
    'RP_ERR_UNKNOWN_ENTITY',
    "Can't send notifications for '%s': it is neither an entity of the ORM nor a base class of one"
  ),
  RP_ERR_UNKNOWN_PROPERTY: createError('RP_ERR_UNKNOWN_PROPERTY', "Unknown property '%s' of entity '%s' in %s"),
  RP_ERR_INVALID_TEMPLATE: createError('RP_ERR_INVALID_TEMPLATE', "Invalid group template '%s': expected %s"),
  RP_ERR_ROLLED_BACK: createError(
    'RP_ERR_ROLLED_BACK',
    'The database has rolled back the transaction: an earlier error in it was not handled'
  )
} as const

/** Maximum characters of a text that `show` returns. */
const MAX_SHOWN = 80

/**
 * Returns a short text for any value in an error message: its JSON, cut at 80 characters. The rest of the value is not
 * read. Never throws.
 */
export function show (value: unknown): string {
  let text: string | undefined
  try {
    text = typeof value === 'bigint' ? `${value}n` : preview(value, MAX_SHOWN, [])
  } catch {
    // the value has a cycle, or a getter or `toJSON` of it threw
  }
  text ??= typeof value === 'object' || typeof value === 'function' ? `a value of type ${typeof value}` : String(value)
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN - 1)}…` : text
}

/**
 * Returns the start of a value's JSON text, at least `room` characters of it if there are as many.
 *
 * @param ancestors the objects that contain the value
 * @returns `undefined` for a value without a JSON form
 */
function preview (value: unknown, room: number, ancestors: readonly object[]): string | undefined {
  if (ArrayBuffer.isView(value)) return undefined
  const json = hasToJSON(value) ? value.toJSON('') : value
  if (typeof json === 'string') return JSON.stringify(json.slice(0, room + 1))
  if (typeof json !== 'object' || json === null) return JSON.stringify(json)
  if (ancestors.includes(json)) throw new TypeError('Converting circular structure to JSON')

  let text = ''
  for (const [key, property] of entriesOf(json)) {
    if (text.length >= room) break
    const name = key === undefined ? '' : `${JSON.stringify(key.slice(0, room + 1))}:`
    // each level of nesting adds at least one bracket
    const left = room - text.length - name.length - 1
    const item = preview(property, left, [...ancestors, json]) ?? (key === undefined ? 'null' : undefined)
    if (item !== undefined) text += `${text === '' ? '' : ','}${name}${item}`
  }
  return Array.isArray(json) ? `[${text}]` : `{${text}}`
}

/** Iterates over the items of an array, without keys, or over the properties of an object. */
function * entriesOf (value: object): Generator<[key: string | undefined, value: unknown]> {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) yield [undefined, value[i]]
    return
  }
  for (const key in value) {
    if (Object.hasOwn(value, key)) yield [key, (value as Record<string, unknown>)[key]]
  }
}
