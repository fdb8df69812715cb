/** One connection to Redis: fails at once while there is none, so that what waits and what is repeated is decided in one place. */
import { Backoff } from '../../util/backoff.ts'
import { isReply, type RedisClient, type RedisConnection } from './redis-client.ts'
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

const LOST = 'The connection to Redis was lost'

/** The bounds of the delay before a connection is given up once more, and the time without trouble after which it is given up at once, in milliseconds. */
const RETRY = { min: 100, max: 5000, forgotten: 60_000 }

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
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  /** Counts the connections that were made, so that an answer is not taken for one of a later connection. */
  #session = 0
  #isGivenUp = false
  #givenUpAt = -Infinity
  #reconnecting: NodeJS.Timeout | undefined

  /** @param patience milliseconds that Redis may leave a command without an answer before the connection is given up */
  constructor (client: RedisClient, name: string, patience: number, events: ConnectionEvents) {
    this.#events = events
    this.redis = client.duplicate({ ...OPTIONS, connectionName: name, socketTimeout: patience })
    this.redis.on('ready', () => this.#greet())
    this.redis.on('close', () => this.#lose())
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
    const session = this.#session
    try {
      return await this.#evaluate(script, key, args)
    } catch (error) {
      // without an answer the connection is of no use, though it may seem to be there
      if (!isReply(error) && session === this.#session && this.isReady) {
        this.#events.error(new Error(LOST))
        this.reconnect()
      }
      throw error
    }
  }

  /**
   * Begins anew because of an answer, with a server that may be another: at once the first time, then after growing delays, until `settle` is
   * called or nothing has happened for a while.
   */
  reconnect (cause?: Error): void {
    if (this.#isGivenUp) return
    this.#isGivenUp = true
    this.isReady = false
    this.failure = cause
    const now = performance.now()
    if (now - this.#givenUpAt > RETRY.forgotten) this.#backoff.reset()
    this.#givenUpAt = now
    const { isFresh } = this.#backoff
    const delay = this.#backoff.next()
    this.#reconnecting = setTimeout(() => this.redis.disconnect(true), isFresh ? 0 : delay)
  }

  /** The server does its work: the next `reconnect` is at once. */
  settle (): void {
    this.#backoff.reset()
  }

  close (): void {
    clearInterval(this.#ping)
    clearTimeout(this.#reconnecting)
    this.#session++
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

  /** Forgets what was under way on the connection before. @returns the number of the connection */
  #begin (): number {
    this.#isGivenUp = false
    clearTimeout(this.#reconnecting)
    return ++this.#session
  }

  #lose (): void {
    this.#begin()
    if (!this.isReady) return
    this.isReady = false
    // there may have been no error: the server said goodbye
    this.#events.error(new Error(LOST))
  }

  async #greet (): Promise<void> {
    const session = this.#begin()
    let server = ''
    try {
      server = /master_replid:(\w+)/.exec(String(await this.redis.call('INFO', 'replication')))?.[1] ?? ''
    } catch (error) {
      // who may not ask goes on without knowing
      if (session === this.#session && this.redis.status === 'ready') this.failure = error as Error
    }
    // a lost connection comes back and greets again
    if (session !== this.#session || this.redis.status !== 'ready') return
    this.server = server
    this.isReady = true
    this.#events.ready()
  }
}
