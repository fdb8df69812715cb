/** Registry of handlers by message type. */
import type { FastifyInstance } from 'fastify'
import { errors, show } from '../../errors.ts'
import type { HandlerOptions, HandlerSchemas } from '../types.ts'
import type { AnyHandler } from './middleware.ts'
import type { Check, SchemaCompiler } from './schema.ts'

/**
 * Origin of a handler. A built-in handler can be replaced once and runs without middleware. The built-in handler of
 * `ping` also runs while all slots of the connection are taken.
 */
export type Role = 'application' | 'built-in' | 'ping'

/** Registered handler with its compiled schemas. */
export interface Registration {
  readonly fn: AnyHandler
  /** `this` of the handler. */
  readonly instance: FastifyInstance
  readonly schemas: HandlerSchemas
  readonly checkData: Check | undefined
  readonly checkReply: Check | undefined
  readonly role: Role
  /** Whether requests run in parallel to the ordered requests of their connection. */
  readonly parallel: boolean
}

/** The handlers of one server. */
export class Registry {
  readonly #handlers = new Map<string, Registration>()
  readonly #compiler: SchemaCompiler

  constructor (compiler: SchemaCompiler) {
    this.#compiler = compiler
  }

  /** Returns the handler of a message type. */
  get (type: string): Registration | undefined {
    return this.#handlers.get(type)
  }

  /**
   * Returns the schemas of all handlers by message type. The object has no prototype: `constructor` is a valid type.
   *
   * @throws RP_ERR_TYPEBOX_MISSING
   */
  schemas (): Record<string, HandlerSchemas> {
    const { SubscribeDataSchema } = this.#compiler.protocol
    const byType: Record<string, HandlerSchemas> = Object.create(null)
    for (const [type, { schemas, role }] of this.#handlers) {
      byType[type] = role === 'built-in' ? { data: SubscribeDataSchema } : schemas
    }
    return byType
  }

  /**
   * Registers a handler for all given types, or for none if an argument is invalid.
   *
   * @throws the errors of `Rohrpost.handle`
   */
  add (instance: FastifyInstance, type: unknown, options: unknown, fn: unknown, role: Role = 'application'): void {
    const types = checkTypes(type)
    const owner = types.join("', '")
    if (typeof fn !== 'function') throw new errors.RP_ERR_INVALID_HANDLER(`a function for type '${owner}'`, show(fn))
    const { data, reply, parallel = false } = checkHandlerOptions(options, owner)

    for (const name of types) {
      if (this.#handlers.get(name)?.role === 'application') throw new errors.RP_ERR_DUPLICATE_HANDLER(name)
    }

    const registration: Registration = {
      fn: fn as AnyHandler,
      instance,
      schemas: { ...(data && { data }), ...(reply && { reply }) },
      checkData: data && this.#compiler.compile(data, 'data', owner),
      checkReply: reply && this.#compiler.compile(reply, 'reply', owner),
      role,
      parallel
    }
    for (const name of types) this.#handlers.set(name, registration)
  }
}

function checkTypes (type: unknown): string[] {
  const types: unknown[] = Array.isArray(type) ? type : [type]
  if (types.length === 0) throw new errors.RP_ERR_INVALID_HANDLER('at least one message type', show(type))
  for (const [index, name] of types.entries()) {
    if (typeof name !== 'string' || name === '') {
      throw new errors.RP_ERR_INVALID_HANDLER('a non-empty string as message type', show(name))
    }
    if (types.indexOf(name) !== index) throw new errors.RP_ERR_DUPLICATE_HANDLER(name)
  }
  return types as string[]
}

/** @param owner the message types of the handler, for error messages */
function checkHandlerOptions (options: unknown, owner: string): HandlerOptions {
  if (options === undefined) return {}
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
