/** From what an application wants to send to the text of a frame: the rules of the original's utility functions. */
import { errors, show } from '../../errors.ts'
import { isMessageId } from '../../protocol/decode.ts'
import { encode } from '../../protocol/encode.ts'
import type { OutgoingMessage } from '../types.ts'

/**
 * The text of a message, keys in the order `id`, `type`, `error`, `data`, then all others; those that are `undefined`, an `id` that is
 * `null`, and a `type` or `error` that is `null` or empty are left out.
 *
 * @throws RP_ERR_INVALID_MESSAGE, RP_ERR_EMPTY_MESSAGE, RP_ERR_NOT_ENCODABLE
 */
export function toText (message: OutgoingMessage): string {
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw new errors.RP_ERR_INVALID_MESSAGE('value', 'an object such as { type, data }', show(message))
  }

  const { id, type, error, data, ...extensions } = message
  if (id !== undefined && !isMessageId(id)) {
    throw new errors.RP_ERR_INVALID_MESSAGE('id', 'a string, a finite number (integers up to 2^53 - 1), a boolean or null', show(id))
  }
  checkText('type', type)
  checkText('error', error)

  const envelope = { id: id ?? undefined, type: type || undefined, error: error || undefined, data, ...extensions }
  if (isEmpty(envelope)) throw new errors.RP_ERR_EMPTY_MESSAGE()
  return encodeEnvelope(envelope)
}

/**
 * The text of a message to a group: a ready-made string as it is, anything else as JSON.
 *
 * @param isObject whether it must be a JSON object, as it must where positions are added to it
 * @throws RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT
 */
export function toPayload (message: unknown, isObject: boolean): string {
  const text = typeof message === 'string' ? message : encodeOrThrow(message)
  if (isObject && !(typeof message === 'string' ? parsesAsObject(text) : text.startsWith('{'))) throw new errors.RP_ERR_NOT_AN_OBJECT(show(message))
  return text
}

/** A success answers a request: it needs the id and the type. @throws RP_ERR_INVALID_MESSAGE */
export function checkSuccess (id: unknown, type: unknown): void {
  if (id === undefined || id === null) throw new errors.RP_ERR_INVALID_MESSAGE('id', 'the id of the request', show(id))
  if (type === undefined || type === null) throw new errors.RP_ERR_INVALID_MESSAGE('type', 'a string', show(type))
}

/** Clients take a message without error, or with an empty one, for a success. @throws RP_ERR_INVALID_MESSAGE */
export function checkError (error: unknown): void {
  if (typeof error !== 'string' || error === '') throw new errors.RP_ERR_INVALID_MESSAGE('error', 'a non-empty string', show(error))
}

/** The text of an envelope, whose `data` is left out only where it is `undefined`. @throws RP_ERR_NOT_ENCODABLE */
export function encodeEnvelope (envelope: OutgoingMessage): string {
  const { data } = envelope
  if (typeof data === 'function' || typeof data === 'symbol') throw new errors.RP_ERR_NOT_ENCODABLE(show(data), `it is a ${typeof data}`)
  return encodeOrThrow(envelope)
}

/** `encode` with the project's own error. @throws RP_ERR_NOT_ENCODABLE */
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
