/**
 * What happens within, for metrics and traces: channels of `node:diagnostics_channel`. Where a channel has no subscribers, nothing but that is
 * looked at. docs/diagnostics.md says when each event comes.
 */
import type { AsyncLocalStorage } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import type { RohrpostConnection } from './server/types.ts'

/** A connection was opened; `onConnect` has not run yet. */
export interface ConnectEvent {
  readonly connection: RohrpostConnection
}

/** A connection was closed, and has left all groups. One for each {@link ConnectEvent}. */
export interface DisconnectEvent {
  readonly connection: RohrpostConnection
  readonly code: number
  readonly reason: string
  /** Milliseconds since it was opened. */
  readonly duration: number
}

/** A message from a client is worked off. What its handler does runs in the stores that are bound to this channel. */
export interface MessageEvent {
  readonly connection: RohrpostConnection
  /** The type, if a handler is registered for it: only as many values as there are handlers. */
  readonly type: string | undefined
  /** The message with all fields that the client sent, as it was parsed; nothing for one that is malformed. */
  readonly message: Readonly<Record<string, unknown>> | undefined
  /** Bytes that came. */
  readonly size: number
}

/** What became of a message. One for each {@link MessageEvent}. */
export interface ReplyEvent {
  /** The event that began it, the same object. */
  readonly message: MessageEvent
  /** `error`: an error was sent; `gone`: the client went before there was an answer. */
  readonly outcome: 'success' | 'error' | 'gone'
  /** The `code` of an error, as it was sent. */
  readonly code: string | undefined
  /** Bytes that were sent, framing left out. */
  readonly size: number
  /** Milliseconds since the {@link MessageEvent}. */
  readonly duration: number
}

/** A message to a group was handed to the broker. */
export interface PublishEvent {
  readonly group: string
  /** Bytes of the payload. */
  readonly size: number
  /** Milliseconds until the broker had it, or had failed. */
  readonly duration: number
  /** What the broker threw or rejected with. */
  readonly error: unknown
}

/** A message of a group was put on its way to the members on this process. None where there are no members. */
export interface DeliverEvent {
  readonly group: string
  /** Bytes of the payload. */
  readonly size: number
  readonly members: number
}

/** A committed change of a row was handed over to a group. */
export interface NotifyEvent {
  /** The name of the entity. */
  readonly entity: string
  readonly type: 'create' | 'update' | 'delete'
  readonly group: string
  /** Bytes of the payload. */
  readonly size: number
}

/** Why a change of a row is not sent. */
export type ChangeDropReason = 'kind' | 'unchanged' | 'no_group' | 'short_lived' | 'rolled_back' | 'unknown' | 'missing' | 'not_loaded' | 'failed'

/** A change of a row that is not sent. */
export interface ChangeDropEvent {
  readonly reason: ChangeDropReason
  /** The name of the entity. */
  readonly entity: string
  /** The primary key as text, where it is known. */
  readonly key?: string | undefined
  /** What the group would have been told. */
  readonly type?: NotifyEvent['type'] | undefined
  readonly group?: string | undefined
  /** What was thrown. */
  readonly error?: unknown
}

/** Something that was to be sent and is not. */
export type DropEvent =
  | { readonly reason: 'slow_consumer', readonly connection: RohrpostConnection, /** Bytes. */ readonly unsent: number }
  | { readonly reason: 'lost', readonly group: string }
  | ChangeDropEvent

/** The events by the names of their channels. */
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

/** A channel of `node:diagnostics_channel`, whose events have a type. */
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

/** The channels, which all servers of a process share. `diagnostics.message` is `channel('rohrpost:message')`. */
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
