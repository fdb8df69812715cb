/** The built-in `subscribe` and `unsubscribe`: which groups clients may join by themselves. */
import type { TSchema } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Position } from '../../brokers/broker.ts'
import { errors, show } from '../../errors.ts'
import type { Recover, Start } from './catch-up.ts'
import { canonicalId, checkDefaultId, checkKey, checkNoId, groupName, hasUuidFormat, keyText, splitKey, type GroupKey } from './group-id.ts'
import { GroupUse } from './group-use.ts'
import { checkName } from './groups.ts'
import type { PendingSubscribe } from './pending-subscribe.ts'
import type { MiddlewareChain } from '../requests/middleware.ts'
import type { Registry } from '../requests/registry.ts'
import type { Check, SchemaCompiler } from '../requests/schema.ts'
import type { GroupOptions, Handler, RohrpostConnection, RohrpostMessage } from '../types.ts'

/** A connection as the built-in handlers need it. */
export interface Subscriber extends RohrpostConnection {
  /** Makes a `subscribe` known to the connection: from now on whatever ends a membership of the group ends the subscribe. */
  beginSubscribe (group: string): PendingSubscribe
  /**
   * Makes the connection a member.
   *
   * @param reply called at the moment of membership, before the first message of the group
   * @throws RP_ERR_TOO_MANY_GROUPS, RP_ERR_UNAVAILABLE, the reason of the cancellation
   */
  subscribe (pending: PendingSubscribe, recover: Recover | undefined, reply: (start: Start | undefined) => void): Promise<void>
  /** Resolves when everything that was to be replayed to the client is on its way. @throws the reason of the cancellation */
  replayed (pending: PendingSubscribe): Promise<void>
  /** Ends a membership, but no pending subscribe. */
  unsubscribe (group: string): void
}

/** A declared group type. */
interface GroupType {
  authorize: Handler<never>
  instance: FastifyInstance
  checkId: Check
  /** Whether the id has no schema of its own. */
  isDefault: boolean
  /** Whether the schema of the id says that it is a UUID. */
  isUuid: boolean
}

interface SubscribeMessage extends RohrpostMessage<{ type: string, id?: unknown }> {
  reply (data?: unknown, options?: { type?: string, extensions?: object }): void
}

/** A checked `subscribe`. */
interface Subscribe {
  pending: PendingSubscribe
  /** The end of the `subscribe` or `unsubscribe` before it, of the same connection and group. */
  before: Promise<void> | undefined
  recover: Recover | undefined
  declared: GroupType
}

const GROUP_TYPE = /^[A-Za-z][\w.]*$/

/** The group types of one server, and the handlers that let clients in and out. */
export class Subscriptions {
  /** Which types are in use. */
  readonly use = new GroupUse()
  readonly #types = new Map<string, GroupType>()
  readonly #schemas: SchemaCompiler
  readonly #middlewares: MiddlewareChain
  /** The end of the last `subscribe` or `unsubscribe` under way, for each connection and group. */
  readonly #tails = new WeakMap<Subscriber, Map<string, Promise<void>>>()

  constructor (registry: Registry, schemas: SchemaCompiler, middlewares: MiddlewareChain, instance: FastifyInstance) {
    this.#schemas = schemas
    this.#middlewares = middlewares
    const options = { parallel: true }
    registry.add(instance, 'subscribe', options, (message: SubscribeMessage, connection: Subscriber) => this.#subscribe(message, connection), 'built-in')
    registry.add(instance, 'unsubscribe', options, (message: SubscribeMessage, connection: Subscriber) => this.#unsubscribe(message, connection), 'built-in')
  }

  /** Declares a group type. @throws as `Rohrpost.group` */
  declare (instance: FastifyInstance, type: unknown, options: unknown): void {
    if (typeof type !== 'string' || !GROUP_TYPE.test(type)) throw new errors.RP_ERR_INVALID_GROUP_TYPE(typeof type === 'string' ? type : show(type))
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

  #subscribe (message: SubscribeMessage, connection: Subscriber): Promise<void> {
    checkData(message.data)
    const { type, id } = message.data
    const declared = this.#types.get(type)
    if (declared === undefined) {
      this.use.refused(type, connection.log)
      throw new errors.RP_ERR_ACCESS_DENIED()
    }

    const problem = declared.checkId(id, '/id') ?? checkKey(id)
    if (problem !== undefined) throw new errors.RP_ERR_INVALID_DATA(problem)
    const key = this.#canonical(declared, type, id)
    const group = groupName(type, key)
    checkName(group)
    // `authorize` must decide on the id that names the group: two texts of one UUID may be two rows of a database that minds the case
    if (key !== undefined) message.data.id = typeof id === 'string' && typeof key === 'object' ? keyText(key) : key
    const recover = readRecover(message.recover)

    const pending = connection.beginSubscribe(group)
    const before = this.#enqueue(connection, group, pending.ended)
    return this.#join({ pending, before, recover, declared }, message, connection)
  }

  async #join ({ pending, before, recover, declared }: Subscribe, message: SubscribeMessage, connection: Subscriber): Promise<void> {
    const { group } = pending
    const { signal } = message
    const abort = () => pending.cancel(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      if (before !== undefined) await pending.wait(before)
      const allowed = await this.#middlewares.call(declared.authorize, declared.instance, message as RohrpostMessage<never, never>, connection)
      // the membership may have ended while the application thought about it
      pending.check()
      if (allowed !== true) {
        if (allowed !== false) connection.log.warn({ group }, `a subscription is denied: 'authorize' gave a value of type ${typeof allowed}, and only true lets in`)
        throw new errors.RP_ERR_ACCESS_DENIED()
      }

      // one client's replays do not pile up in memory: the next one is read when those before are on their way
      if (recover?.after !== undefined) await connection.replayed(pending)
      await connection.subscribe(pending, recover, (start) => message.reply({ group }, start && {
        extensions: {
          position: start.position && { group, ...start.position },
          recovered: start.recovered,
          top: start.top && { group, ...start.top }
        }
      }))
    } finally {
      pending.cancel()
      signal.removeEventListener('abort', abort)
    }
  }

  #unsubscribe (message: SubscribeMessage, connection: Subscriber): Promise<void> | void {
    checkData(message.data)
    const { type, id } = message.data
    const declared = this.#types.get(type)
    // only what a client could subscribe to: memberships that the application made under other names are not the client's to end
    if (declared === undefined || (declared.checkId(id) ?? checkKey(id)) !== undefined) return

    const group = groupName(type, this.#canonical(declared, type, id))
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const before = this.#enqueue(connection, group, ended)
    const run = () => {
      connection.unsubscribe(group)
      if (!message.signal.aborted) message.reply()
      end()
    }
    return before === undefined ? run() : before.then(run)
  }

  /** An id that was checked, in the one form that names its group. */
  #canonical ({ isDefault, isUuid }: GroupType, type: string, id: unknown): GroupKey {
    const parts = typeof id === 'string' ? splitKey(id, this.use.parts(type)) : undefined
    return canonicalId(parts ?? id as GroupKey, isDefault, (part) => this.use.isUuid(type, part) ?? isUuid)
  }

  /** Enters a task into the order of those of one connection and group. @returns the end of the task before it */
  #enqueue (connection: Subscriber, group: string, ended: Promise<void>): Promise<void> | undefined {
    let tails = this.#tails.get(connection)
    if (tails === undefined) this.#tails.set(connection, tails = new Map())

    const before = tails.get(group)
    // a task that was cancelled ends at once, but still not before those that came before it
    const tail = Promise.all([before, ended]).then(() => {
      if (tails.get(group) === tail) tails.delete(group)
      if (tails.size === 0) this.#tails.delete(connection)
    })
    tails.set(group, tail)
    return before
  }
}

/** Checks `data` of `subscribe` and `unsubscribe`, with the texts of TypeBox, which need not be installed. @throws RP_ERR_INVALID_DATA */
function checkData (data: unknown): void {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) throw new errors.RP_ERR_INVALID_DATA('Expected object')
  if (!('type' in data)) throw new errors.RP_ERR_INVALID_DATA("Expected required property at '/type'")
  if (typeof data.type !== 'string') throw new errors.RP_ERR_INVALID_DATA("Expected string at '/type'")
}

/** What a client asks for with `recover`: positions, and what came after one of them. @throws RP_ERR_INVALID_DATA */
function readRecover (recover: unknown): Recover | undefined {
  if (recover === undefined) return undefined
  if (recover === true) return { after: undefined }

  const { epoch, offset } = Object(recover) as Partial<Record<keyof Position, unknown>>
  if (typeof epoch === 'string' && Number.isSafeInteger(offset) && Number(offset) >= 0) return { after: { epoch, offset: Number(offset) } }
  throw new errors.RP_ERR_INVALID_DATA(`Expected true, or an object { epoch, offset } as 'recover', got ${show(recover)}`)
}
