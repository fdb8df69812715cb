/** Middleware of one server: functions that run around every handler and `authorize`. */
import type { FastifyInstance } from 'fastify'
import { errors, show } from '../../errors.ts'
import { isThenable } from '../../util/thenable.ts'
import { report, requestFields } from '../report.ts'
import type { Middleware, RohrpostConnection, RohrpostMessage } from '../types.ts'
import { Message } from './message.ts'

/** Message of any type, as a handler without type parameters accepts it. */
export type AnyMessage = RohrpostMessage<never, never>
/** Handler or `authorize` without type parameters. */
export type AnyHandler = (this: FastifyInstance, message: AnyMessage, connection: RohrpostConnection) => unknown

/** The middlewares of one server, in the order in which they run. */
export class MiddlewareChain {
  readonly #middlewares: { fn: Middleware, instance: FastifyInstance }[] = []

  /**
   * Appends a middleware.
   *
   * @param instance `this` of the middleware
   * @throws RP_ERR_INVALID_HANDLER
   */
  use (instance: FastifyInstance, fn: unknown): void {
    if (typeof fn !== 'function') throw new errors.RP_ERR_INVALID_HANDLER('a function as middleware', show(fn))
    this.#middlewares.push({ fn: fn as Middleware, instance })
  }

  /** Calls a handler or `authorize` inside all middlewares, and returns the result of the outermost one. */
  call (fn: AnyHandler, instance: FastifyInstance, message: AnyMessage, connection: RohrpostConnection): unknown {
    if (this.#middlewares.length === 0) return fn.call(instance, message, connection)

    let lastIndex = -1
    let reported: unknown
    const onRejection = (error: unknown) => {
      if (error === reported || !Message.isAnswered(message)) return
      reported = error
      report(connection.log, 'error', error, requestFields(message), 'a handler failed after its request was answered')
    }
    const run = (index: number): unknown => {
      if (index <= lastIndex) throw new errors.RP_ERR_NEXT_CALLED_TWICE(message.type)
      lastIndex = index

      const middleware = this.#middlewares[index]
      if (middleware === undefined) return fn.call(instance, message, connection)
      return middleware.fn.call(middleware.instance, message, connection, () => {
        const result = run(index + 1)
        // a middleware may drop the promise of `next()`; its rejection must not end the process
        if (isThenable(result)) result.then(undefined, onRejection)
        return result
      })
    }
    return run(0)
  }
}
