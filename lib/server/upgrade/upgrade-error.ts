/**
 * Error responses to failed upgrade requests: like an error reply, the response to an internal error hides its message.
 */
import { STATUS_CODES } from 'node:http'
import type { RouteShorthandOptions } from 'fastify'
import { show } from '../../errors.ts'
import { INTERNAL } from '../requests/wire-error.ts'

/**
 * Options of the route. The error handler of the app runs first; an error that it leaves with a status of 500 or above
 * is answered without its message, which Fastify would send.
 */
export const upgradeErrors: Required<Pick<RouteShorthandOptions, 'errorHandler' | 'serializerCompiler' | 'schema'>> = {
  schema: { response: { '5xx': {} } },
  serializerCompiler: () => serialize,
  errorHandler (error: unknown): never {
    if (error instanceof Error) throw error
    // Fastify would send any other thrown value as it is
    throw Object.assign(new Error(`a hook threw ${show(error)}`, { cause: error }), { statusCode: 500 })
  }
}

function serialize (payload: unknown): string {
  if (!(payload instanceof Error)) return JSON.stringify(payload)
  const { statusCode } = payload as Error & { statusCode: number }
  return JSON.stringify({ statusCode, error: STATUS_CODES[statusCode], message: INTERNAL.error })
}
