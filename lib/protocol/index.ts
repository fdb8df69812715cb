/** Protocol of server and client: the subpath `fastify-rohrpost/protocol`. */
export { CloseCode, ErrorCode } from './codes.ts'
export { contract, type CallSchemas, type Contract, type GroupSchemas } from './contract.ts'
export { type Envelope, type MessageId } from './decode.ts'
export {
  envelopes,
  ErrorSchema,
  IncomingSchema,
  PositionSchema,
  ReplySchema,
  RequestSchema,
  ResyncSchema,
  SubscriptionBatchSchema,
  SubscriptionUpdateSchema,
  type ErrorMessage,
  type Reply,
  type Request,
  type Resync,
  type SubscriptionBatch,
  type SubscriptionUpdate
} from './schemas.ts'
