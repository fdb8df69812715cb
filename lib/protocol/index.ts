/** What server and client share; the subpath `fastify-rohrpost/protocol`. */
export { CloseCode, ErrorCode } from './codes.ts'
export { contract, type CallSchemas, type Contract, type GroupSchemas } from './contract.ts'
export { type Envelope, type MessageId } from './decode.ts'
export {
  envelopes,
  ErrorSchema,
  ReplySchema,
  RequestSchema,
  SubscriptionUpdateSchema,
  type ErrorMessage,
  type Reply,
  type Request,
  type SubscriptionUpdate
} from './schemas.ts'
