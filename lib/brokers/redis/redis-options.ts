/** The options of `redisBroker` and their checks. */
import { errors, show } from '../../errors.ts'
import { checkNames, isDelay } from '../../util/checks.ts'
import { checkHistory, type HistoryOptions } from '../history.ts'
import type { QueueLimits } from './publisher.ts'
import type { RedisClient } from './redis-client.ts'

/** Options of `redisBroker`. */
export interface RedisBrokerOptions {
  /**
   * A client of ioredis, such as `app.redis` of `@fastify/redis`. The broker opens two connections of its own with the
   * same options (address, sentinels, TLS, `db`, `keyPrefix`, `retryStrategy`, …) and does not use this one.
   */
  client: RedisClient
  /** Prefix of all keys and channels, after the client's `keyPrefix`. @defaultValue `'rohrpost:'` */
  prefix?: string
  /** Size and age of the history from which processes and clients recover missed messages. @defaultValue none */
  history?: HistoryOptions
  /**
   * Limits of the messages that wait for Redis, and the milliseconds that each message and each subscription waits. A
   * message beyond the limits is rejected, and so is one that has waited too long.
   *
   * @defaultValue `{ messages: 100_000, bytes: 64 MiB, timeout: 5000 }`
   */
  queue?: Partial<QueueLimits>
}

/** Checked options of `redisBroker`, with defaults. */
export interface RedisBrokerSettings {
  client: RedisClient
  /** Prefix of all keys, the client's `keyPrefix` included. */
  keyPrefix: string
  /** Prefix of all channels, the client's `keyPrefix` included. */
  channelPrefix: string
  history: HistoryOptions | undefined
  queue: QueueLimits
}

const DEFAULT_QUEUE: QueueLimits = { messages: 100_000, bytes: 64 * 1024 * 1024, timeout: 5000 }

/** Checks the options of `redisBroker`. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function checkRedisOptions (options: RedisBrokerOptions): RedisBrokerSettings {
  if (typeof options !== 'object' || options === null || 'duplicate' in options) {
    const given = `a ${typeof options} instead of { client }`
    throw new errors.RP_ERR_INVALID_OPTION('client', 'redisBroker({ client }) with a client of ioredis', given)
  }
  checkNames(options, ['client', 'prefix', 'history', 'queue'])
  const { client, prefix = 'rohrpost:', history, queue } = options
  if (client?.isCluster === true) {
    const given = 'one of a Redis Cluster, which is not supported'
    throw new errors.RP_ERR_INVALID_OPTION('client', 'a client of one Redis server', given)
  }
  if (typeof client?.duplicate !== 'function' || typeof client.options !== 'object' || client.isCluster !== false) {
    throw new errors.RP_ERR_INVALID_OPTION('client', 'a client of ioredis', show(client))
  }
  if (typeof prefix !== 'string') throw new errors.RP_ERR_INVALID_OPTION('prefix', 'a string', show(prefix))

  const { db = 0 } = client.options
  const keyPrefix = `${client.options.keyPrefix ?? ''}${prefix}`
  return {
    client,
    keyPrefix,
    // unlike keys, channels are shared by all databases of a server
    channelPrefix: `${keyPrefix}${db}:`,
    history: checkHistory(history),
    queue: { ...DEFAULT_QUEUE, ...checkQueue(queue) }
  }
}

function checkQueue (queue: unknown = {}): Partial<QueueLimits> {
  const isLimits = typeof queue === 'object' && queue !== null &&
    Object.entries(queue).every(([name, value]) => Object.hasOwn(DEFAULT_QUEUE, name) && isDelay(value))
  if (!isLimits) {
    const expected = 'an object { messages, bytes, timeout } of whole numbers from 1'
    throw new errors.RP_ERR_INVALID_OPTION('queue', expected, show(queue))
  }
  return queue
}
