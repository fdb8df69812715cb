/** What the server can do: handlers by message type, and what runs around them. */
import type { FastifyInstance } from 'fastify'
import { errors, show } from '../../errors.ts'
import { Message } from './message.ts'
import { named, report } from '../report.ts'
import type { Check, SchemaCompiler } from './schema.ts'
import { isThenable } from '../../util/thenable.ts'
import type { HandlerOptions, HandlerSchemas, Middleware, RohrpostConnection, RohrpostMessage } from '../types.ts'

/** A handler as it is called: without generics, whatever it was registered with. */
export type AnyHandler = (this: FastifyInstance, message: AnyMessage, connection: RohrpostConnection) => unknown
export type AnyMessage = RohrpostMessage<never, never>

/**
 * Where a handler comes from. What is built in can be replaced once and is not wrapped by `use`; `ping` is answered also when all
 * slots of the connection are taken.
 */
export type Role = 'application' | 'built-in' | 'ping'

/** A registered handler with its compiled schemas. */
export interface Registration {
  readonly fn: AnyHandler
  /** What the handler runs with as `this`. */
  readonly instance: FastifyInstance
  readonly schemas: HandlerSchemas
  readonly checkData: Check | undefined
  readonly checkReply: Check | undefined
  readonly role: Role
  /** Whether requests run beside the ordered requests of their connection. */
  readonly parallel: boolean
}

/** The handlers and middlewares of one server. */
export class Registry {
  readonly #handlers = new Map<string, Registration>()
  readonly #middlewares: { fn: Middleware, instance: FastifyInstance }[] = []
  readonly #compiler: SchemaCompiler

  constructor (compiler: SchemaCompiler) {
    this.#compiler = compiler
  }

  /** Compiles a schema, see `SchemaCompiler`. */
  compile (...args: Parameters<SchemaCompiler['compile']>): Check {
    return this.#compiler.compile(...args)
  }

  /** The handler of a message type. */
  get (type: string): Registration | undefined {
    return this.#handlers.get(type)
  }

  /** The schemas of all handlers by type, without prototype: a type may be called `constructor`. @throws RP_ERR_TYPEBOX_MISSING */
  schemas (): Record<string, HandlerSchemas> {
    const { SubscribeDataSchema } = this.#compiler.protocol
    const schemas: Record<string, HandlerSchemas> = Object.create(null)
    for (const [type, { schemas: own, role }] of this.#handlers) schemas[type] = role === 'built-in' ? { data: SubscribeDataSchema } : own
    return schemas
  }

  /** Registers a handler under all types or, if anything is wrong, under none. @throws as `Rohrpost.handle` */
  add (instance: FastifyInstance, type: unknown, options: unknown, fn: unknown, role: Role = 'application'): void {
    const types = checkTypes(type)
    if (typeof fn !== 'function') throw new errors.RP_ERR_INVALID_HANDLER(`a function for type '${types.join("', '")}'`, show(fn))
    const { data, reply, parallel = false } = checkOptions(options, types)

    for (const name of types) {
      const taken = this.#handlers.get(name)
      if (taken !== undefined && taken.role === 'application') throw new errors.RP_ERR_DUPLICATE_HANDLER(name)
    }

    const owner = types.join("', '")
    const registration: Registration = {
      fn: fn as AnyHandler,
      instance,
      schemas: { ...(data && { data }), ...(reply && { reply }) },
      checkData: data && this.compile(data, 'data', owner),
      checkReply: reply && this.compile(reply, 'reply', owner),
      role,
      parallel
    }
    for (const name of types) this.#handlers.set(name, registration)
  }

  /** Adds a middleware, inside those that are there. @throws RP_ERR_INVALID_HANDLER */
  use (instance: FastifyInstance, fn: unknown): void {
    if (typeof fn !== 'function') throw new errors.RP_ERR_INVALID_HANDLER('a function as middleware', show(fn))
    this.#middlewares.push({ fn: fn as Middleware, instance })
  }

  /** Calls a handler, or `authorize`, inside all middlewares. */
  call (fn: AnyHandler, instance: FastifyInstance, message: AnyMessage, connection: RohrpostConnection): unknown {
    if (this.#middlewares.length === 0) return fn.call(instance, message, connection)

    let called = -1
    let lost: unknown
    const onLost = (error: unknown) => {
      if (error === lost || !Message.isAnswered(message)) return
      lost = error
      report(connection.log, 'error', error, named(message), 'a handler failed after its request was answered')
    }
    const run = (index: number): unknown => {
      if (index <= called) throw new errors.RP_ERR_NEXT_CALLED_TWICE(message.type)
      called = index

      const middleware = this.#middlewares[index]
      if (middleware === undefined) return fn.call(instance, message, connection)
      return middleware.fn.call(middleware.instance, message, connection, () => {
        const result = run(index + 1)
        // a middleware that does not hand it on must not end the process
        if (isThenable(result)) result.then(undefined, onLost)
        return result
      })
    }
    return run(0)
  }
}

function checkTypes (type: unknown): string[] {
  const types: unknown[] = Array.isArray(type) ? type : [type]
  if (types.length === 0) throw new errors.RP_ERR_INVALID_HANDLER('at least one message type', show(type))
  for (const [index, name] of types.entries()) {
    if (typeof name !== 'string' || name === '') throw new errors.RP_ERR_INVALID_HANDLER('a non-empty string as message type', show(name))
    if (types.indexOf(name) !== index) throw new errors.RP_ERR_DUPLICATE_HANDLER(name)
  }
  return types as string[]
}

function checkOptions (options: unknown, types: string[]): HandlerOptions {
  if (options === undefined) return {}
  const owner = types.join("', '")
  if (typeof options !== 'object' || options === null) {
    throw new errors.RP_ERR_INVALID_HANDLER(`an object { data, reply, parallel } for type '${owner}'`, show(options))
  }
  for (const key of Object.keys(options)) {
    if (key !== 'data' && key !== 'reply' && key !== 'parallel') {
      throw new errors.RP_ERR_INVALID_SCHEMA(key, owner, "the options of a handler are 'data', 'reply' and 'parallel'")
    }
  }
  const { parallel } = options as { parallel?: unknown }
  if (parallel !== undefined && typeof parallel !== 'boolean') {
    throw new errors.RP_ERR_INVALID_HANDLER(`true or false as 'parallel' for type '${owner}'`, show(parallel))
  }
  return options
}
