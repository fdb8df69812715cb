/**
 * Publishes messages through Redis. All waiting messages go out in one script call, and the next call follows its
 * reply: on a slow line calls grow instead of piling up, and a call that is repeated after a lost connection keeps its
 * order.
 */
import { errors } from '../../errors.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Outage } from '../../util/outage.ts'
import type { PublishOptions } from '../broker.ts'
import { refusePublish } from '../not-published.ts'
import { encodeTurns, type PublishTurn } from './publish-turn.ts'
import { isErrorReply, isTemporary } from './redis-client.ts'
import type { RedisConnection } from './redis-connection.ts'
import { publish } from './scripts.ts'

/** Limits of the messages that wait for Redis. */
export interface QueueLimits {
  messages: number
  bytes: number
  /** Milliseconds that a message waits before it is rejected. */
  timeout: number
}

export interface PublisherOptions {
  queue: QueueLimits
  /** Whether this process keeps history. */
  keepsHistory: boolean
  /** The key with the number of this process's last call, by which Redis skips a repeated call. */
  senderKey: string
  /** Returns the leading arguments of a script call. */
  scriptArguments: () => string[]
  /** Prefix of all channels, before the group's name. */
  channelPrefix: string
  /** The time in which Redis refuses publish calls. */
  outage: Outage
  /** Called if this process keeps no history, but Redis keeps its messages because other processes do. */
  onKeptForOthers: () => void
}

/**
 * The script call in flight. It keeps its number when it is repeated after a lost connection. A call without turns
 * probes whether Redis accepts calls again.
 */
interface PublishCall {
  number: number
  turns: PublishTurn[]
  /** The `serverId` of the connection at the first attempt. */
  serverId: string
  /** `true` until the current attempt is answered or fails. */
  isSent: boolean
}

/** Limits of one call. Redis serves no other client while it runs the call. */
const CALL_LIMIT = { messages: 1000, bytes: 1024 * 1024 }
/** Milliseconds for which Redis keeps the number of the last call, in addition to the time in which it is repeated. */
const SENDER_TTL = 60_000
/** Bounds of the delay before a call without messages probes a Redis that refuses calls, in milliseconds. */
const PROBE_DELAY = { min: 1000, max: 30_000 }

export class Publisher {
  readonly #options: PublisherOptions
  readonly #connection: RedisConnection
  readonly #waiting: PublishTurn[] = []
  /** The turn that takes new messages, the last one of `#waiting`. */
  #openTurn: PublishTurn | undefined
  #call: PublishCall | undefined
  #calls = 0
  #messages = 0
  #bytes = 0
  #isClosed = false
  #expiryTimer: NodeJS.Timeout | undefined
  readonly #backoff = new Backoff(PROBE_DELAY.min, PROBE_DELAY.max)
  #probeTimer: NodeJS.Timeout | undefined

  constructor (connection: RedisConnection, options: PublisherOptions) {
    this.#options = options
    this.#connection = connection
  }

  /** Milliseconds for which the oldest message has waited. */
  get age (): number {
    const oldest = this.#call?.turns[0] ?? this.#waiting[0]
    return oldest === undefined ? 0 : performance.now() - oldest.since
  }

  /**
   * Resolves when Redis has published the message, or rejects with RP_ERR_NOT_PUBLISHED. The caller may ignore that.
   */
  publish (group: string, payload: string, options?: PublishOptions): Promise<void> {
    const { queue } = this.#options
    const bytes = Buffer.byteLength(payload)
    if (this.#isClosed) return refusePublish('the broker is closed')
    if (this.#messages >= queue.messages || this.#bytes + bytes > queue.bytes) {
      return refusePublish(`${this.#messages} messages of ${this.#bytes} bytes wait for Redis already`)
    }

    const turn = this.#openTurn ?? this.#beginTurn()
    let batch = turn.batches.at(-1)
    if (batch?.group !== group) {
      batch = { group, payloads: [], options: [], done: Promise.withResolvers() }
      batch.done.promise.catch(() => {})
      turn.batches.push(batch)
    }
    if (options?.stamps !== undefined) batch.options[batch.payloads.length] = options
    batch.payloads.push(payload)
    turn.messages++
    turn.bytes += bytes
    this.#messages++
    this.#bytes += bytes
    if (turn.messages === CALL_LIMIT.messages || turn.bytes > CALL_LIMIT.bytes) this.#openTurn = undefined
    return batch.done.promise
  }

  /** Continues on a new connection: repeats the call in flight, then sends the waiting messages. */
  resume (): void {
    const call = this.#call
    const { keepsHistory, outage } = this.#options
    if (call === undefined) {
      this.#sendWaiting()
    } else if (!keepsHistory && call.serverId !== this.#connection.serverId) {
      // this server can't skip a call that the previous one has run: with history it starts a new epoch, without
      // history members would receive the messages twice
      this.#endCall(call, 'Redis restarted or failed over before it confirmed it')
    } else if (!call.isSent) {
      call.turns = call.turns.filter(({ isSettled }) => !isSettled)
      // a call without messages remains a probe while Redis refuses calls
      if (call.turns.length === 0 && outage.error === undefined) this.#endCall(call)
      else this.#send(call)
    }
    if (this.#call === undefined && outage.error !== undefined) this.#probeLater()
  }

  /** Rejects further messages, and resolves when each waiting message is published or has reached its timeout. */
  async close (): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#probeTimer)
    const turns = [...this.#call?.turns ?? [], ...this.#waiting]
    await Promise.allSettled(turns.flatMap(({ batches }) => batches.map(({ done }) => done.promise)))
    clearTimeout(this.#expiryTimer)
    clearTimeout(this.#probeTimer)
  }

  #beginTurn (): PublishTurn {
    const turn: PublishTurn = { batches: [], messages: 0, bytes: 0, since: performance.now(), isSettled: false }
    this.#openTurn = turn
    this.#waiting.push(turn)
    this.#expiryTimer ??= setTimeout(this.#expire, this.#options.queue.timeout)
    // runs at the end of the turn, so that one call takes all of its messages
    setImmediate(() => {
      this.#openTurn = undefined
      this.#sendWaiting()
    })
    return turn
  }

  #sendWaiting (): void {
    if (this.#call !== undefined || this.#waiting.length === 0 || !this.#connection.isReady) return

    let count = 0
    let messages = 0
    let bytes = 0
    for (const turn of this.#waiting) {
      messages += turn.messages
      bytes += turn.bytes
      if (count > 0 && (messages > CALL_LIMIT.messages || bytes > CALL_LIMIT.bytes)) break
      count++
    }
    this.#openTurn = undefined
    this.#beginCall(this.#waiting.splice(0, count))
  }

  #beginCall (turns: PublishTurn[]): void {
    this.#call = { number: ++this.#calls, turns, serverId: this.#connection.serverId, isSent: false }
    this.#send(this.#call)
  }

  async #send (call: PublishCall): Promise<void> {
    const connection = this.#connection
    const { senderKey, scriptArguments, queue, channelPrefix, outage } = this.#options
    call.isSent = true
    try {
      const ttl = String(queue.timeout + SENDER_TTL)
      const reply = await connection.run(publish, senderKey, [
        ...scriptArguments(), String(call.number), ttl, channelPrefix, ...encodeTurns(call.turns)
      ])
      connection.resetBackoff()
      this.#stopProbing()
      outage.end()
      this.#endCall(call, undefined, this.#failuresOf(reply as string[]))
    } catch (cause) {
      const error = cause as Error
      call.isSent = false
      // without a reply the connection was lost, and `resume` repeats the call on the next one
      if (!isErrorReply(error)) return
      outage.fail(error)
      if (isTemporary(error)) {
        // `resume` repeats the call, with another server or with the same one later
        connection.reconnect(error)
      } else {
        this.#endCall(call, error.message)
        this.#probeLater()
      }
    }
  }

  /** Decodes the reply to a publish call. @returns the reason for each group that failed */
  #failuresOf ([isKeptForOthers, ...failures]: readonly string[]): Map<string, string> {
    if (isKeptForOthers === '1') this.#options.onKeptForOthers()
    const reasons = new Map<string, string>()
    for (let at = 0; at < failures.length; at += 2) reasons.set(String(failures[at]), String(failures[at + 1]))
    return reasons
  }

  /** Plans a call without messages, which notices the end of `outage` even if the app publishes nothing. */
  #probeLater (): void {
    if (this.#isClosed || this.#probeTimer !== undefined) return
    this.#probeTimer = setTimeout(() => {
      this.#probeTimer = undefined
      if (this.#call === undefined && this.#connection.isReady) this.#beginCall([])
      else this.#probeLater()
    }, this.#backoff.next()).unref()
  }

  #stopProbing (): void {
    clearTimeout(this.#probeTimer)
    this.#probeTimer = undefined
    this.#backoff.reset()
  }

  /** Ends the call in flight. @param reason why all of it failed @param failures why single groups failed */
  #endCall (call: PublishCall, reason?: string, failures?: ReadonlyMap<string, string>): void {
    for (const turn of call.turns) this.#settle(turn, reason, failures)
    this.#call = undefined
    this.#sendWaiting()
  }

  #settle (turn: PublishTurn, reason: string | undefined, failures?: ReadonlyMap<string, string>): void {
    if (turn.isSettled) return
    turn.isSettled = true
    this.#messages -= turn.messages
    this.#bytes -= turn.bytes
    for (const { group, done } of turn.batches) {
      const why = reason ?? failures?.get(group)
      if (why === undefined) done.resolve()
      else done.reject(new errors.RP_ERR_NOT_PUBLISHED(why))
    }
  }

  #expire = (): void => {
    const { timeout } = this.#options.queue
    const reason = `Redis did not confirm it within ${timeout} ms`
    const isOld = ({ since }: PublishTurn) => since + timeout <= performance.now()
    for (const turn of this.#call?.turns ?? []) {
      if (isOld(turn)) this.#settle(turn, reason)
    }
    const young = this.#waiting.findIndex((turn) => !isOld(turn))
    for (const turn of this.#waiting.splice(0, young === -1 ? Infinity : young)) this.#settle(turn, reason)

    const next = this.#call?.turns.find(({ isSettled }) => !isSettled) ?? this.#waiting[0]
    this.#expiryTimer = next && setTimeout(this.#expire, Math.max(1, next.since + timeout - performance.now()))
  }
}
