/**
 * TypeBox schemas of all protocol messages. PROTOCOL.md describes the same; a test validates its examples with these
 * schemas.
 */
import { Type, type Static } from '@sinclair/typebox'

const Id = Type.Union([
  Type.String(),
  Type.Number({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }),
  Type.Boolean(),
  Type.Null()
], {
  description: 'Chosen by the client and echoed by the server; null stands for "no id".'
})

/** Client to server: request for the handler of `type`. Additional fields are passed to the handler. */
export const RequestSchema = Type.Object({
  id: Id,
  type: Type.String(),
  data: Type.Optional(Type.Unknown())
}, { additionalProperties: true, $id: 'rohrpost.request' })

/** Server to client: the request with this `id` succeeded. A reply without `data` is an acknowledgement. */
export const ReplySchema = Type.Object({
  id: Type.Optional(Id),
  type: Type.String(),
  error: Type.Optional(Type.Never()),
  data: Type.Optional(Type.Unknown())
}, { additionalProperties: true, $id: 'rohrpost.reply' })

/**
 * Server to client: the request with this `id` failed. A malformed request gets an error without `type`, and without
 * `id` if it is unreadable.
 */
export const ErrorSchema = Type.Object({
  id: Type.Optional(Id),
  type: Type.Optional(Type.String()),
  error: Type.String({ description: 'For people to read.' }),
  data: Type.Optional(Type.Unknown()),
  code: Type.Optional(Type.String({ description: 'For programs to read, see ErrorCode.' })),
  retry: Type.Optional(Type.Literal(true, { description: 'A retry can help.' })),
  retry_after: Type.Optional(Type.Number({ minimum: 0, description: 'Milliseconds to wait before a retry.' })),
  error_id: Type.Optional(Type.String({ description: 'Identifies an internal error in the log of the server.' }))
}, { additionalProperties: true, $id: 'rohrpost.error' })

/** Position of a message in the history of a group. Positions of different epochs cannot be compared. */
export const PositionSchema = Type.Object({
  group: Type.String(),
  epoch: Type.String(),
  offset: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
}, { $id: 'rohrpost.position' })

const Change = Type.Object({
  type: Type.Union([Type.Literal('create'), Type.Literal('update'), Type.Literal('delete')]),
  object: Type.Unknown({
    description: 'The object as the server shows it; `updated_fields` lists what an update changed.'
  })
})

/** Server to client, without a request: an object of a group was created, updated or deleted. */
export const SubscriptionUpdateSchema = Type.Object({
  id: Type.Number({ description: 'Chosen by the server. It is not the id of a request.' }),
  type: Type.Literal('subscription-update'),
  data: Type.Object({
    group: Type.String(),
    ...Change.properties
  }),
  position: Type.Optional(PositionSchema)
}, { additionalProperties: true, $id: 'rohrpost.subscription-update' })

/** Server to client, without a request, for subscriptions with batches: the changes of one transaction in a group. */
export const SubscriptionBatchSchema = Type.Object({
  id: Type.Number({ description: 'Chosen by the server. It is not the id of a request.' }),
  type: Type.Literal('subscription-update'),
  data: Type.Object({
    group: Type.String(),
    type: Type.Literal('batch'),
    changes: Type.Array(Change, { minItems: 1, description: 'In order; a client shows all of them or none.' })
  }),
  position: Type.Optional(PositionSchema)
}, { additionalProperties: true, $id: 'rohrpost.subscription-batch' })

/**
 * Server to client, without a request, for subscriptions with positions: messages of a group are lost; the next one
 * follows `position`.
 */
export const ResyncSchema = Type.Object({
  type: Type.Literal('subscription-update'),
  data: Type.Object({ type: Type.Literal('resync'), group: Type.String() }),
  position: Type.Optional(PositionSchema),
  spread: Type.Optional(Type.Number({
    minimum: 0,
    description: 'Milliseconds over which clients should spread their loads.'
  }))
}, { additionalProperties: true, $id: 'rohrpost.resync' })

/** `data` of `subscribe` and `unsubscribe`. The server validates it without TypeBox, with the same error messages. */
export const SubscribeDataSchema = Type.Object({
  type: Type.String(),
  id: Type.Optional(Type.Unknown({ description: 'Its schema depends on the group type.' }))
})

/** Server to client, without a request, after a hello: the next message is a large one. */
export const IncomingSchema = Type.Object({
  type: Type.Literal('incoming'),
  bytes: Type.Integer({ minimum: 0 })
}, { additionalProperties: true, $id: 'rohrpost.incoming' })

/** Schemas of all envelopes by name. */
export const envelopes = {
  request: RequestSchema,
  reply: ReplySchema,
  error: ErrorSchema,
  subscriptionUpdate: SubscriptionUpdateSchema,
  subscriptionBatch: SubscriptionBatchSchema,
  resync: ResyncSchema,
  incoming: IncomingSchema,
  position: PositionSchema
} as const

/** Request, client to server. */
export type Request = Static<typeof RequestSchema>
/** Reply, server to client. */
export type Reply = Static<typeof ReplySchema>
/** Error, server to client. */
export type ErrorMessage = Static<typeof ErrorSchema>
/** Change notification, server to client. */
export type SubscriptionUpdate = Static<typeof SubscriptionUpdateSchema>
/** Changes of one transaction, server to client. */
export type SubscriptionBatch = Static<typeof SubscriptionBatchSchema>
/** Notice of lost messages, server to client. */
export type Resync = Static<typeof ResyncSchema>
