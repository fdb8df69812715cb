/** Error replies for MikroORM errors that a handler throws, without the SQL and values of their messages. */
import { NotFoundError, OptimisticLockError, UniqueConstraintViolationException } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'

/** A request message, as middleware receives it. */
type MiddlewareMessage = Parameters<Parameters<FastifyInstance['rohrpost']['use']>[0]>[0]

/**
 * Maps an error that a handler throws to the error that the client reads, such as an error of `@fastify/sensible`. If
 * it returns `undefined`, the default reply is sent.
 */
export type OrmErrorHandler = (error: unknown, message: MiddlewareMessage) => unknown

/** Maps an error of a handler, by the option `errorHandler` or by default. */
export function toReplyError (error: unknown, message: MiddlewareMessage, errorHandler?: OrmErrorHandler): unknown {
  return errorHandler?.(error, message) ?? defaultError(error)
}

function defaultError (error: unknown): unknown {
  if (error instanceof UniqueConstraintViolationException) return replyError('Already there.', 409, 'conflict', error)
  if (error instanceof OptimisticLockError) return replyError('Changed by somebody else.', 409, 'conflict', error)
  if (error instanceof NotFoundError) return replyError('Not found.', 404, 'not_found', error)
  return error
}

function replyError (text: string, statusCode: number, code: string, cause: Error): Error {
  return Object.assign(new Error(text, { cause }), { statusCode, code })
}
