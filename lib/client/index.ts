/** The client for browsers and Node.js; the subpath `fastify-rohrpost/client`. */
export { RohrpostClient, RohrpostClient as default } from './client.ts'
export { ClientErrorCode, RohrpostError } from './error.ts'
export type { Live, LiveOptions, LiveStatus } from './live.ts'
export type { State, StateChange, UrlSource, WebSocketConstructor, WebSocketLike } from './socket-types.ts'
export type { Change, Resync } from './subscribed-group.ts'
export type { TokenSource } from './token.ts'
export type { CallArguments, CallOptions, ClientEvents, ClientOptions, GroupName } from './client-types.ts'
