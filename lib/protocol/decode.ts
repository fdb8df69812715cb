/** Decoder of client messages: turns the text of a frame into an envelope, or into the error of a malformed one. */
import { ErrorCode } from './codes.ts'

/** Id of a message. Integers go up to 2^53 - 1; `null` stands for "no id". */
export type MessageId = string | number | boolean | null

/** Decoded request: `id`, `type`, `data`, and any other top-level fields of the client. */
export interface Envelope {
  id: MessageId
  type: string
  data?: unknown
  [field: string]: unknown
}

/** Error reply to a malformed message: `error`, `code`, and the `id` if it could be read. */
export class Malformed {
  readonly id: Exclude<MessageId, null> | undefined
  readonly error: string
  readonly code: ErrorCode

  constructor (code: ErrorCode, error: string, id?: unknown) {
    this.id = isMessageId(id) && id !== null ? id : undefined
    this.error = error
    this.code = code
  }
}

/** Decodes one text frame by the rules of PROTOCOL.md, "Request", in their order. Never throws. */
export function decode (text: string): Envelope | Malformed {
  if (text === '') return new Malformed(ErrorCode.EMPTY_MESSAGE, 'Received empty message.')

  let message: unknown
  try {
    message = JSON.parse(text)
  } catch (error) {
    return new Malformed(ErrorCode.INVALID_JSON, `Could not decode JSON message. Error: ${(error as Error).message}`)
  }

  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    return new Malformed(ErrorCode.INVALID_ENVELOPE, 'Expected a JSON object as message.')
  }

  const { id, type } = message as Partial<Envelope>
  if (type === undefined) {
    return new Malformed(ErrorCode.INVALID_ENVELOPE, "Missing required field 'type'.", id)
  }
  if (id === undefined) {
    return new Malformed(ErrorCode.INVALID_ENVELOPE, "Missing required field 'id'.")
  }
  if (typeof type !== 'string') {
    return new Malformed(ErrorCode.INVALID_ENVELOPE, `Expected a string as 'type', got ${kindOf(type)}.`, id)
  }
  if (!isMessageId(id)) {
    return new Malformed(
      ErrorCode.INVALID_ENVELOPE,
      `Expected a string, a finite number (integers up to 2^53 - 1), a boolean or null as 'id', got ${kindOf(id)}.`
    )
  }
  return message as Envelope
}

/**
 * Whether a value is a valid `id`. Integers from 2^53 lose digits when they are parsed, so they could not be echoed
 * unchanged.
 */
export function isMessageId (value: unknown): value is MessageId {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true
    case 'number':
      return Math.abs(value) <= Number.MAX_SAFE_INTEGER
    default:
      return value === null
  }
}

function kindOf (value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return 'an object'
  return typeof value === 'number' ? `the number ${value}` : `a ${typeof value}`
}
