/**
 * Main entry of the package: the Fastify plugin, the memory broker, the diagnostics channels and the types of the
 * server.
 */
import { memoryBroker } from './brokers/memory.ts'
import { diagnostics } from './diagnostics.ts'
import { rohrpost as plugin } from './plugin.ts'

// `require('fastify-rohrpost')` returns the plugin, so the other exports are properties of it
const rohrpost = Object.assign(plugin, { rohrpost: plugin, memoryBroker, diagnostics })

export { diagnostics, memoryBroker, rohrpost, rohrpost as default, rohrpost as 'module.exports' }

export type { Broker, BrokerHealth, HistoryEntry, Position, PublishOptions, Receiver, Stamp } from './brokers/broker.ts'
export type { HistoryOptions } from './brokers/history.ts'
export type { MemoryBrokerOptions } from './brokers/memory.ts'
export type {
  ChangeDropEvent,
  ChangeDropReason,
  ConnectEvent,
  DeliverEvent,
  DiagnosticsChannel,
  DiagnosticsEvents,
  DisconnectEvent,
  DropEvent,
  MessageEvent,
  NotifyEvent,
  PublishEvent,
  ReplyEvent
} from './diagnostics.ts'
export type { RohrpostOptions } from './options.ts'
export type { MessageId } from './protocol/decode.ts'
export type {
  GroupOptions,
  Handler,
  HandlerOptions,
  HandlerSchemas,
  Health,
  Implementation,
  Middleware,
  OutgoingMessage,
  RohrpostConnection,
  RohrpostMessage,
  SendToGroupOptions,
  SubscribeData
} from './server/types.ts'
export type { Rohrpost } from './fastify.ts'
