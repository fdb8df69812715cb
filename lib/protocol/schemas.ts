/** TypeBox schemas of everything that travels. PROTOCOL.md has the same in words; a test holds its examples against these. */
import { Type, type Static } from '@sinclair/typebox'

const Id = Type.Union([
  Type.String(),
  Type.Number({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }),
  Type.Boolean(),
  Type.Null()
], {
  description: 'Chosen by the client and echoed by the server; null stands for "no id".'
})

/** Client to server: ask the handler of `type` to do something. Further fields reach the handler as they are. */
export const RequestSchema = Type.Object({
  id: Id,
  type: Type.String(),
  data: Type.Optional(Type.Unknown())
}, { additionalProperties: true, $id: 'rohrpost.request' })

/** Server to client: the request with this `id` succeeded. Without `data` it is a bare acknowledgement. */
export const ReplySchema = Type.Object({
  id: Type.Optional(Id),
  type: Type.String(),
  error: Type.Optional(Type.Never()),
  data: Type.Optional(Type.Unknown())
}, { additionalProperties: true, $id: 'rohrpost.reply' })

/** Server to client: the request with this `id` failed, or could not be read (then without `type`, perhaps without `id`). */
export const ErrorSchema = Type.Object({
  id: Type.Optional(Id),
  type: Type.Optional(Type.String()),
  error: Type.String({ description: 'For people to read.' }),
  data: Type.Optional(Type.Unknown()),
  code: Type.Optional(Type.String({ description: 'For programs to read, see ErrorCode.' })),
  retry: Type.Optional(Type.Literal(true, { description: 'Trying again can help.' })),
  retry_after: Type.Optional(Type.Number({ minimum: 0, description: 'Milliseconds to wait before that.' })),
  error_id: Type.Optional(Type.String({ description: 'Names a failure of the server, for its log.' }))
}, { additionalProperties: true, $id: 'rohrpost.error' })

/** A place in a group's log. Positions of different epochs can't be compared. */
export const PositionSchema = Type.Object({
  group: Type.String(),
  epoch: Type.String(),
  offset: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
}, { $id: 'rohrpost.position' })

/** Server to client, unasked: an object that a group watches was created, updated or deleted. */
export const SubscriptionUpdateSchema = Type.Object({
  id: Type.Number({ description: 'Chosen by the server, answers nothing.' }),
  type: Type.Literal('subscription-update'),
  data: Type.Object({
    group: Type.String(),
    type: Type.Union([Type.Literal('create'), Type.Literal('update'), Type.Literal('delete')]),
    object: Type.Unknown({ description: 'The object as the server shows it; `updated_fields` lists what an update changed.' })
  }),
  position: Type.Optional(PositionSchema)
}, { additionalProperties: true, $id: 'rohrpost.subscription-update' })

/** Server to client, unasked, to those who asked for positions: messages of a group are lost, it goes on after `position`. */
export const ResyncSchema = Type.Object({
  type: Type.Literal('subscription-update'),
  data: Type.Object({ type: Type.Literal('resync'), group: Type.String() }),
  position: Type.Optional(PositionSchema),
  spread: Type.Optional(Type.Number({ minimum: 0, description: 'Milliseconds over which clients are to load again.' }))
}, { additionalProperties: true, $id: 'rohrpost.resync' })

/** `data` of `subscribe` and `unsubscribe`. The server checks it by hand, with the same texts. */
export const SubscribeDataSchema = Type.Object({
  type: Type.String(),
  id: Type.Optional(Type.Unknown({ description: 'What it may be is the business of the group type.' }))
})

/** Server to client, unasked, to those who said hello: the next message is a large one. */
export const IncomingSchema = Type.Object({
  type: Type.Literal('incoming'),
  bytes: Type.Integer({ minimum: 0 })
}, { additionalProperties: true, $id: 'rohrpost.incoming' })

/** The schemas of all envelopes by name. */
export const envelopes = {
  request: RequestSchema,
  reply: ReplySchema,
  error: ErrorSchema,
  subscriptionUpdate: SubscriptionUpdateSchema,
  resync: ResyncSchema,
  incoming: IncomingSchema,
  position: PositionSchema
} as const

/** A request, client to server. */
export type Request = Static<typeof RequestSchema>
/** A reply, server to client. */
export type Reply = Static<typeof ReplySchema>
/** An error, server to client. */
export type ErrorMessage = Static<typeof ErrorSchema>
/** A change notification, server to client. */
export type SubscriptionUpdate = Static<typeof SubscriptionUpdateSchema>
/** A notice of lost messages, server to client. */
export type Resync = Static<typeof ResyncSchema>
