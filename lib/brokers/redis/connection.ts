/** One connection to Redis: fails at once while there is none, so that what waits and what is repeated is decided in one place. */
import type { RedisClient, RedisConnection } from './client.ts'
import type { Script } from './scripts.ts'

/** What a connection tells. */
export interface ConnectionEvents {
  /** Redis answers, now or again; every script and subscription of before is gone. */
  ready (): void
  error (error: Error): void
}

/**
 * Overrides what an application may have set for its own commands: a command that fails when the connection does is the broker's to repeat, and
 * ioredis must not queue, resend, resubscribe or prefix anything by itself.
 */
const OPTIONS = {
  lazyConnect: true,
  keyPrefix: '',
  enableOfflineQueue: false,
  enableReadyCheck: true,
  enableAutoPipelining: false,
  autoResubscribe: false,
  autoResendUnfulfilledCommands: false,
  // fails what is under way as soon as the connection is lost
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

/** A connection of the broker's own, made after the client that the application handed in. */
export class Connection {
  readonly redis: RedisConnection
  /** Whether commands can be sent. */
  isReady = false
  /** Who Redis is: another one after a restart and after a failover. Empty where Redis does not tell. */
  server = ''
  /** What went wrong last. */
  failure: Error | undefined
  readonly #events: ConnectionEvents
  readonly #ping: NodeJS.Timeout

  /** @param patience milliseconds that Redis may leave a command without an answer before the connection is given up */
  constructor (client: RedisClient, name: string, patience: number, events: ConnectionEvents) {
    this.#events = events
    this.redis = client.duplicate({ ...OPTIONS, connectionName: name, socketTimeout: patience })
    this.redis.on('ready', () => this.#greet())
    this.redis.on('close', () => { this.isReady = false })
    this.redis.on('error', (error: Error) => {
      this.failure = error
      events.error(error)
    })
    this.redis.connect().catch(() => {})
    // an idle connection that was cut without a word is found out
    this.#ping = setInterval(() => { this.redis.call('PING').catch(() => {}) }, patience)
    this.#ping.unref()
  }

  /** Runs a script. @throws as ioredis does, at once if there is no connection */
  async run (script: Script, key: string, args: string[]): Promise<unknown> {
    try {
      return await this.redis.call('EVALSHA', script.sha, '1', key, ...args)
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
      return await this.redis.call('EVAL', script.lua, '1', key, ...args)
    }
  }

  /** Begins anew, with a server that may be another. */
  reconnect (): void {
    this.isReady = false
    this.redis.disconnect(true)
  }

  close (): void {
    clearInterval(this.#ping)
    this.isReady = false
    this.redis.disconnect()
  }

  async #greet (): Promise<void> {
    try {
      this.server = /master_replid:(\w+)/.exec(String(await this.redis.call('INFO', 'replication')))?.[1] ?? ''
    } catch (error) {
      // a lost connection comes back and greets again; who may not ask goes on without knowing
      if (this.redis.status !== 'ready') return
      this.failure = error as Error
    }
    this.isReady = true
    this.#events.ready()
  }
}
