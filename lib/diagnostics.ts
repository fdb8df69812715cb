/**
 * Diagnostics channels for metrics and traces, built on `node:diagnostics_channel`. A channel without subscribers costs
 * one property check. docs/diagnostics.md documents when each event is published.
 */
import type { AsyncLocalStorage } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import type { RohrpostConnection } from './server/types.ts'

/** A connection was opened. `onConnect` has not run yet. */
export interface ConnectEvent {
  readonly connection: RohrpostConnection
}

/** A connection was closed and has left all groups. There is one event for each {@link ConnectEvent}. */
export interface DisconnectEvent {
  readonly connection: RohrpostConnection
  readonly code: number
  readonly reason: string
  /** Milliseconds since the connection was opened. */
  readonly duration: number
}

/** A message from a client is handled. Its handler runs inside the stores that are bound to this channel. */
export interface MessageEvent {
  readonly connection: RohrpostConnection
  /** Type of the message, if it has a handler. The number of values is bounded, so that it can be a metrics label. */
  readonly type: string | undefined
  /** The decoded message with all fields that the client sent; `undefined` for a malformed one. */
  readonly message: Readonly<Record<string, unknown>> | undefined
  /** Received bytes. */
  readonly size: number
}

/** A message from a client got its reply. There is one event for each {@link MessageEvent}. */
export interface ReplyEvent {
  /** The event of the message, the same object. */
  readonly message: MessageEvent
  /** `error`: an error was sent; `gone`: the client disconnected before the reply. */
  readonly outcome: 'success' | 'error' | 'gone'
  /** `code` of an error reply. */
  readonly code: string | undefined
  /** Sent bytes, without the frame header. */
  readonly size: number
  /** Milliseconds since the {@link MessageEvent}. */
  readonly duration: number
}

/** A message to a group was published at the broker. */
export interface PublishEvent {
  readonly group: string
  /** Bytes of the payload. */
  readonly size: number
  /** Milliseconds until the broker accepted the message or failed. */
  readonly duration: number
  /** Error of the broker; `undefined` if it accepted the message. */
  readonly error: unknown
}

/** A group message was sent to the members on this process. Without members there is no event. */
export interface DeliverEvent {
  readonly group: string
  /** Bytes of the payload. */
  readonly size: number
  readonly members: number
}

/** A notification about a committed change of a row was published to a group. */
export interface NotifyEvent {
  /** Name of the entity. */
  readonly entity: string
  readonly type: 'create' | 'update' | 'delete'
  readonly group: string
  /** Bytes of the payload; in a batch, of the object. */
  readonly size: number
}

/** Reason why a change of a row is not sent. */
export type ChangeDropReason =
  'kind' | 'unchanged' | 'no_group' | 'short_lived' | 'rolled_back' | 'unknown' | 'missing' | 'not_loaded' | 'failed'

/** A change of a row was not sent. */
export interface ChangeDropEvent {
  readonly reason: ChangeDropReason
  /** Name of the entity. */
  readonly entity: string
  /** Primary key as text, if it is known. */
  readonly key?: string | undefined
  /** Type of the change that the notification would have. */
  readonly type?: NotifyEvent['type'] | undefined
  readonly group?: string | undefined
  /** Error that prevented the notification. */
  readonly error?: unknown
}

/** A message, a change or a group's history was dropped instead of sent. */
export type DropEvent =
  | { readonly reason: 'slow_consumer', readonly connection: RohrpostConnection, /** Bytes. */ readonly unsent: number }
  | { readonly reason: 'lost', readonly group: string }
  | ChangeDropEvent

/** Events by channel name. */
export interface DiagnosticsEvents {
  'rohrpost:connect': ConnectEvent
  'rohrpost:disconnect': DisconnectEvent
  'rohrpost:message': MessageEvent
  'rohrpost:reply': ReplyEvent
  'rohrpost:publish': PublishEvent
  'rohrpost:deliver': DeliverEvent
  'rohrpost:notify': NotifyEvent
  'rohrpost:drop': DropEvent
}

/** Typed channel of `node:diagnostics_channel`. */
export interface DiagnosticsChannel<Event> {
  readonly name: string
  readonly hasSubscribers: boolean
  publish (event: Event): void
  subscribe (listener: (event: Event, name: string) => void): void
  unsubscribe (listener: (event: Event, name: string) => void): boolean
  bindStore<Store> (store: AsyncLocalStorage<Store>, transform?: (event: Event) => Store): void
  unbindStore<Store> (store: AsyncLocalStorage<Store>): boolean
  runStores<Result> (event: Event, fn: () => Result): Result
}

/** Channels, shared by all servers of a process. `diagnostics.message` is `channel('rohrpost:message')`. */
export const diagnostics = {
  connect: open('rohrpost:connect'),
  disconnect: open('rohrpost:disconnect'),
  message: open('rohrpost:message'),
  reply: open('rohrpost:reply'),
  publish: open('rohrpost:publish'),
  deliver: open('rohrpost:deliver'),
  notify: open('rohrpost:notify'),
  drop: open('rohrpost:drop')
} as const

function open<Name extends keyof DiagnosticsEvents> (name: Name): DiagnosticsChannel<DiagnosticsEvents[Name]> {
  return channel(name) as unknown as DiagnosticsChannel<DiagnosticsEvents[Name]>
}
