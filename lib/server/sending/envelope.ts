/**
 * Checks and encodes the envelopes of outgoing messages, by the rules of the utility functions of the original
 * rohrpost.
 */
import { errors, show } from '../../errors.ts'
import { isMessageId } from '../../protocol/decode.ts'
import { encode } from '../../protocol/encode.ts'
import type { OutgoingMessage } from '../types.ts'

/**
 * Encodes a message to one client. Its keys are `id`, `type`, `error`, `data`, then all others; keys with `undefined`,
 * an `id` of `null`, and a `type` or `error` that is `null` or empty are left out.
 *
 * @throws RP_ERR_INVALID_MESSAGE, RP_ERR_EMPTY_MESSAGE, RP_ERR_NOT_ENCODABLE
 */
export function toText (message: OutgoingMessage): string {
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw new errors.RP_ERR_INVALID_MESSAGE('value', 'an object such as { type, data }', show(message))
  }

  const { id, type, error, data, ...extensions } = message
  if (id !== undefined && !isMessageId(id)) {
    const expected = 'a string, a finite number (integers up to 2^53 - 1), a boolean or null'
    throw new errors.RP_ERR_INVALID_MESSAGE('id', expected, show(id))
  }
  checkText('type', type)
  checkText('error', error)

  const envelope = { id: id ?? undefined, type: type || undefined, error: error || undefined, data, ...extensions }
  if (isEmpty(envelope)) throw new errors.RP_ERR_EMPTY_MESSAGE()
  return encodeEnvelope(envelope)
}

/**
 * Encodes a message to a group: a string is sent as it is, anything else as JSON.
 *
 * @param isObject whether the payload must be a JSON object, because the server adds positions to it
 * @throws RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT
 */
export function toPayload (message: unknown, isObject: boolean): string {
  const text = typeof message === 'string' ? message : encodeOrThrow(message)
  if (isObject && !(typeof message === 'string' ? parsesAsObject(text) : text.startsWith('{'))) {
    throw new errors.RP_ERR_NOT_AN_OBJECT(show(message))
  }
  return text
}

/** Checks the `id` and `type` of a successful reply: both are required. @throws RP_ERR_INVALID_MESSAGE */
export function checkSuccess (id: unknown, type: unknown): void {
  if (id === undefined || id === null) throw new errors.RP_ERR_INVALID_MESSAGE('id', 'the id of the request', show(id))
  if (type === undefined || type === null) throw new errors.RP_ERR_INVALID_MESSAGE('type', 'a string', show(type))
}

/**
 * Checks the `error` of an error reply: clients treat a reply without it, or with an empty one, as a success.
 *
 * @throws RP_ERR_INVALID_MESSAGE
 */
export function checkError (error: unknown): void {
  if (typeof error === 'string' && error !== '') return
  throw new errors.RP_ERR_INVALID_MESSAGE('error', 'a non-empty string', show(error))
}

/**
 * Encodes an envelope. `data` that JSON would silently leave out is refused, `undefined` excepted.
 *
 * @throws RP_ERR_NOT_ENCODABLE
 */
export function encodeEnvelope (envelope: OutgoingMessage): string {
  const { data } = envelope
  if (typeof data === 'function' || typeof data === 'symbol') {
    throw new errors.RP_ERR_NOT_ENCODABLE(show(data), `it is a ${typeof data}`)
  }
  return encodeOrThrow(envelope)
}

/** Encodes a value as JSON text, with an error of the project. @throws RP_ERR_NOT_ENCODABLE */
export function encodeOrThrow (value: unknown): string {
  try {
    return encode(value)
  } catch (cause) {
    throw new errors.RP_ERR_NOT_ENCODABLE(show(value), cause instanceof Error ? cause.message : show(cause), { cause })
  }
}

function parsesAsObject (text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

function isEmpty (envelope: OutgoingMessage): boolean {
  for (const field in envelope) {
    if (envelope[field] !== undefined) return false
  }
  return true
}

function checkText (field: string, value: unknown): void {
  if (value !== undefined && value !== null && typeof value !== 'string') {
    throw new errors.RP_ERR_INVALID_MESSAGE(field, 'a string', show(value))
  }
}
