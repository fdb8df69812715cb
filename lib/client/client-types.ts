/** Types of the client's options and events. */
import type { Untyped } from '../protocol/contract.ts'
import type { RohrpostError } from './error.ts'
import type { DelayBounds } from './retry-delay.ts'
import type { State, StateChange, WebSocketConstructor } from './socket-types.ts'
import type { Change } from './subscribed-group.ts'
import type { TokenSource } from './token.ts'

/** Options of a client. Durations are milliseconds; 0 and `Infinity` mean "never" or "without limit". */
export interface ClientOptions {
  /**
   * The field `auth_jwt` of every request. A function is called for each connection, and again when the server answers
   * with the code `token_expired`. `undefined` sends none.
   *
   * @defaultValue `''`
   */
  token?: TokenSource
  /** Time between two pings, and time after which a silent connection is given up. @defaultValue 5000 */
  pingInterval?: number | undefined
  /** Time limit of an attempt to connect, token and URL included. @defaultValue 10 000 */
  connectTimeout?: number | undefined
  /** The shortest and the longest delay before the next attempt. @defaultValue 500 and 20 000 */
  backoff?: Partial<DelayBounds> | undefined
  /** Whether a close code is final. @defaultValue 4400 to 4499 but 4408, 4429, and 4401 if `token` is a function */
  isFinal?: ((code: number, reason: string) => boolean) | undefined
  /** Whether to connect at once, or at `connect()`. @defaultValue `true` */
  autoConnect?: boolean | undefined
  /** Time after which a hidden page closes its connection, until it is shown again. @defaultValue `Infinity` */
  disconnectWhenHidden?: number | undefined
  /** Makes WebSockets. @defaultValue the global `WebSocket` */
  WebSocket?: WebSocketConstructor | undefined
}

/** Options of a call. */
export interface CallOptions {
  /** Milliseconds to wait for the reply; 0 and `Infinity`: without limit. @defaultValue 2000 */
  timeout?: number | undefined
  /** Whether to wait for a connection if there is none, within `timeout`. @defaultValue `false` */
  wait?: boolean | undefined
  /** Aborts the call; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** The arguments of a call after its name; `data` is optional where the contract does not type it. */
export type CallArguments<Data> = unknown extends Data
  ? [data?: unknown, options?: CallOptions]
  : [data: Data, options?: CallOptions]

declare const item: unique symbol

/** The name of a group, with the type of its objects. */
export type GroupName<Item> = string & { readonly [item]?: Item }

/** The arguments of listeners, by event. */
export interface ClientEvents {
  /** The connection is open. */
  open: []
  /** The connection, or an attempt to make one, has ended. */
  closed: []
  /** The next attempt begins. */
  reconnecting: []
  /** A ping was sent. */
  ping: []
  /** A pong arrived. */
  pong: []
  /** A message arrived, parsed. */
  message: [message: Untyped]
  /** A failure that rejects no promise. */
  error: [text: string, cause?: unknown]
  /** A message was sent, or was received and handled. */
  log: [entry: { direction: 'send' | 'receive', data: string }]
  /** Changes of a group were missed: the state that the application knows may be out of date. */
  resync: [group: string]
  /** The state has changed. */
  state: [state: State, change: StateChange]
}

/** The name of an event of the client itself. */
export type EventName = keyof ClientEvents

/** A listener of a group, called with each change, or once with the error that ends the subscription. */
export type GroupListener<Item> = (error: RohrpostError | null, change: Change<Item>) => void
