/** The public types of the server side. Type-only. */
import type { Static, TSchema } from '@sinclair/typebox'
import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify'
import type { BrokerHealth } from '../brokers/broker.ts'
import type { Contract } from '../protocol/contract.ts'
import type { MessageId } from '../protocol/decode.ts'
import type { envelopes } from '../protocol/schemas.ts'
import type { Implementation } from './requests/implement.ts'

/** A message to one client: keys go out in the order `id`, `type`, `error`, `data`, then all others. At least one is needed. */
export interface OutgoingMessage {
  /** The id of the request that this answers; `null` and `undefined` are left out. */
  id?: MessageId | undefined
  type?: string | undefined
  /** What went wrong, for people to read. */
  error?: string | undefined
  /** Anything with a JSON form; sent unless `undefined`. */
  data?: unknown
  /** What went wrong, for programs to read. */
  code?: string | undefined
  [extension: string]: unknown
}

/** What a handler gets: the request with all fields that the client sent, `data` validated where there is a schema. */
export interface RohrpostMessage<Data = unknown, Reply = unknown> {
  readonly id: MessageId
  readonly type: string
  readonly data: Data
  /** Aborts when the client goes or the deadline passes. Made when first read. */
  readonly signal: AbortSignal
  /** Answers the request now, with the request's `type` or another. An answered request is not answered again. */
  reply (data?: Reply, options?: { type?: string }): void
  readonly [field: string]: unknown
}

/** One client, from `onConnect` until its socket closed. Once it is closed, sending to it and joining do nothing. */
export interface RohrpostConnection {
  /** Unique among all connections of all processes. */
  readonly id: string
  /** The upgrade request: cookies, session, user. */
  readonly request: FastifyRequest
  /** The upgrade request's logger. */
  readonly log: FastifyBaseLogger
  /** The groups that the connection is in; in `onDisconnect`, those it was in. */
  readonly groups: ReadonlySet<string>
  /**
   * Puts the connection into a group; once is enough. With a broker that answers at once (`memoryBroker`) it is a member when the
   * call returns, else when the promise resolves.
   *
   * @throws RP_ERR_INVALID_GROUP, RP_ERR_TOO_MANY_GROUPS; rejects with RP_ERR_UNAVAILABLE (then nothing is joined, and trying
   * again can help). A rejection that nobody awaits is logged.
   */
  join (group: string): void | Promise<void>
  /** Takes the connection out of a group; a group that it is not in is fine. */
  leave (group: string): void
  /** Sends a message. @throws RP_ERR_EMPTY_MESSAGE, RP_ERR_INVALID_MESSAGE, RP_ERR_NOT_ENCODABLE */
  send (message: OutgoingMessage): void
  /** Sends a reply; it needs `id` and `type`. @throws as `send` does */
  sendSuccess (message: { id: MessageId, type: string, data?: unknown }): void
  /** Sends an error; it needs `error`. @throws as `send` does */
  sendError (message: { id?: MessageId | undefined, type?: string | undefined, error: string, data?: unknown, code?: string | undefined }): void
  /**
   * Closes the connection; what was sent before goes out first, and nothing after. A handler replies before it closes its own connection.
   *
   * @param code 1000 to 1014 but 1004 to 1006, or 3000 to 4999; 1000 by default
   * @param reason up to 123 bytes of UTF-8
   * @throws RP_ERR_INVALID_CLOSE
   */
  close (code?: number, reason?: string): void
}

/** Answers requests: what it returns or resolves to becomes the reply's `data`, what it throws an error. */
export type Handler<Data = unknown, Reply = unknown> = (
  this: FastifyInstance,
  message: RohrpostMessage<Data, Reply>,
  connection: RohrpostConnection
) => Reply | void | Promise<Reply | void>

/** Runs around every handler and `authorize`. Returns what `next()` returns. */
export type Middleware = (
  this: FastifyInstance,
  message: RohrpostMessage,
  connection: RohrpostConnection,
  next: () => unknown
) => unknown

/** Schemas of one handler, compiled when it is registered. No coercion, no defaults. */
export interface HandlerSchemas<Data extends TSchema = TSchema, Reply extends TSchema = TSchema> {
  data?: Data
  reply?: Reply
}

/** Options of one handler. */
export interface HandlerOptions<Data extends TSchema = TSchema, Reply extends TSchema = TSchema> extends HandlerSchemas<Data, Reply> {
  /**
   * Whether requests run beside the others of their connection, up to 16 at once. The others run one after another, see the option `concurrency`.
   *
   * @defaultValue `false`
   */
  parallel?: boolean
}

/** What the client sends as `data` of `subscribe` and `unsubscribe`. */
export interface SubscribeData<Id> {
  type: string
  id: Id
}

/** The type of a group's id by its schema: by default what the default schema allows, none for `false`. */
export type GroupId<Id extends TSchema | false> = Id extends TSchema ? TSchema extends Id ? string | number : Static<Id> : undefined

/** Who may subscribe to the groups of one type. */
export interface GroupOptions<Id extends TSchema | false = TSchema> {
  /** Whether this client may join the group; only `true` lets it in. A throw is answered as that of a handler is. */
  authorize (
    this: FastifyInstance,
    message: RohrpostMessage<SubscribeData<GroupId<Id>>>,
    connection: RohrpostConnection
  ): boolean | Promise<boolean>
  /**
   * Schema of the group's id: strings, numbers, or arrays of at least two of them for composite keys. `false` declares a single group that
   * is named by the type alone. `authorize` gets a UUID in small letters, if the schema is the default or has the format `uuid`.
   *
   * @defaultValue an integer from 0 of up to 64 bits, as a text if it is not a safe one, or a UUID
   */
  id?: Id
}

/** State for a health route. */
export interface Health {
  /** Whether the broker works and the server takes connections. */
  ok: boolean
  broker: BrokerHealth
  /** Connections of this process. */
  connections: number
  /** Whether the graceful stop has begun. */
  draining: boolean
}

/** `app.rohrpost`. Handlers and `authorize` run with the Fastify instance on which they were registered as `this`. */
export interface Rohrpost {
  /**
   * Registers a handler for one or several types, at any time. `ping`, `subscribe` and `unsubscribe` are there from the start and can be
   * replaced once.
   *
   * @throws RP_ERR_DUPLICATE_HANDLER, RP_ERR_INVALID_HANDLER, RP_ERR_INVALID_SCHEMA; nothing is registered then
   */
  handle<Data extends TSchema, Reply extends TSchema> (
    type: string | readonly string[],
    options: { data: Data, reply: Reply, parallel?: boolean },
    handler: Handler<Static<Data>, Static<Reply>>
  ): this
  handle<Data extends TSchema> (type: string | readonly string[], options: { data: Data, parallel?: boolean }, handler: Handler<Static<Data>>): this
  handle<Reply extends TSchema> (
    type: string | readonly string[],
    options: { reply: Reply, parallel?: boolean },
    handler: Handler<unknown, Static<Reply>>
  ): this
  handle (type: string | readonly string[], options: { parallel?: boolean }, handler: Handler): this
  handle (type: string | readonly string[], handler: Handler): this
  /**
   * Lets clients subscribe to the groups `type-id`, if `authorize` says `true`.
   *
   * @param type a letter, then letters, digits, `_` or `.`
   * @throws RP_ERR_INVALID_GROUP_TYPE, RP_ERR_DUPLICATE_GROUP_TYPE, RP_ERR_INVALID_HANDLER, RP_ERR_INVALID_SCHEMA
   */
  group<Id extends TSchema | false = TSchema> (type: string, options: GroupOptions<Id>): this
  /**
   * Registers all calls and group types of a contract, as `handle` and `group` do.
   *
   * @throws as those do, and RP_ERR_INVALID_HANDLER if something is missing or not in the contract
   */
  implement<C extends Contract> (contract: C, implementation: Implementation<C>): this
  /** Wraps every handler and `authorize`, the first one outermost. Built-in `ping` and `unsubscribe` are not wrapped. */
  use (middleware: Middleware): this
  /**
   * Sends to all members of a group, on every process: a ready-made string as it is (`""` is not sent), anything else as JSON.
   *
   * @returns resolves when the broker has the message; rejects with RP_ERR_INVALID_GROUP, RP_ERR_NOT_ENCODABLE, RP_ERR_NOT_AN_OBJECT (where
   * the broker keeps history) or the broker's error, which is logged too, so that nobody has to await it
   */
  sendToGroup (group: string, message: unknown): Promise<void>
  /**
   * Closes connections: those in a group, also one that they are about to join, on every process; or those of this process for which a
   * predicate says `true`. They leave their groups at once. What was sent to them before goes out first, handlers that run have a second to answer,
   * and messages that wait are not handled any more.
   *
   * @param code as for `connection.close`; 4403 by default
   * @param reason up to 123 bytes of UTF-8
   * @returns resolves when the broker has it, or when those of this process are closing; rejects with RP_ERR_INVALID_GROUP,
   * RP_ERR_INVALID_PREDICATE, RP_ERR_INVALID_CLOSE, the broker's error, or what the predicate throws (then it closes nobody), which
   * is logged too, so that nobody has to await it
   */
  disconnect (target: string | ((connection: RohrpostConnection) => boolean), code?: number, reason?: string): Promise<void>
  /** The schemas of all envelopes, and those of the handlers by type. */
  readonly schemas: typeof envelopes & { readonly handlers: Readonly<Record<string, Readonly<HandlerSchemas>>> }
  /** The live connections of this process. */
  readonly connections: ReadonlySet<RohrpostConnection>
  /** State of broker and connections. */
  health (): Health
  /**
   * Begins the graceful stop: new connections are refused, running handlers answer (up to the option `drainTimeout`), then all are closed with
   * 1012. `app.close()` does it too.
   */
  drain (): Promise<void>
}

/** What an application does when clients come and go. */
export interface ConnectionHooks {
  /**
   * Lets a client in, or throws to close its connection: with 4403, or with 1013 or 1011 if the error is temporary or a bug. Messages that arrive
   * meanwhile are kept.
   */
  onConnect?: ((connection: RohrpostConnection) => void | Promise<void>) | undefined
  /** Called once for every connection that `onConnect` let in, after it left all groups. */
  onDisconnect?: ((connection: RohrpostConnection, code: number, reason: string) => void | Promise<void>) | undefined
}
