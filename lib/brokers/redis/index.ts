/** `redisBroker`: groups that all processes share through one Redis. */
import { randomBytes } from 'node:crypto'
import { errors } from '../../errors.ts'
import { Outage } from '../../util/outage.ts'
import type { Broker, BrokerHealth, HistoryEntry, Position, PublishOptions, Receiver } from '../broker.ts'
import type { HistoryOptions } from '../history.ts'
import { HistoryReader } from './history-reader.ts'
import { Publisher, type QueueLimits } from './publisher.ts'
import type { RedisClient } from './redis-client.ts'
import { RedisConnection } from './redis-connection.ts'
import { checkRedisOptions, type RedisBrokerOptions, type RedisBrokerSettings } from './redis-options.ts'
import { ChannelSubscriber } from './subscriber.ts'

export type { HistoryOptions, QueueLimits, RedisBrokerOptions, RedisClient }

/** Milliseconds for which Redis keeps a group's epoch and offset after its last message has expired. */
const META_TTL = 24 * 60 * 60 * 1000

/**
 * Makes a broker that shares groups among all processes with the same Redis and the same options. It needs Redis 5 or
 * later, one server or one with replicas and failover; Redis Cluster is not supported.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function redisBroker (options: RedisBrokerOptions): Broker {
  return new RedisBroker(checkRedisOptions(options))
}

/** The connections of an open broker and the parts that use them. */
interface RedisSession {
  /** Runs scripts. */
  commandConnection: RedisConnection
  /** Subscribes to channels. */
  subscriberConnection: RedisConnection
  reader: HistoryReader
  publisher: Publisher
  subscriber: ChannelSubscriber
  outages: Record<'connect' | 'publish' | 'read' | 'group', Outage>
  /** Resolves when both connections are ready for the first time; rejects when the broker closes before that. */
  ready: PromiseWithResolvers<void>
}

class RedisBroker implements Broker {
  readonly keepsHistory: boolean
  readonly usesStamps = true
  readonly #settings: RedisBrokerSettings
  /** Unique to this broker. */
  readonly #id = randomBytes(9).toString('base64url')
  #epochs = 0
  #session: RedisSession | undefined
  #isClosed = false
  #hasReportedOptions = false

  constructor (settings: RedisBrokerSettings) {
    this.#settings = settings
    this.keepsHistory = settings.history !== undefined
  }

  async open (receiver: Receiver): Promise<void> {
    if (this.#session !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('Redis')
    const session = this.#session = this.#connect(receiver)
    const timer = setTimeout(() => {
      session.ready.reject(new errors.RP_ERR_BROKER_UNAVAILABLE(noConnection(session)))
    }, this.#settings.queue.timeout)
    try {
      await session.ready.promise
      const { serverId, lastError } = session.commandConnection
      if (this.keepsHistory && serverId === '') {
        const reason = "history needs the field 'master_replid' of INFO replication, which Redis does not return"
        throw new errors.RP_ERR_BROKER_UNAVAILABLE(reason, { cause: lastError })
      }
    } catch (error) {
      await this.close()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  publish (group: string, payload: string, options?: PublishOptions): Promise<void> {
    if (this.#session === undefined) return Promise.reject(new errors.RP_ERR_NOT_PUBLISHED('the broker is not open'))
    return this.#session.publisher.publish(group, payload, options)
  }

  subscribe (group: string): Promise<Position | undefined> {
    if (this.#session === undefined || this.#isClosed) return Promise.reject(notOpen())
    return this.#session.subscriber.subscribe(group)
  }

  unsubscribe (group: string): void {
    this.#session?.subscriber.unsubscribe(group)
  }

  async history (
    group: string, after: Position, limit: number, bytes = Number.MAX_SAFE_INTEGER
  ): Promise<HistoryEntry[] | undefined> {
    if (!this.keepsHistory) return undefined
    if (this.#session === undefined) throw notOpen()
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
    const { publisher: { age }, outages: { publish, read, group } } = session
    if (publish.error !== undefined) return { ok: false, detail: `Redis refuses to publish: ${publish.error.message}` }
    if (read.error !== undefined) return { ok: false, detail: `Redis refuses to read: ${read.error.message}` }
    if (!isConnected(session)) return { ok: false, detail: noConnection(session) }
    if (age > this.#settings.queue.timeout / 5) {
      return { ok: false, detail: `Redis has not answered for ${Math.round(age)} ms` }
    }
    // a failure of single groups is no reason to take the process out of service
    return group.error === undefined ? { ok: true } : { ok: true, detail: group.error.message }
  }

  /** Closes the connections of the broker when each waiting message is published or has reached its timeout. */
  async close (): Promise<void> {
    this.#isClosed = true
    const session = this.#session
    if (session === undefined) return
    session.ready.promise.catch(() => {})
    session.ready.reject(new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is closed'))
    await session.publisher.close()
    session.subscriber.close()
    session.commandConnection.close()
    session.subscriberConnection.close()
  }

  #connect (receiver: Receiver): RedisSession {
    const { client, channelPrefix, keyPrefix, history, queue } = this.#settings
    const outage = (stage: 'connect' | 'publish' | 'subscribe', endNotice: string) => new Outage({
      began: (error) => receiver.error(error, { stage }),
      ended: (failures) => receiver.notice?.(endNotice, { stage, failures })
    })
    const outages: RedisSession['outages'] = {
      connect: outage('connect', 'Redis can be reached again'),
      publish: outage('publish', 'Redis publishes again'),
      read: outage('subscribe', 'Redis can be read again'),
      group: outage('subscribe', 'all groups receive messages again')
    }
    const replyTimeout = Math.ceil(queue.timeout / 2)
    const onError = (error: Error) => outages.connect.fail(error)
    const connect = (name: string, onReady: () => void) => {
      return new RedisConnection(client, name, replyTimeout, { onReady, onError })
    }
    const commandConnection = connect('rohrpost:commands', () => this.#onCommandsReady(session))
    const subscriberConnection = connect('rohrpost:subscriber', () => this.#onSubscriberReady(session))

    const scriptArguments = () => this.#scriptArguments()
    const onMixedOptions = () => this.#reportMixedOptions(receiver)
    const reader = new HistoryReader(commandConnection, { key: keyPrefix, scriptArguments })
    const publisher = new Publisher(commandConnection, {
      queue,
      keepsHistory: this.keepsHistory,
      senderKey: `${keyPrefix}sender:${this.#id}`,
      scriptArguments,
      channelPrefix,
      outage: outages.publish,
      onKeptForOthers: onMixedOptions
    })
    const subscriber = new ChannelSubscriber({
      receiver,
      subscriberConnection,
      commandConnection,
      reader,
      channelPrefix,
      timeout: queue.timeout,
      size: history?.size ?? 0,
      readOutage: outages.read,
      groupOutage: outages.group,
      onMissingPosition: onMixedOptions
    })
    subscriberConnection.redis.on('message', (channel: string, text: string) => subscriber.onMessage(channel, text))
    const ready = Promise.withResolvers<void>()
    const session = { commandConnection, subscriberConnection, reader, publisher, subscriber, outages, ready }
    return session
  }

  #onCommandsReady (session: RedisSession): void {
    const { commandConnection, subscriberConnection, publisher, subscriber } = session
    // after a failover the previous server may keep the subscriber connection open, but it receives no more messages
    if (subscriberConnection.isReady && subscriberConnection.serverId !== commandConnection.serverId) {
      subscriberConnection.reconnect(new Error('Redis is another server than before'))
    }
    publisher.resume()
    subscriber.repairGaps()
    this.#onReady(session)
  }

  #onSubscriberReady (session: RedisSession): void {
    session.subscriber.resubscribe()
    this.#onReady(session)
  }

  #onReady (session: RedisSession): void {
    if (!isConnected(session)) return
    session.outages.connect.end()
    session.ready.resolve()
  }

  /** Reports once that some processes with this Redis keep history and some do not. */
  #reportMixedOptions (receiver: Receiver): void {
    if (this.#hasReportedOptions) return
    this.#hasReportedOptions = true
    const text = this.keepsHistory
      ? 'another process publishes without history: members receive its messages, but without positions'
      : "other processes keep history, so this one's messages are kept too: give all processes the same 'history'"
    receiver.notice?.(text, { stage: 'publish' })
  }

  /** Returns the leading script arguments: a fresh epoch, key prefix, history size, history ttl, meta ttl. */
  #scriptArguments (): string[] {
    const { keyPrefix, history } = this.#settings
    const { size = 0, ttl = 0 } = history ?? {}
    return [`${this.#id}${(this.#epochs++).toString(36)}`, keyPrefix, String(size), String(ttl), String(META_TTL)]
  }
}

function isConnected ({ commandConnection, subscriberConnection }: RedisSession): boolean {
  return commandConnection.isReady && subscriberConnection.isReady
}

function noConnection ({ commandConnection, subscriberConnection }: RedisSession): string {
  const cause = commandConnection.lastError ?? subscriberConnection.lastError
  return `no connection to Redis: ${cause?.message ?? 'it was lost'}`
}

function notOpen (): Error {
  return new errors.RP_ERR_BROKER_UNAVAILABLE('the broker is not open')
}
