/** From what a handler throws to what the client may read of it. */
import { STATUS_CODES } from 'node:http'
import { errors } from '../errors.ts'
import { ErrorCode } from '../protocol/codes.ts'

/** The error fields of an answer. */
export interface WireError {
  error: string
  code?: string | undefined
  retry?: true | undefined
  /** Names a failure of the server, for its log. */
  error_id?: string | undefined
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
    if (thrown instanceof errors.RP_ERR_UNAVAILABLE) return { error: thrown.message, code: ErrorCode.UNAVAILABLE, retry: true }

    const { statusCode, code, retry, message } = thrown as Error & { statusCode?: unknown, code?: unknown, retry?: unknown }
    if (typeof statusCode !== 'number' || !(statusCode >= 400 && statusCode < 500)) return undefined
    return { error: String(message) || `${STATUS_CODES[statusCode]}`, code: toCode(code, statusCode), ...(retry === true && { retry }) }
  } catch {
    // getters of the error threw: it is not one that was made for a client
    return undefined
  }
}

/** `RP_ERR_TOO_MANY_GROUPS` is `too_many_groups`, a foreign code stays as it is, status 404 is `not_found`. */
function toCode (code: unknown, statusCode: number): string | undefined {
  if (typeof code !== 'string' || code === '') return STATUS_CODES[statusCode]?.toLowerCase().replaceAll(/[^a-z]+/g, '_')
  return code.startsWith('RP_ERR_') ? code.slice('RP_ERR_'.length).toLowerCase() : code
}
