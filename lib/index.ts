import { memoryBroker } from './brokers/memory.ts'
import { rohrpost } from './plugin.ts'

export { memoryBroker, rohrpost, rohrpost as default }
// what `require('fastify-rohrpost')` gives
export { rohrpost as 'module.exports' }

export type { Broker, BrokerHealth, HistoryEntry, Position, Receiver } from './brokers/broker.ts'
export type { RohrpostOptions } from './options.ts'
export type {
  GroupOptions,
  Handler,
  HandlerSchemas,
  Health,
  Middleware,
  OutgoingMessage,
  RohrpostConnection,
  RohrpostMessage,
  SubscribeData
} from './server/types.ts'
export type { Rohrpost } from '../types/fastify.ts'
