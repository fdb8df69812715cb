/** What a client may read of the errors of the ORM that a handler lets pass. */
import { NotFoundError, OptimisticLockError, UniqueConstraintViolationException } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'

/** A message as middlewares get it. */
type RohrpostMessage = Parameters<Parameters<FastifyInstance['rohrpost']['use']>[0]>[0]

/**
 * Says what the client reads of an error that a handler throws: the error to answer with instead, such as one of `@fastify/sensible`;
 * `undefined` for the default.
 */
export type OrmErrorHandler = (error: unknown, message: RohrpostMessage) => unknown

/** The error that a handler fails with, in place of what it threw. */
export function toAnswer (error: unknown, message: RohrpostMessage, handler: OrmErrorHandler | undefined): unknown {
  return handler?.(error, message) ?? byDefault(error)
}

/** The texts of the ORM have SQL and values in them: the client reads others. */
function byDefault (error: unknown): unknown {
  if (error instanceof UniqueConstraintViolationException) return make('Already there.', 409, 'conflict', error)
  if (error instanceof OptimisticLockError) return make('Changed by somebody else.', 409, 'conflict', error)
  if (error instanceof NotFoundError) return make('Not found.', 404, 'not_found', error)
  return error
}

function make (text: string, statusCode: number, code: string, cause: Error): Error {
  return Object.assign(new Error(text, { cause }), { statusCode, code })
}
