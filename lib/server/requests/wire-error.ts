/** Error replies: what a client may read of an error that a handler throws. */
import { STATUS_CODES } from 'node:http'
import type { errors } from '../../errors.ts'
import { ErrorCode } from '../../protocol/codes.ts'

/** Fields of an error reply. */
export interface WireError {
  error: string
  code?: string | undefined
  retry?: true | undefined
  /** Milliseconds for which the client should wait before a retry. */
  retry_after?: number | undefined
  /** Identifies an internal error in the log of the server. */
  error_id?: string | undefined
}

/** Wire codes of the errors of this package that clients may read. All others are internal. */
const WIRE_CODES: Readonly<Partial<Record<keyof typeof errors, ErrorCode>>> = {
  RP_ERR_INVALID_DATA: ErrorCode.INVALID_DATA,
  RP_ERR_INVALID_GROUP: ErrorCode.INVALID_GROUP,
  RP_ERR_TOO_MANY_GROUPS: ErrorCode.TOO_MANY_GROUPS,
  RP_ERR_ACCESS_DENIED: ErrorCode.ACCESS_DENIED,
  RP_ERR_UNAVAILABLE: ErrorCode.UNAVAILABLE
}

/** Error reply for an internal error. */
export const INTERNAL: Readonly<WireError> = { error: 'Internal error.', code: ErrorCode.INTERNAL }

/**
 * Converts a thrown error into an error reply. An error with a `statusCode` from 400 to 499, as `@fastify/sensible` and
 * `@fastify/error` create it, is meant for the client: the reply has its message and its `code`, by default the status
 * in words. Never throws.
 *
 * @returns `undefined` for any other error, which is internal
 */
export function toWireError (thrown: unknown): WireError | undefined {
  try {
    if (!(thrown instanceof Error)) return undefined
    type Fields = Record<'statusCode' | 'code' | 'retry' | 'retryAfter', unknown>
    const { statusCode, code, retry, retryAfter, message } = thrown as Error & Fields
    // compared by its code, because the error class may belong to another copy of the package
    if (code === 'RP_ERR_UNAVAILABLE') return { error: message, code: ErrorCode.UNAVAILABLE, retry: true }
    if (typeof statusCode !== 'number' || !(statusCode >= 400 && statusCode < 500)) return undefined
    const hasDelay = Number(retryAfter) > 0 && Number.isSafeInteger(retryAfter)
    return {
      error: String(message) || `${STATUS_CODES[statusCode]}`,
      code: toWireCode(code, statusCode),
      ...(retry === true && { retry, ...(hasDelay && { retry_after: Number(retryAfter) }) })
    }
  } catch {
    // a getter of the error threw, so the error is not meant for clients
    return undefined
  }
}

/**
 * Returns the wire code of an error of this package, the code of any other error as it is, or the status in words, such
 * as `not_found`.
 */
function toWireCode (code: unknown, statusCode: number): string | undefined {
  const wireCode = WIRE_CODES[code as keyof typeof WIRE_CODES]
  if (wireCode !== undefined) return wireCode
  if (typeof code === 'string' && code !== '' && !code.startsWith('RP_ERR_')) return code
  return STATUS_CODES[statusCode]?.toLowerCase().replaceAll(/[^a-z]+/g, '_')
}
