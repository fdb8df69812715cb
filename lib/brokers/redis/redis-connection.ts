/**
 * One connection to Redis. Commands fail at once while it is down: publisher, reader and subscriber decide what is
 * retried, and ioredis retries nothing.
 */
import { Backoff } from '../../util/backoff.ts'
import { isErrorReply, type DuplicatedClient, type RedisClient } from './redis-client.ts'
import type { Script } from './scripts.ts'

/** Callbacks of a Redis connection. */
export interface RedisConnectionEvents {
  /** Redis accepts commands on a new connection; scripts in flight and subscriptions of the previous one are lost. */
  onReady (): void
  onError (error: Error): void
}

/** Overrides of the ioredis options that an application may have set for its own commands. */
const IOREDIS_OPTIONS = {
  lazyConnect: true,
  keyPrefix: '',
  enableOfflineQueue: false,
  enableReadyCheck: true,
  enableAutoPipelining: false,
  autoResubscribe: false,
  autoResendUnfulfilledCommands: false,
  // rejects the commands in flight as soon as the connection is lost
  maxRetriesPerRequest: 0,
  commandTimeout: undefined,
  reconnectOnError: null,
  readOnly: false,
  monitor: false,
  stringNumbers: false,
  replyMapping: 'legacy',
  scripts: undefined,
  showFriendlyErrorStack: false
}

const CONNECTION_LOST = 'The connection to Redis was lost'

/**
 * Bounds of the delay before a reconnect, and the time after which the next reconnect is immediate again, in
 * milliseconds.
 */
const RECONNECT = { min: 100, max: 5000, resetAfter: 60_000 }

/** A connection of the Redis broker: a duplicate of the application's client. */
export class RedisConnection {
  readonly redis: DuplicatedClient
  /** Whether Redis accepts commands. */
  isReady = false
  /**
   * The `master_replid` of the server, which changes with a restart and a failover. Empty if Redis does not report it.
   */
  serverId = ''
  /** The latest error of this connection. */
  lastError: Error | undefined
  readonly #events: RedisConnectionEvents
  readonly #ping: NodeJS.Timeout
  readonly #backoff = new Backoff(RECONNECT.min, RECONNECT.max)
  /** Number of the current connection. A reply to an earlier number is ignored. */
  #generation = 0
  #isReconnecting = false
  #reconnectedAt = -Infinity
  #reconnectTimer: NodeJS.Timeout | undefined

  /** @param replyTimeout milliseconds without a reply after which ioredis closes the socket and reconnects */
  constructor (client: RedisClient, name: string, replyTimeout: number, events: RedisConnectionEvents) {
    this.#events = events
    this.redis = client.duplicate({ ...IOREDIS_OPTIONS, connectionName: name, socketTimeout: replyTimeout })
    this.redis.on('ready', () => this.#onReady())
    this.redis.on('close', () => this.#onClose())
    this.redis.on('error', (error: Error) => {
      this.lastError = error
      events.onError(error)
    })
    this.redis.connect().catch(() => {})
    // a ping detects that an idle connection is broken
    this.#ping = setInterval(() => { this.redis.call('PING').catch(() => {}) }, replyTimeout)
    this.#ping.unref()
  }

  /**
   * Runs a script, uploading it if Redis does not have it.
   *
   * @throws the error of ioredis, at once without a connection
   */
  async run (script: Script, key: string, args: string[]): Promise<unknown> {
    const generation = this.#generation
    try {
      return await this.#evaluate(script, key, args)
    } catch (error) {
      // a command that fails without a reply leaves a connection that looks open but is broken
      if (!isErrorReply(error) && generation === this.#generation && this.isReady) {
        this.#events.onError(new Error(CONNECTION_LOST))
        this.reconnect()
      }
      throw error
    }
  }

  /**
   * Reconnects because of a refused command; the server may be another one then. The first reconnect is immediate, the
   * next ones follow growing delays until `resetBackoff` or a minute without a reconnect.
   */
  reconnect (cause?: Error): void {
    if (this.#isReconnecting) return
    this.#isReconnecting = true
    this.isReady = false
    this.lastError = cause
    const now = performance.now()
    if (now - this.#reconnectedAt > RECONNECT.resetAfter) this.#backoff.reset()
    this.#reconnectedAt = now
    const { isFresh } = this.#backoff
    const delay = this.#backoff.next()
    this.#reconnectTimer = setTimeout(() => this.redis.disconnect(true), isFresh ? 0 : delay)
  }

  /** Makes the next `reconnect` immediate, since Redis accepts commands. */
  resetBackoff (): void {
    this.#backoff.reset()
  }

  close (): void {
    clearInterval(this.#ping)
    clearTimeout(this.#reconnectTimer)
    this.#generation++
    this.isReady = false
    this.redis.disconnect()
  }

  async #evaluate (script: Script, key: string, args: string[]): Promise<unknown> {
    try {
      return await this.redis.call('EVALSHA', script.sha, '1', key, ...args)
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
      return await this.redis.call('EVAL', script.lua, '1', key, ...args)
    }
  }

  /** Cancels a planned reconnect and ignores replies to the previous connection. @returns the new generation */
  #nextGeneration (): number {
    this.#isReconnecting = false
    clearTimeout(this.#reconnectTimer)
    return ++this.#generation
  }

  #onClose (): void {
    this.#nextGeneration()
    if (!this.isReady) return
    this.isReady = false
    // a server that closes the connection causes no error event
    this.#events.onError(new Error(CONNECTION_LOST))
  }

  async #onReady (): Promise<void> {
    const generation = this.#nextGeneration()
    let serverId = ''
    try {
      const info = String(await this.redis.call('INFO', 'replication'))
      serverId = /master_replid:(\w+)/.exec(info)?.[1] ?? ''
    } catch (error) {
      // an ACL may forbid INFO, which only a broker with history needs
      if (generation === this.#generation && this.redis.status === 'ready') this.lastError = error as Error
    }
    // a connection that was lost meanwhile becomes ready again
    if (generation !== this.#generation || this.redis.status !== 'ready') return
    this.serverId = serverId
    this.isReady = true
    this.#events.onReady()
  }
}
