/** Groups across processes, through one Redis. */
import { randomBytes } from 'node:crypto'
import { checkNames, isDelay } from '../checks.ts'
import { errors, show } from '../errors.ts'
import type { Broker, BrokerHealth, HistoryEntry, Position, Receiver } from './broker.ts'
import { checkHistory, type HistoryOptions } from './history.ts'
import type { RedisClient } from './redis/client.ts'
import { Connection } from './redis/connection.ts'
import { Publisher, type QueueLimits } from './redis/publisher.ts'
import { read } from './redis/scripts.ts'
import { Subscriber, type Kept } from './redis/subscriber.ts'

export type { HistoryOptions, QueueLimits, RedisClient }

/** Options of `redisBroker`. */
export interface RedisBrokerOptions {
  /**
   * A client of ioredis, such as `app.redis` of `@fastify/redis`. The broker opens two connections of its own with the same options (address,
   * sentinels, TLS, `db`, `keyPrefix`, `retryStrategy`, …) and leaves this one alone.
   */
  client: RedisClient
  /** What the names of all keys and channels begin with, after the `keyPrefix` of the client. @defaultValue `'rohrpost:'` */
  prefix?: string
  /** How much is kept of each group, so that processes and clients that were away for a moment miss nothing. @defaultValue none */
  history?: HistoryOptions
  /**
   * How much may wait for Redis, and how many milliseconds each message, and each subscription, waits. What is more, or waits longer, fails.
   *
   * @defaultValue `{ messages: 100_000, bytes: 64 MiB, timeout: 5000 }`
   */
  queue?: Partial<QueueLimits>
}

const QUEUE: QueueLimits = { messages: 100_000, bytes: 64 * 1024 * 1024, timeout: 5000 }
const OPTIONS = ['client', 'prefix', 'history', 'queue']
/** A group's epoch and offset are remembered that much longer than its messages, in milliseconds. */
const REMEMBERED = 24 * 60 * 60 * 1000

/**
 * Makes a broker that shares groups among all processes with the same Redis and options. Redis is 5 or later, alone or with replicas and
 * failover; Redis Cluster is refused.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function redisBroker (options: RedisBrokerOptions): Broker {
  return new RedisBroker(checkOptions(options))
}

interface Checked {
  client: RedisClient
  /** The whole prefix of keys. */
  keys: string
  /** The whole prefix of channels. */
  channels: string
  history: HistoryOptions | undefined
  queue: QueueLimits
}

class RedisBroker implements Broker {
  readonly keepsHistory: boolean
  readonly #options: Checked
  readonly #publisher: Publisher
  /** Unlike that of any other broker. */
  readonly #id = randomBytes(9).toString('base64url')
  #epochs = 0
  #receiver: Receiver | undefined
  #subscriber: Subscriber | undefined
  /** One connection for commands, one that hears. */
  #commands: Connection | undefined
  #ears: Connection | undefined
  /** Whether a failure was reported that is not over. */
  #isReported = false
  #isClosed = false
  #opening: PromiseWithResolvers<void> | undefined

  constructor (options: Checked) {
    this.#options = options
    this.keepsHistory = options.history !== undefined
    this.#publisher = new Publisher({
      queue: options.queue,
      keeps: this.keepsHistory,
      sender: `${options.keys}sender:${this.#id}`,
      log: () => this.#log(),
      channel: options.channels
    }, () => this.#commands)
  }

  async open (receiver: Receiver): Promise<void> {
    if (this.#receiver !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('Redis')
    this.#receiver = receiver
    const { client, channels, history, queue } = this.#options

    const subscriber = this.#subscriber = new Subscriber(receiver, {
      channel: channels,
      timeout: queue.timeout,
      size: history?.size ?? 0,
      connection: () => this.#ears,
      read: (asked) => this.#read(asked),
      retry: () => this.#commands?.reconnect()
    })
    const error = (error: Error) => this.#report(error)
    const patience = Math.ceil(queue.timeout / 2)
    this.#commands = new Connection(client, 'rohrpost:commands', patience, { ready: () => this.#commanding(), error })
    this.#ears = new Connection(client, 'rohrpost:subscriber', patience, { ready: () => this.#hearing(), error })
    this.#ears.redis.on('message', (channel: string, text: string) => subscriber.receive(channel, text))
    await this.#bothReady()
  }

  publish (group: string, payload: string): Promise<void> {
    return this.#publisher.publish(group, payload)
  }

  subscribe (group: string): Promise<Position | undefined> {
    if (this.#subscriber === undefined || this.#isClosed) return Promise.reject(new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is not open'))
    return this.#subscriber.subscribe(group)
  }

  unsubscribe (group: string): void {
    this.#subscriber?.unsubscribe(group)
  }

  async history (group: string, after: Position, limit: number): Promise<HistoryEntry[] | undefined> {
    if (!this.keepsHistory) return undefined
    let kept: Kept | undefined
    try {
      [kept] = await this.#read([{ group, ...after, limit }])
    } catch (cause) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE(`history can't be read (${(cause as Error).message})`, { cause })
    }
    if (!kept?.complete) return undefined
    return kept.payloads.map((payload, index) => ({ payload, position: { epoch: after.epoch, offset: after.offset + 1 + index } }))
  }

  health (): BrokerHealth {
    const age = this.#publisher.age
    if (this.#isClosed || this.#commands === undefined) return { ok: false, detail: 'the broker is not open' }
    if (!this.#commands.isReady || !this.#ears?.isReady) return { ok: false, detail: `no connection to Redis: ${this.#failure}` }
    if (age > this.#options.queue.timeout / 5) return { ok: false, detail: `Redis has not answered for ${Math.round(age)} ms` }
    return { ok: true }
  }

  /** Waits for what is to be published, for as long as each message may wait; then its own connections are closed. */
  async close (): Promise<void> {
    this.#isClosed = true
    await this.#publisher.close()
    this.#subscriber?.close()
    this.#commands?.close()
    this.#ears?.close()
  }

  get #failure (): string {
    return (this.#commands?.failure ?? this.#ears?.failure)?.message ?? 'it was lost'
  }

  async #bothReady (): Promise<void> {
    const { queue, history } = this.#options
    const opening = this.#opening = Promise.withResolvers<void>()
    const timer = setTimeout(() => opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(`no connection to Redis: ${this.#failure}`)), queue.timeout)
    try {
      await opening.promise
      if (history !== undefined && this.#commands?.server === '') {
        throw new errors.RP_ERR_BROKER_UNAVAILABLE("history needs the 'master_replid' of 'INFO replication', and Redis does not tell it", { cause: this.#commands.failure })
      }
    } catch (error) {
      await this.close()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  /** The connection for commands is new. */
  #commanding (): void {
    // a subscription at a server that is not the one that is written to any more hears nothing
    if (this.#ears?.isReady && this.#ears.server !== this.#commands?.server) this.#ears.reconnect()
    this.#publisher.resume()
    this.#subscriber?.check()
    this.#recovered()
  }

  /** The connection that hears is new. */
  #hearing (): void {
    this.#subscriber?.resume()
    this.#recovered()
  }

  #recovered (): void {
    if (!this.#commands?.isReady || !this.#ears?.isReady) return
    this.#isReported = false
    this.#opening?.resolve()
  }

  /** Once for each time that Redis is away, not for each attempt to reach it. */
  #report (error: Error): void {
    if (this.#isReported) return
    this.#isReported = true
    this.#receiver?.error(error, { stage: 'connect' })
  }

  async #read (asked: { group: string, epoch: string, offset: number, limit: number }[]): Promise<Kept[]> {
    const args = asked.flatMap(({ group, epoch, offset, limit }) => [group, epoch, String(offset), String(limit)])
    const answers = await this.#commands?.run(read, `${this.#options.keys}meta:`, [...this.#log(), ...args]) as [string, string, string, ...string[]][]
    return answers.map(([epoch, top, complete, ...payloads]) => ({ epoch, top: Number(top), complete: complete === '1', payloads }))
  }

  /** What scripts need to find, or to begin, a group's log. */
  #log (): string[] {
    const { keys, history } = this.#options
    const { size = 0, ttl = 0 } = history ?? {}
    return [`${this.#id}${(this.#epochs++).toString(36)}`, keys, String(size), String(ttl), String(ttl + REMEMBERED)]
  }
}

function checkOptions (options: RedisBrokerOptions): Checked {
  if (typeof options !== 'object' || options === null || 'duplicate' in options) {
    throw new errors.RP_ERR_INVALID_OPTION('client', 'redisBroker({ client }) with a client of ioredis', `a ${typeof options} instead of { client }`)
  }
  checkNames(options, OPTIONS)
  const { client, prefix = 'rohrpost:', history, queue } = options
  if (client?.isCluster === true) throw new errors.RP_ERR_INVALID_OPTION('client', 'a client of one Redis', 'one of a Redis Cluster, which is not supported')
  if (typeof client?.duplicate !== 'function' || typeof client.options !== 'object' || client.isCluster !== false) {
    throw new errors.RP_ERR_INVALID_OPTION('client', 'a client of ioredis', show(client))
  }
  if (typeof prefix !== 'string') throw new errors.RP_ERR_INVALID_OPTION('prefix', 'a string', show(prefix))

  const { keyPrefix = '', db = 0 } = client.options
  const keys = `${keyPrefix}${prefix}`
  // databases have keys of their own, but share channels
  return { client, keys, channels: `${keys}${db}:`, history: checkHistory(history), queue: { ...QUEUE, ...checkQueue(queue) } }
}

function checkQueue (queue: unknown = {}): Partial<QueueLimits> {
  const isLimits = typeof queue === 'object' && queue !== null &&
    Object.entries(queue).every(([name, value]) => Object.hasOwn(QUEUE, name) && isDelay(value))
  if (!isLimits) throw new errors.RP_ERR_INVALID_OPTION('queue', 'an object { messages, bytes, timeout } of whole numbers from 1', show(queue))
  return queue
}
