/** From what a handler throws to what the client may read of it. */
import { STATUS_CODES } from 'node:http'
import type { errors } from '../../errors.ts'
import { ErrorCode } from '../../protocol/codes.ts'

/** The error fields of an answer. */
export interface WireError {
  error: string
  code?: string | undefined
  retry?: true | undefined
  /** Milliseconds that the client is to wait before it tries again. */
  retry_after?: number | undefined
  /** Names a failure of the server, for its log. */
  error_id?: string | undefined
}

/** The codes that clients read of the project's own errors. All others are not meant for clients. */
const WIRE_CODES: Readonly<Partial<Record<keyof typeof errors, ErrorCode>>> = {
  RP_ERR_INVALID_DATA: ErrorCode.INVALID_DATA,
  RP_ERR_INVALID_GROUP: ErrorCode.INVALID_GROUP,
  RP_ERR_TOO_MANY_GROUPS: ErrorCode.TOO_MANY_GROUPS,
  RP_ERR_ACCESS_DENIED: ErrorCode.ACCESS_DENIED,
  RP_ERR_UNAVAILABLE: ErrorCode.UNAVAILABLE
}

/** What the client reads of an error that is not meant for it. */
export const INTERNAL: Readonly<WireError> = { error: 'Internal error.', code: ErrorCode.INTERNAL }

/**
 * An error that is meant for the client (`statusCode` from 400 to 499, as `@fastify/sensible` and `@fastify/error` make them) shows
 * its message and its `code`, by default the status in words; everything else is `undefined`. Never throws.
 */
export function toWireError (thrown: unknown): WireError | undefined {
  try {
    if (!(thrown instanceof Error)) return undefined
    const { statusCode, code, retry, retryAfter, message } = thrown as Error & Record<'statusCode' | 'code' | 'retry' | 'retryAfter', unknown>
    // by its code: the error may be of another copy of the package
    if (code === 'RP_ERR_UNAVAILABLE') return { error: message, code: ErrorCode.UNAVAILABLE, retry: true }
    if (typeof statusCode !== 'number' || !(statusCode >= 400 && statusCode < 500)) return undefined
    return {
      error: String(message) || `${STATUS_CODES[statusCode]}`,
      code: toCode(code, statusCode),
      ...(retry === true && { retry, ...(Number(retryAfter) > 0 && Number.isSafeInteger(retryAfter) && { retry_after: Number(retryAfter) }) })
    }
  } catch {
    // getters of the error threw: it is not one that was made for a client
    return undefined
  }
}

/** The project's own codes by the table; a foreign code stays as it is; without one, status 404 is `not_found`. */
function toCode (code: unknown, statusCode: number): string | undefined {
  const own = WIRE_CODES[code as keyof typeof WIRE_CODES]
  if (own !== undefined) return own
  if (typeof code === 'string' && code !== '' && !code.startsWith('RP_ERR_')) return code
  return STATUS_CODES[statusCode]?.toLowerCase().replaceAll(/[^a-z]+/g, '_')
}
