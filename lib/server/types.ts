/** Public types of the server: messages, connections, handlers, group types, contracts and `app.rohrpost`. */
import type { Static, TSchema } from '@sinclair/typebox'
import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify'
import type { BrokerHealth } from '../brokers/broker.ts'
import type { Contract } from '../protocol/contract.ts'
import type { MessageId } from '../protocol/decode.ts'
import type { envelopes } from '../protocol/schemas.ts'

/**
 * Message to one client. Its keys are sent in the order `id`, `type`, `error`, `data`, then all others. At least one
 * key is required.
 */
export interface OutgoingMessage {
  /** Id of the request that this message answers. `null` and `undefined` are left out. */
  id?: MessageId | undefined
  type?: string | undefined
  /** Error message for people. */
  error?: string | undefined
  /** Any value with a JSON form. It is sent unless it is `undefined`. */
  data?: unknown
  /** Error code for programs. */
  code?: string | undefined
  [extension: string]: unknown
}

/**
 * Message that a handler receives: all fields that the client sent. `data` is validated if the handler has a schema for
 * it.
 */
export interface RohrpostMessage<Data = unknown, Reply = unknown> {
  readonly id: MessageId
  readonly type: string
  readonly data: Data
  /** Signal that aborts when the connection closes or `handlerTimeout` passes. It is created on first access. */
  readonly signal: AbortSignal
  /**
   * Sends the reply, with the `type` of the request or another one. A request has one reply: later calls are logged and
   * send nothing.
   */
  reply (data?: Reply, options?: { type?: string }): void
  readonly [field: string]: unknown
}

/**
 * Connection of one client, from `onConnect` until its socket closes. On a closed connection, `send` and `join` do
 * nothing.
 */
export interface RohrpostConnection {
  /** UUID of the connection, unique across all processes. */
  readonly id: string
  /** Upgrade request, with cookies, session and user. */
  readonly request: FastifyRequest
  /** Logger of the upgrade request. */
  readonly log: FastifyBaseLogger
  /** Groups of which the connection is a member; in `onDisconnect`, the groups of which it was a member. */
  readonly groups: ReadonlySet<string>
  /**
   * Adds the connection to a group; a second call for the same group has no effect. With a synchronous broker
   * (`memoryBroker`) the connection is a member when the call returns, otherwise when the promise resolves.
   *
   * @throws RP_ERR_INVALID_GROUP, RP_ERR_TOO_MANY_GROUPS; rejects with RP_ERR_UNAVAILABLE if the broker fails: the
   * connection is not a member then, and a retry can help. The failure is also logged, so the promise may be ignored.
   */
  join (group: string): void | Promise<void>
  /** Removes the connection from a group. It has no effect if the connection is not a member. */
  leave (group: string): void
  /** Sends a message. @throws RP_ERR_EMPTY_MESSAGE, RP_ERR_INVALID_MESSAGE, RP_ERR_NOT_ENCODABLE */
  send (message: OutgoingMessage): void
  /** Sends a reply, which requires `id` and `type`. @throws the errors of `send` */
  sendSuccess (message: { id: MessageId, type: string, data?: unknown }): void
  /** Sends an error, which requires `error`. @throws the errors of `send` */
  sendError (message: {
    id?: MessageId | undefined
    type?: string | undefined
    error: string
    data?: unknown
    code?: string | undefined
  }): void
  /**
   * Closes the connection after all messages that were sent before. A handler that closes its own connection calls
   * `message.reply` first.
   *
   * @param code 1000 to 1003, 1007 to 1014, or 3000 to 4999; 1000 by default
   * @param reason at most 123 bytes of UTF-8
   * @throws RP_ERR_INVALID_CLOSE
   */
  close (code?: number, reason?: string): void
}

/**
 * Handler of requests. Its returned or resolved value becomes `data` of the reply, and a thrown error becomes an error
 * reply.
 */
export type Handler<Data = unknown, Reply = unknown> = (
  this: FastifyInstance,
  message: RohrpostMessage<Data, Reply>,
  connection: RohrpostConnection
) => Reply | void | Promise<Reply | void>

/** Middleware around every handler and `authorize`. It returns the result of `next()`. */
export type Middleware = (
  this: FastifyInstance,
  message: RohrpostMessage,
  connection: RohrpostConnection,
  next: () => unknown
) => unknown

/** Schemas of one handler, compiled when it is registered. Values are neither coerced nor filled with defaults. */
export interface HandlerSchemas<Data extends TSchema = TSchema, Reply extends TSchema = TSchema> {
  data?: Data
  reply?: Reply
}

/** Options of one handler. */
export interface HandlerOptions<Data extends TSchema = TSchema, Reply extends TSchema = TSchema>
  extends HandlerSchemas<Data, Reply> {
  /**
   * Whether requests run in parallel to the other requests of their connection, at most 16 at a time. All others run in
   * order, see the option `concurrency`.
   *
   * @defaultValue `false`
   */
  parallel?: boolean
}

/** `data` of `subscribe` and `unsubscribe`. */
export interface SubscribeData<Id> {
  type: string
  id: Id
}

/** Type of the id in `subscribe`, by the schema of the group type: string or number by default, none for `false`. */
export type SubscribeId<Id extends TSchema | false> = Id extends TSchema
  ? TSchema extends Id ? string | number : Static<Id>
  : undefined

/** Declaration of a group type, to whose groups clients can subscribe. */
export interface GroupOptions<Id extends TSchema | false = TSchema> {
  /**
   * Decides whether a client may join a group: only `true` admits it. A thrown error becomes an error reply, as in a
   * handler.
   */
  authorize (
    this: FastifyInstance,
    message: RohrpostMessage<SubscribeData<SubscribeId<Id>>>,
    connection: RohrpostConnection
  ): boolean | Promise<boolean>
  /**
   * Schema of the group's id: a string, a number, or for composite keys an array of at least two of them. `false`
   * declares a single group whose name is the type. With the default schema or the format `uuid`, `authorize` receives
   * UUIDs in lower case.
   *
   * @defaultValue a UUID, or a non-negative integer of at most 64 bits, as a string if it is not a safe integer
   */
  id?: Id
}

/** Static type of a schema; `unknown` if there is none. */
type Typed<Schema> = Schema extends TSchema ? Static<Schema> : unknown

/** Implementation of a call: its handler, alone or with the option `parallel`. */
export type CallImplementation<Data, Reply> =
  | Handler<Data, Reply>
  | { readonly parallel?: boolean, readonly handler: Handler<Data, Reply> }

/** Implementations of all calls of a contract. */
export type CallImplementations<Calls> = {
  readonly [Name in keyof Calls]: CallImplementation<
    Typed<Calls[Name] extends { readonly data: infer Data } ? Data : undefined>,
    Typed<Calls[Name] extends { readonly reply: infer Reply } ? Reply : undefined>
  >
}

/** Implementations of all group types of a contract. */
export type GroupImplementations<GroupTypes> = {
  readonly [Type in keyof GroupTypes]: Pick<
    GroupOptions<GroupTypes[Type] extends { readonly id: infer Id extends TSchema | false } ? Id : TSchema>,
    'authorize'
  >
}

/** Implementation of a contract: a handler for each call, and `authorize` for each group type. */
export type Implementation<C extends Contract> =
  & (C extends { readonly calls: infer Calls }
    ? { readonly calls: CallImplementations<Calls> }
    : { readonly calls?: never })
  & (C extends { readonly groups: infer GroupTypes }
    ? { readonly groups: GroupImplementations<GroupTypes> }
    : { readonly groups?: never })

/** Options of `app.rohrpost.sendToGroup`. */
export interface SendToGroupOptions {
  /**
   * MikroORM EntityManager, of an ORM that is registered with `rohrpostMikroOrm`. Without a running transaction it has
   * no effect.
   */
  em?: { getTransactionContext (): unknown } | undefined
}

/** State for a health route. */
export interface Health {
  /** Whether the broker is healthy and the server accepts connections. */
  ok: boolean
  broker: BrokerHealth
  /** Number of connections of this process. */
  connections: number
  /** Whether the graceful stop has begun. */
  draining: boolean
}

/**
 * API of `app.rohrpost`. In handlers, middleware and `authorize`, `this` is the Fastify instance on which they were
 * registered.
 */
export interface Rohrpost {
  /**
   * Registers a handler for one or several message types, at any time. The built-in handlers of `ping`, `subscribe` and
   * `unsubscribe` can be replaced once.
   *
   * @throws RP_ERR_DUPLICATE_HANDLER, RP_ERR_INVALID_HANDLER, RP_ERR_INVALID_SCHEMA; no type is registered then
   */
  handle<Data extends TSchema, Reply extends TSchema> (
    type: string | readonly string[],
    options: { data: Data, reply: Reply, parallel?: boolean },
    handler: Handler<Static<Data>, Static<Reply>>
  ): this
  handle<Data extends TSchema> (
    type: string | readonly string[],
    options: { data: Data, parallel?: boolean },
    handler: Handler<Static<Data>>
  ): this
  handle<Reply extends TSchema> (
    type: string | readonly string[],
    options: { reply: Reply, parallel?: boolean },
    handler: Handler<unknown, Static<Reply>>
  ): this
  handle (type: string | readonly string[], options: { parallel?: boolean }, handler: Handler): this
  handle (type: string | readonly string[], handler: Handler): this
  /**
   * Declares a group type: clients can subscribe to the groups `type-id` for which `authorize` returns `true`.
   *
   * @param type a letter, then letters, digits, `_` or `.`
   * @throws RP_ERR_INVALID_GROUP_TYPE, RP_ERR_DUPLICATE_GROUP_TYPE, RP_ERR_INVALID_HANDLER, RP_ERR_INVALID_SCHEMA
   */
  group<Id extends TSchema | false = TSchema> (type: string, options: GroupOptions<Id>): this
  /**
   * Registers the handlers of all calls and declares all group types of a contract, like `handle` and `group`.
   *
   * @throws the errors of these, and RP_ERR_INVALID_HANDLER if a name is missing or not in the contract
   */
  implement<C extends Contract> (contract: C, implementation: Implementation<C>): this
  /**
   * Adds a middleware around every handler and `authorize`, inside the middlewares that were added before. The built-in
   * `ping` and `unsubscribe` run without middleware.
   */
  use (middleware: Middleware): this
  /**
   * Sends a message to all members of a group, on every process. A string is sent as it is (`""` is not sent), any
   * other value as JSON. With `em` in a transaction, the message is sent when that commits, in order with the change
   * notifications of the transaction. A rollback drops it, also one to a savepoint.
   *
   * @returns resolves when the broker has accepted the message, or when it is in the change log of the transaction;
   * rejects with RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT (if the broker keeps history),
   * RP_ERR_UNKNOWN_OPTION, RP_ERR_UNKNOWN_ENTITY_MANAGER or the error of the broker. A rejection is also logged, so the
   * promise may be ignored.
   */
  sendToGroup (group: string, message: unknown, options?: SendToGroupOptions): Promise<void>
  /**
   * Closes connections: on every process the members of a group, including connections whose `subscribe` is not
   * answered yet; or on this process the connections for which a predicate returns `true`. These connections leave all
   * groups at once. Messages already sent go out first, running handlers have one second to reply, and waiting messages
   * are dropped.
   *
   * @param code a code for `connection.close`; 4403 by default
   * @param reason at most 123 bytes of UTF-8
   * @returns resolves when the broker has accepted the command, or when the connections of this process are closing;
   * rejects with RP_ERR_INVALID_GROUP, RP_ERR_INVALID_PREDICATE, RP_ERR_INVALID_CLOSE, the error of the broker or the
   * error of the predicate; no connection is closed then. A rejection is also logged, so the promise may be ignored.
   */
  disconnect (
    target: string | ((connection: RohrpostConnection) => boolean),
    code?: number,
    reason?: string
  ): Promise<void>
  /** Schemas of all envelopes, and the schemas of the handlers by message type. */
  readonly schemas: typeof envelopes & { readonly handlers: Readonly<Record<string, Readonly<HandlerSchemas>>> }
  /** Live connections of this process. */
  readonly connections: ReadonlySet<RohrpostConnection>
  /** Returns the state of broker and connections, for a health route. */
  health (): Health
  /**
   * Starts the graceful stop: new connections are refused, running handlers have `drainTimeout` to reply, then all
   * connections are closed with code 1012. `app.close()` calls it too.
   */
  drain (): Promise<void>
}
