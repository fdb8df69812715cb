/** Groups across processes, through one Redis. */
import { randomBytes } from 'node:crypto'
import { checkNames, isDelay } from '../../util/checks.ts'
import { errors, show } from '../../errors.ts'
import { Trouble } from '../../util/trouble.ts'
import type { Broker, BrokerHealth, HistoryEntry, Position, Receiver } from '../broker.ts'
import { checkHistory, type HistoryOptions } from '../history.ts'
import type { RedisClient } from './redis-client.ts'
import { Connection } from './redis-connection.ts'
import { Publisher, type QueueLimits } from './publisher.ts'
import { Reader } from './reader.ts'
import { Subscriber } from './subscriber.ts'

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

/** The connections and the parts of an open broker. */
interface Session {
  receiver: Receiver
  /** One connection for commands, one that hears. */
  commands: Connection
  ears: Connection
  reader: Reader
  publisher: Publisher
  subscriber: Subscriber
  troubles: Record<'connecting' | 'publishing' | 'reading' | 'groups', Trouble>
  /** Settled when the connections are there, or when it is closed before. */
  opening: PromiseWithResolvers<void>
}

class RedisBroker implements Broker {
  readonly keepsHistory: boolean
  readonly #options: Checked
  /** Unlike that of any other broker. */
  readonly #id = randomBytes(9).toString('base64url')
  #epochs = 0
  #session: Session | undefined
  #isClosed = false
  #isMixed = false

  constructor (options: Checked) {
    this.#options = options
    this.keepsHistory = options.history !== undefined
  }

  async open (receiver: Receiver): Promise<void> {
    if (this.#session !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('Redis')
    const session = this.#session = this.#makeSession(receiver)
    const { queue, history } = this.#options
    const timer = setTimeout(() => {
      session.opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(`no connection to Redis: ${failureOf(session)}`))
    }, queue.timeout)
    try {
      await session.opening.promise
      if (history !== undefined && session.commands.server === '') {
        throw new errors.RP_ERR_BROKER_UNAVAILABLE("history needs the 'master_replid' of 'INFO replication', and Redis does not tell it", { cause: session.commands.failure })
      }
    } catch (error) {
      await this.close()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  publish (group: string, payload: string): Promise<void> {
    if (this.#session === undefined) return Promise.reject(new errors.RP_ERR_NOT_PUBLISHED('the broker is not open'))
    return this.#session.publisher.publish(group, payload)
  }

  subscribe (group: string): Promise<Position | undefined> {
    if (this.#session === undefined || this.#isClosed) return Promise.reject(new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is not open'))
    return this.#session.subscriber.subscribe(group)
  }

  unsubscribe (group: string): void {
    this.#session?.subscriber.unsubscribe(group)
  }

  async history (group: string, after: Position, limit: number, bytes = Number.MAX_SAFE_INTEGER): Promise<HistoryEntry[] | undefined> {
    if (!this.keepsHistory) return undefined
    if (this.#session === undefined) throw new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is not open')
    const { epoch, offset } = after
    try {
      const payloads = await this.#session.reader.readAll({ group, epoch, offset, limit }, bytes)
      return payloads?.map((payload, index) => ({ payload, position: { epoch, offset: offset + 1 + index } }))
    } catch (cause) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE(`history can't be read (${(cause as Error).message})`, { cause })
    }
  }

  health (): BrokerHealth {
    const session = this.#session
    if (this.#isClosed || session === undefined) return { ok: false, detail: 'the broker is not open' }
    const { commands, ears, publisher, troubles: { publishing, reading, groups } } = session
    const refusal = publishing.error ?? reading.error
    const age = publisher.age
    if (refusal !== undefined) return { ok: false, detail: `Redis refuses to ${publishing.error ? 'publish' : 'read'}: ${refusal.message}` }
    if (!commands.isReady || !ears.isReady) return { ok: false, detail: `no connection to Redis: ${failureOf(session)}` }
    if (age > this.#options.queue.timeout / 5) return { ok: false, detail: `Redis has not answered for ${Math.round(age)} ms` }
    // what concerns single groups is no reason to take the process out of service
    return groups.error === undefined ? { ok: true } : { ok: true, detail: groups.error.message }
  }

  /** Waits for what is to be published, for as long as each message may wait; then its own connections are closed. */
  async close (): Promise<void> {
    this.#isClosed = true
    const session = this.#session
    if (session === undefined) return
    session.opening.promise.catch(() => {})
    session.opening.reject(new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is closed'))
    await session.publisher.close()
    session.subscriber.close()
    session.commands.close()
    session.ears.close()
  }

  #makeSession (receiver: Receiver): Session {
    const { client, channels, keys, history, queue } = this.#options
    const trouble = (stage: 'connect' | 'publish' | 'subscribe', over: string) => new Trouble({
      began: (error) => receiver.error(error, { stage }),
      ended: (failures) => receiver.notice?.(over, { stage, failures })
    })
    const troubles: Session['troubles'] = {
      connecting: trouble('connect', 'Redis can be reached again'),
      publishing: trouble('publish', 'Redis publishes again'),
      reading: trouble('subscribe', 'Redis can be read again'),
      groups: trouble('subscribe', 'all groups are heard again')
    }
    const error = (error: Error) => troubles.connecting.fail(error)
    const patience = Math.ceil(queue.timeout / 2)
    const commands = new Connection(client, 'rohrpost:commands', patience, { ready: () => this.#commanding(session), error })
    const ears = new Connection(client, 'rohrpost:subscriber', patience, { ready: () => this.#hearing(session), error })

    const scriptArguments = () => this.#scriptArguments()
    const onMixed = () => this.#reportMixed(receiver)
    const reader = new Reader(commands, { key: keys, scriptArguments })
    const publisher = new Publisher(commands, {
      queue,
      keeps: this.keepsHistory,
      sender: `${keys}sender:${this.#id}`,
      scriptArguments,
      channel: channels,
      trouble: troubles.publishing,
      onKeptForOthers: onMixed
    })
    const subscriber = new Subscriber({
      receiver,
      ears,
      commands,
      reader,
      channel: channels,
      timeout: queue.timeout,
      size: history?.size ?? 0,
      reading: troubles.reading,
      groups: troubles.groups,
      onUnkept: onMixed
    })
    ears.redis.on('message', (channel: string, text: string) => subscriber.receive(channel, text))
    const session: Session = { receiver, commands, ears, reader, publisher, subscriber, troubles, opening: Promise.withResolvers() }
    return session
  }

  /** The connection for commands is new. */
  #commanding (session: Session): void {
    const { commands, ears, publisher, subscriber } = session
    // a subscription at a server that is not the one that is written to any more hears nothing
    if (ears.isReady && ears.server !== commands.server) ears.reconnect(new Error('Redis is another server than before'))
    publisher.resume()
    subscriber.check()
    this.#recovered(session)
  }

  /** The connection that hears is new. */
  #hearing (session: Session): void {
    session.subscriber.resume()
    this.#recovered(session)
  }

  #recovered ({ commands, ears, troubles, opening }: Session): void {
    if (!commands.isReady || !ears.isReady) return
    troubles.connecting.end()
    opening.resolve()
  }

  /** Processes share a Redis, and some of them keep history while others do not. */
  #reportMixed (receiver: Receiver): void {
    if (this.#isMixed) return
    this.#isMixed = true
    const text = this.keepsHistory
      ? 'another process publishes without history: its messages reach members, but have no positions'
      : "other processes keep history, so that what this one publishes is kept, too: give all processes the same 'history'"
    receiver.notice?.(text, { stage: 'publish' })
  }

  /** The arguments that every script begins with: a name for epochs that was never used, the prefix of keys, and how much is kept. */
  #scriptArguments (): string[] {
    const { keys, history } = this.#options
    const { size = 0, ttl = 0 } = history ?? {}
    return [`${this.#id}${(this.#epochs++).toString(36)}`, keys, String(size), String(ttl), String(REMEMBERED)]
  }
}

function failureOf ({ commands, ears }: Session): string {
  return (commands.failure ?? ears.failure)?.message ?? 'it was lost'
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
