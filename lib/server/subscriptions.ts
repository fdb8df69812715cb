/** The built-in `subscribe` and `unsubscribe`: which groups clients may join by themselves. */
import type { TSchema } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Position } from '../brokers/broker.ts'
import { errors, show } from '../errors.ts'
import type { Start } from './group.ts'
import { canonicalId, checkDefaultId, checkKey, checkNoId, groupName, hasUuidFormat, type GroupKey } from './group-id.ts'
import { GroupUse } from './group-use.ts'
import { checkName } from './groups.ts'
import type { Registry } from './registry.ts'
import type { Check } from './schema.ts'
import type { GroupOptions, Handler, RohrpostConnection, RohrpostMessage } from './types.ts'

/** A connection as the built-in handlers need it. */
export interface Subscriber extends RohrpostConnection {
  /** Does what `join` does; `joined` is called at the moment when the connection is a member, before anything of the group is heard. */
  joinThen (group: string, joined: () => void): void | Promise<void>
  /** The same with positions; `started` returns whether the client was told. */
  follow (group: string, after: Position | undefined, started: (start: Start) => boolean): void | Promise<void>
  /** Resolves when all that was to be replayed to the client is on its way. */
  replayed (): Promise<void>
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

const GROUP_TYPE = /^[A-Za-z][\w.]*$/

/** The group types of one server, and the handlers that let clients in and out. */
export class Subscriptions {
  /** Which types are in use. */
  readonly use = new GroupUse()
  readonly #types = new Map<string, GroupType>()
  readonly #registry: Registry
  /** The last `subscribe` or `unsubscribe` under way for each connection and group. */
  readonly #tails = new WeakMap<Subscriber, Map<string, Promise<void>>>()

  constructor (registry: Registry, instance: FastifyInstance) {
    this.#registry = registry
    registry.add(instance, 'subscribe', undefined, (message: SubscribeMessage, connection: Subscriber) => this.#subscribe(message, connection), 'built-in')
    registry.add(instance, 'unsubscribe', undefined, (message: SubscribeMessage, connection: Subscriber) => this.#unsubscribe(message, connection), 'built-in')
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
      checkId: id === undefined ? checkDefaultId : id === false ? checkNoId : this.#registry.compile(id, 'id', type),
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
    if (key !== undefined) message.data.id = key
    const recover = readRecover(message.recover)

    return this.#inOrder(connection, group, async () => {
      const allowed = await this.#registry.call(declared.authorize, declared.instance, message as RohrpostMessage<never, never>, connection)
      if (allowed !== true) {
        if (allowed !== false) connection.log.warn({ group }, `a subscription is denied: 'authorize' gave a value of type ${typeof allowed}, and only true lets in`)
        throw new errors.RP_ERR_ACCESS_DENIED()
      }

      // a client that was told of a time-out does not expect to be a member
      message.signal.throwIfAborted()
      // one client's replays do not pile up in memory: the next one is read when those before are on their way
      if (recover?.after !== undefined) await unlessAborted(connection.replayed(), message.signal)

      const isNew = !connection.groups.has(group)
      let joined = false
      const answer = (extensions?: object) => {
        joined = true
        if (!message.signal.aborted) message.reply({ group }, { ...(extensions && { extensions }) })
        else if (isNew) connection.leave(group)
        return !message.signal.aborted
      }
      if (recover === undefined) {
        await connection.joinThen(group, answer)
      } else {
        await connection.follow(group, recover.after, ({ position, recovered }) => answer({ position: position && { group, ...position }, recovered }))
      }
      // the application took it out again while it waited for the broker
      if (!joined) throw new errors.RP_ERR_ACCESS_DENIED()
    })
  }

  #unsubscribe (message: SubscribeMessage, connection: Subscriber): Promise<void> | undefined {
    checkData(message.data)
    const { type, id } = message.data
    const declared = this.#types.get(type)
    // only what a client could subscribe to: memberships that the application made under other names are not the client's to end
    if (declared === undefined || (declared.checkId(id) ?? checkKey(id)) !== undefined) return

    const group = groupName(type, this.#canonical(declared, type, id))
    return this.#inOrder(connection, group, async () => {
      connection.leave(group)
      message.reply()
    })
  }

  /** An id that was checked, in the one form that names its group. */
  #canonical ({ isDefault, isUuid }: GroupType, type: string, id: unknown): GroupKey {
    return canonicalId(id as GroupKey, isDefault, (part) => this.use.isUuid(type, part) ?? isUuid)
  }

  /** Runs a task after those that came before it for the same connection and group. */
  #inOrder (connection: Subscriber, group: string, task: () => Promise<void>): Promise<void> {
    let tails = this.#tails.get(connection)
    if (tails === undefined) this.#tails.set(connection, tails = new Map())

    const before = tails.get(group)
    const done = before === undefined ? task() : before.then(task)
    const tail = done.catch(() => {}).then(() => {
      if (tails.get(group) === tail) tails.delete(group)
      if (tails.size === 0) this.#tails.delete(connection)
    })
    tails.set(group, tail)
    return done
  }
}

/** Checks `data` of `subscribe` and `unsubscribe`, with the texts of TypeBox, which need not be installed. @throws RP_ERR_INVALID_DATA */
function checkData (data: unknown): void {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) throw new errors.RP_ERR_INVALID_DATA('Expected object')
  if (!('type' in data)) throw new errors.RP_ERR_INVALID_DATA("Expected required property at '/type'")
  if (typeof data.type !== 'string') throw new errors.RP_ERR_INVALID_DATA("Expected string at '/type'")
}

/** What a client asks for with `recover`: positions, and what came after one of them. @throws RP_ERR_INVALID_DATA */
function readRecover (recover: unknown): { after: Position | undefined } | undefined {
  if (recover === undefined) return undefined
  if (recover === true) return { after: undefined }

  const { epoch, offset } = Object(recover) as Partial<Record<keyof Position, unknown>>
  if (typeof epoch === 'string' && Number.isSafeInteger(offset) && Number(offset) >= 0) return { after: { epoch, offset: Number(offset) } }
  throw new errors.RP_ERR_INVALID_DATA(`Expected true, or an object { epoch, offset } as 'recover', got ${show(recover)}`)
}

/** Waits for a promise, or for the signal, with whose reason it rejects. */
function unlessAborted (promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<void>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort)
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', abort))
}
