/** What a client may read of an upgrade request that failed: as with handlers, nothing that was not made for it. */
import { STATUS_CODES } from 'node:http'
import type { RouteShorthandOptions } from 'fastify'
import { show } from '../../errors.ts'
import { INTERNAL } from '../requests/wire-error.ts'

/**
 * Options of a route. The app's own error handler is asked as ever; an error that is left with a status from 500 is answered without its
 * message, which Fastify would tell.
 */
export const upgradeErrors: Required<Pick<RouteShorthandOptions, 'errorHandler' | 'serializerCompiler' | 'schema'>> = {
  schema: { response: { '5xx': {} } },
  serializerCompiler: () => serialize,
  errorHandler (error: unknown): never {
    // Fastify would send what is no error as it is
    throw error instanceof Error ? error : Object.assign(new Error(`a hook threw ${show(error)}`, { cause: error }), { statusCode: 500 })
  }
}

function serialize (payload: unknown): string {
  if (!(payload instanceof Error)) return JSON.stringify(payload)
  const { statusCode } = payload as Error & { statusCode: number }
  return JSON.stringify({ statusCode, error: STATUS_CODES[statusCode], message: INTERNAL.error })
}
