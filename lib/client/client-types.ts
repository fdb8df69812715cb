/** Types of the client's options and events. */
import type { Json } from '../protocol/contract.ts'
import type { RohrpostError } from './error.ts'
import type { DelayBounds } from './retry-delay.ts'
import type { State, StateChange, WebSocketConstructor } from './socket-types.ts'
import type { Change } from './subscribed-group.ts'
import type { TokenSource } from './token.ts'

/** Options of a client. Durations are milliseconds. */
export interface ClientOptions {
  /**
   * Sent as `auth_jwt` with every request. A function is asked anew for each connection, and when the server answers with the code
   * `token_expired`. `undefined` sends none.
   *
   * @defaultValue `''`
   */
  token?: TokenSource
  /** Time between two pings, and time after which a silent line is given up; 0 and `Infinity`: never. @defaultValue 5000 */
  pingInterval?: number | undefined
  /** Time that an attempt to connect may take, token and URL included; 0 and `Infinity`: any. @defaultValue 10 000 */
  connectTimeout?: number | undefined
  /** The shortest and the longest wait before the next attempt. @defaultValue 500 and 20 000 */
  backoff?: Partial<DelayBounds> | undefined
  /** Whether a close code means "do not come back". @defaultValue 4400 to 4499 but 4408, 4429, and 4401 if `token` is a function */
  isFinal?: ((code: number, reason: string) => boolean) | undefined
  /** Whether to connect at once, or at `connect()`. @defaultValue `true` */
  autoConnect?: boolean | undefined
  /** Time after which a page that is hidden lets its connection go, until it is shown again; 0 and `Infinity`: never. @defaultValue `Infinity` */
  disconnectWhenHidden?: number | undefined
  /** Makes WebSockets. @defaultValue the global `WebSocket` */
  WebSocket?: WebSocketConstructor | undefined
}

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds to wait for the answer; 0 and `Infinity`: for ever. @defaultValue 2000 */
  timeout?: number | undefined
  /** Whether to wait for a connection where there is none, within `timeout`. @defaultValue `false` */
  wait?: boolean | undefined
  /** Gives the call up; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** What a call takes after its name; `data` may be left out where nothing is said about it. */
export type CallArguments<Data> = unknown extends Data ? [data?: unknown, options?: CallOptions] : [data: Data, options?: CallOptions]

declare const item: unique symbol

/** The name of a group, which knows the type of its objects. */
export type GroupName<Item> = string & { readonly [item]?: Item }

/** What listeners are called with. */
export interface ClientEvents {
  /** The connection is open. */
  open: []
  /** The connection, or an attempt to make one, has ended. */
  closed: []
  /** The next attempt begins. */
  reconnecting: []
  /** A ping was sent. */
  ping: []
  /** A pong came. */
  pong: []
  /** A message came, parsed. */
  message: [message: Untyped]
  /** Something went wrong that no promise tells of. */
  error: [text: string, cause?: unknown]
  /** A message was sent, or has been worked off. */
  log: [entry: { direction: 'send' | 'receive', data: string }]
  /** Changes of a group were missed: what is known of it may be out of date. */
  resync: [group: string]
  /** The state has changed, and why. */
  state: [state: State, change: StateChange]
}

/** The name of an event of the client itself. */
export type EventName = keyof ClientEvents

/** What is called at each change of a group, or once with why it is heard no more. */
export type GroupListener<Item> = (error: RohrpostError | null, change: Change<Item>) => void
