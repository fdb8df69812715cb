/** The built-in handlers `subscribe` and `unsubscribe`, and the group types that clients may subscribe to. */
import type { TSchema } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Position } from '../../brokers/broker.ts'
import { errors, show } from '../../errors.ts'
import type { MiddlewareChain } from '../requests/middleware.ts'
import type { Registry } from '../requests/registry.ts'
import type { Check, SchemaCompiler } from '../requests/schema.ts'
import type { GroupOptions, Handler, RohrpostConnection, RohrpostMessage } from '../types.ts'
import {
  canonicalId, checkDefaultId, checkKey, checkNoId, groupName, hasUuidFormat, keyText, splitKey, type GroupKey
} from './group-id.ts'
import { GroupUse } from './group-use.ts'
import { checkName } from './groups.ts'
import type { Recover } from './member.ts'
import type { Memberships } from './memberships.ts'
import type { PendingSubscribe } from './pending-subscribe.ts'

/** A connection as the built-in handlers use it. */
export interface SubscribeConnection extends RohrpostConnection {
  readonly memberships: Memberships
}

/** A declared group type. */
interface DeclaredGroupType {
  authorize: Handler<never>
  instance: FastifyInstance
  checkId: Check
  /** Whether ids have the default schema. */
  isDefault: boolean
  /** Whether the schema of the id has the format `uuid`. */
  isUuid: boolean
}

interface SubscribeMessage extends RohrpostMessage<{ type: string, id?: unknown }> {
  reply (data?: unknown, options?: { type?: string, extensions?: object }): void
}

/** A `subscribe` whose data is valid. */
interface ValidSubscribe {
  pending: PendingSubscribe
  /** Resolves when the `subscribe` or `unsubscribe` before it has ended, of the same connection and group. */
  previous: Promise<void> | undefined
  recover: Recover | undefined
  batch: boolean
  declared: DeclaredGroupType
}

const GROUP_TYPE = /^[A-Za-z][\w.]*$/

/** Declares group types, and handles `subscribe` and `unsubscribe` of one connection and group in order of arrival. */
export class Subscriptions {
  readonly use = new GroupUse()
  readonly #types = new Map<string, DeclaredGroupType>()
  readonly #schemas: SchemaCompiler
  readonly #middlewares: MiddlewareChain
  /** For each connection and group, resolves when the last `subscribe` or `unsubscribe` has ended. */
  readonly #tails = new WeakMap<SubscribeConnection, Map<string, Promise<void>>>()

  constructor (registry: Registry, schemas: SchemaCompiler, middlewares: MiddlewareChain, instance: FastifyInstance) {
    this.#schemas = schemas
    this.#middlewares = middlewares
    const options = { parallel: true }
    registry.add(instance, 'subscribe', options, this.#subscribe, 'built-in')
    registry.add(instance, 'unsubscribe', options, this.#unsubscribe, 'built-in')
  }

  /** Declares a group type. @throws as `Rohrpost.group` */
  declare (instance: FastifyInstance, type: unknown, options: unknown): void {
    if (typeof type !== 'string' || !GROUP_TYPE.test(type)) {
      throw new errors.RP_ERR_INVALID_GROUP_TYPE(typeof type === 'string' ? type : show(type))
    }
    if (this.#types.has(type)) throw new errors.RP_ERR_DUPLICATE_GROUP_TYPE(type)

    const { authorize, id } = (options ?? {}) as Partial<GroupOptions<TSchema | false>>
    if (typeof authorize !== 'function') {
      throw new errors.RP_ERR_INVALID_HANDLER(`a function as 'authorize' of group '${type}'`, show(authorize))
    }
    this.#types.set(type, {
      authorize: authorize as Handler<never>,
      instance,
      checkId: id === undefined ? checkDefaultId : id === false ? checkNoId : this.#schemas.compile(id, 'id', type),
      isDefault: id === undefined,
      isUuid: id === undefined || (id !== false && hasUuidFormat(id))
    })
  }

  /** Whether a group type is declared. */
  has (type: string): boolean {
    return this.#types.has(type)
  }

  readonly #subscribe = (message: SubscribeMessage, connection: SubscribeConnection): Promise<void> => {
    checkData(message.data)
    const { type, id } = message.data
    const declared = this.#types.get(type)
    if (declared === undefined) {
      this.use.warnDenied(type, connection.log)
      throw new errors.RP_ERR_ACCESS_DENIED()
    }

    const problem = declared.checkId(id, '/id') ?? checkKey(id)
    if (problem !== undefined) throw new errors.RP_ERR_INVALID_DATA(problem)
    const key = this.#canonical(declared, type, id)
    const group = groupName(type, key)
    checkName(group)
    // `authorize` must decide on the id that names the group: two spellings of a UUID may be two rows of a
    // case-sensitive database
    if (key !== undefined) message.data.id = typeof id === 'string' && typeof key === 'object' ? keyText(key) : key
    const recover = readRecover(message.recover)
    const batch = readBatch(message.batch)

    const pending = connection.memberships.beginSubscribe(group)
    const previous = this.#enqueue(connection, group, pending.ended)
    return this.#authorizeAndJoin({ pending, previous, recover, batch, declared }, message, connection)
  }

  async #authorizeAndJoin (
    { pending, previous, recover, batch, declared }: ValidSubscribe,
    message: SubscribeMessage,
    connection: SubscribeConnection
  ): Promise<void> {
    const { group } = pending
    const { signal } = message
    const { memberships } = connection
    const abort = () => pending.cancel(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      if (previous !== undefined) await pending.wait(previous)
      const { authorize, instance } = declared
      const request = message as RohrpostMessage<never, never>
      const allowed = await this.#middlewares.call(authorize, instance, request, connection)
      // the request may have been cancelled while `authorize` ran
      pending.check()
      if (allowed !== true) {
        if (allowed !== false) {
          const text = `a subscription is denied: 'authorize' returned a value of type ${typeof allowed}, not true`
          connection.log.warn({ group }, text)
        }
        throw new errors.RP_ERR_ACCESS_DENIED()
      }

      // bounds the memory for the replays of one client: the next history is read when the earlier replays have been
      // sent
      if (recover?.after !== undefined) await memberships.waitForReplays(pending)
      await memberships.subscribe(pending, { recover, batch }, (result) => message.reply({ group }, result && {
        extensions: {
          position: result.position && { group, ...result.position },
          recovered: result.recovered,
          top: result.top && { group, ...result.top }
        }
      }))
    } finally {
      pending.cancel()
      signal.removeEventListener('abort', abort)
    }
  }

  readonly #unsubscribe = (message: SubscribeMessage, connection: SubscribeConnection): Promise<void> | void => {
    checkData(message.data)
    const { type, id } = message.data
    const declared = this.#types.get(type)
    // clients can't end memberships in groups that they can't subscribe to, which the application has made
    if (declared === undefined || (declared.checkId(id) ?? checkKey(id)) !== undefined) return

    const group = groupName(type, this.#canonical(declared, type, id))
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const previous = this.#enqueue(connection, group, ended)
    const run = () => {
      connection.memberships.unsubscribe(group)
      if (!message.signal.aborted) message.reply()
      end()
    }
    return previous === undefined ? run() : previous.then(run)
  }

  /** Returns the canonical form of a checked id. */
  #canonical ({ isDefault, isUuid }: DeclaredGroupType, type: string, id: unknown): GroupKey {
    const parts = typeof id === 'string' ? splitKey(id, this.use.parts(type)) : undefined
    return canonicalId(parts ?? id as GroupKey, isDefault, (part) => this.use.isUuid(type, part) ?? isUuid)
  }

  /**
   * Queues a `subscribe` or `unsubscribe` of one connection and group.
   *
   * @param ended resolves when it has ended
   * @returns resolves when all before it have ended; `undefined` if there are none
   */
  #enqueue (connection: SubscribeConnection, group: string, ended: Promise<void>): Promise<void> | undefined {
    let tails = this.#tails.get(connection)
    if (tails === undefined) this.#tails.set(connection, tails = new Map())

    const previous = tails.get(group)
    // a cancelled request ends at once, but the next one must still wait for all before it
    const tail = Promise.all([previous, ended]).then(() => {
      if (tails.get(group) === tail) tails.delete(group)
      if (tails.size === 0) this.#tails.delete(connection)
    })
    tails.set(group, tail)
    return previous
  }
}

/**
 * Checks `data` of `subscribe` and `unsubscribe`, with the error texts of TypeBox, an optional dependency.
 *
 * @throws RP_ERR_INVALID_DATA
 */
function checkData (data: unknown): void {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    throw new errors.RP_ERR_INVALID_DATA('Expected object')
  }
  if (!('type' in data)) throw new errors.RP_ERR_INVALID_DATA("Expected required property at '/type'")
  if (typeof data.type !== 'string') throw new errors.RP_ERR_INVALID_DATA("Expected string at '/type'")
}

/** Parses the field `recover` of a `subscribe`. @throws RP_ERR_INVALID_DATA */
function readRecover (recover: unknown): Recover | undefined {
  if (recover === undefined) return undefined
  if (recover === true) return { after: undefined }

  const { epoch, offset } = Object(recover) as Partial<Record<keyof Position, unknown>>
  if (typeof epoch === 'string' && Number.isSafeInteger(offset) && Number(offset) >= 0) {
    return { after: { epoch, offset: Number(offset) } }
  }
  const problem = `Expected true, or an object { epoch, offset } as 'recover', got ${show(recover)}`
  throw new errors.RP_ERR_INVALID_DATA(problem)
}

/** Parses the field `batch` of a `subscribe`. @throws RP_ERR_INVALID_DATA */
function readBatch (batch: unknown): boolean {
  if (batch === undefined || typeof batch === 'boolean') return batch === true
  throw new errors.RP_ERR_INVALID_DATA(`Expected a boolean as 'batch', got ${show(batch)}`)
}
