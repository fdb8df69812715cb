/**
 * A WebSocket connection that is made again whenever it breaks: attempts, pings, detection of dead connections,
 * retries.
 */
import type { CloseCode } from '../protocol/codes.ts'
import type { Emitter } from './emitter.ts'
import { after } from './option-checks.ts'
import { watchPage } from './page-events.ts'
import { retryDelay, type DelayBounds } from './retry-delay.ts'
import type { State, StateChange, UrlSource, WebSocketConstructor, WebSocketLike } from './socket-types.ts'
import type { Token } from './token.ts'

/** An import of the table would put all of it into the bundle. */
const NORMAL: CloseCode = 1000
/** Messages longer than this, in characters, take time on a slow connection. */
const LARGE = 32_768
/** Throughput of the slowest connection that is not taken for a dead one, in bytes per millisecond. */
const SLOWEST = 10
/**
 * Milliseconds after which an open connection that still receives counts as good: the next retry delay is a short one
 * again.
 */
const GOOD = 5000

/** Settings of a connection. Durations are milliseconds; `Infinity` is never. */
export interface SocketOptions {
  readonly url: UrlSource
  readonly WebSocket: WebSocketConstructor
  readonly token: Token
  readonly emitter: Emitter
  readonly pingInterval: number
  readonly connectTimeout: number
  readonly disconnectWhenHidden: number
  readonly backoff: DelayBounds
  readonly isFinal: (code: number, text: string) => unknown
  /** Called after a change of the state. */
  changed (change: StateChange): void
  /** Called with the text of each message. */
  received (text: string): void
}

/** The end of a connection, or of an attempt. */
type Loss = Pick<StateChange, 'reason' | 'code' | 'text' | 'cause'>

/**
 * Whether a close code is final: codes that mirror a client error of HTTP, except 4408 (too slow) and 4429 (too many),
 * where a second attempt can succeed, and 4401 if a new token can be had.
 */
export function isFinalCode (code: number, canRenew: unknown): boolean {
  return /^44(?!08|29)..$/.test(String(code)) && !(code === 4401 && canRenew)
}

/** A connection that is made again whenever it breaks. */
export type Socket = ReturnType<typeof createSocket>

/** Makes the connection of a client; `connect()` begins the first attempt. */
export function createSocket ({ url, token, connectTimeout, emitter, ...options }: SocketOptions) {
  let state: State = 'idle'
  let socket: WebSocketLike | undefined
  /** The timer of the state: of the attempt, of the next ping, or of the retry. */
  let timer: ReturnType<typeof setTimeout> | undefined
  /** Whether the connection was closed because the page is hidden. */
  let isHidden = false
  /** Number of state changes: an attempt that is no longer current finds another number. */
  let changes = 0
  /** Failed attempts since the last good connection. */
  let failures = 0
  /** Attempts in a row that were given up because the network came back. */
  let wakes = 0
  /**
   * Start of the last attempt, opening of the connection, and earliest time that the server allows for an attempt, by
   * `performance.now()`.
   */
  let attemptedAt = 0
  let openedAt = 0
  let notBefore = 0
  let isPinging = false
  let hasReceived = false
  /**
   * Time until which a large message may be in transit, in either direction: a WebSocket reports only whole messages.
   */
  let patience = 0
  /** Whether the last ping was sent after the last large message. */
  let isPingLast = false
  /** Unsent bytes at the last ping interval. */
  let unsent = 0

  const is = (wanted: State) => state === wanted
  /** Whether there is a connection or an attempt to make one. */
  const isUp = () => is('open') || is('connecting')

  const schedule = (delay: number | undefined, run: () => void) => {
    clearTimeout(timer)
    timer = after(delay, run)
  }

  const enter = (change: StateChange) => {
    changes++
    state = change.state
    schedule(change.delay, () => connect('retry'))
    if (is('closed')) leavePage()
    options.changed(change)
  }

  const drop = (change: StateChange) => {
    const dropped = socket
    socket = undefined
    if (!change.code) dropped?.close()
    enter(change)
  }

  const lose = (loss: Loss) => {
    wakes = loss.reason === 'wake' ? wakes + 1 : 0
    const retryAfter = Number(loss.text?.match(/retry_after=(\d+)/)?.[1] ?? 0)
    notBefore = performance.now() + retryAfter
    drop({ ...loss, state: 'waiting', delay: retryDelay(options.backoff, failures++, retryAfter) })
  }

  /**
   * Begins an attempt now; gives up an existing connection or attempt.
   *
   * @param isFirst whether to throw what the WebSocket's constructor throws for an invalid URL
   */
  const connect = (reason: 'retry' | 'wake' | 'connect' | 'reconnect', isFirst = false) => {
    if (isUp()) lose({ reason })
    // a listener may have closed, or connected
    if (isUp() || is('closed')) return
    isHidden = false
    enter({ state: 'connecting', reason })
    if (!is('connecting')) return
    attemptedAt = performance.now()
    try {
      if (token.renew || typeof url === 'function') prepare(changes)
      else open(url)
      schedule(connectTimeout, () => lose({ reason: 'slow' }))
    } catch (cause) {
      if (!isFirst) return lose({ reason: 'lost', cause })
      leavePage()
      throw cause
    }
  }

  const prepare = async (current: number) => {
    let reason: Loss['reason'] = 'token'
    try {
      // the question of an earlier attempt may never be answered
      await token.renew?.(true)
      reason = 'url'
      const target = typeof url === 'function' ? await url() : url
      reason = 'lost'
      if (current === changes) open(target)
    } catch (cause) {
      if (current === changes) lose({ reason, cause })
    }
  }

  const open = (target: string | URL) => {
    const opening = socket = new options.WebSocket(String(target))
    let failure: { cause: unknown } | undefined
    // events of a connection that was given up have no effect
    const on = (type: string, listener: (event: never) => void) => {
      opening.addEventListener(type as 'open', (event) => {
        if (opening === socket) listener(event as never)
      })
    }
    on('open', () => {
      if (is('closed')) return
      isPinging = false
      wakes = patience = unsent = 0
      openedAt = performance.now()
      enter({ state: 'open', reason: 'opened' })
      if (is('open')) beat(true)
    })
    on('message', ({ data }: { data: unknown }) => {
      if (!is('open')) return
      hasReceived = true
      if (performance.now() - openedAt >= GOOD) failures = 0
      options.received(String(data))
    })
    on('close', ({ code, reason: text }: { code: number, reason: string }) => {
      if (is('closed')) emitter.emit('closed')
      else if (options.isFinal(code, text)) enter({ state: 'closed', reason: 'refused', code, text })
      else lose({ reason: 'lost', code, text, ...failure })
    })
    on('error', ({ error, message }: { error?: unknown, message?: unknown }) => {
      // Node.js reports every kind of failure as an error without text
      if (error === undefined) return
      failure = { cause: message ? error : new Error('no WebSocket at this URL', { cause: error }) }
    })
  }

  /** Sends text, while the state is `open`. */
  const send = (data: string) => {
    if (data.length > LARGE) expect(data.length)
    socket?.send(data)
    emitter.emit('log', { direction: 'send', data })
  }

  /**
   * Sends a ping unless one is unanswered, and drops the connection if it receives and sends nothing until the next
   * interval.
   */
  const beat = (hello?: true) => {
    hasReceived = false
    schedule(options.pingInterval, () => {
      const before = unsent
      unsent = socket?.bufferedAmount ?? 0
      if (hasReceived || unsent < before || performance.now() < patience) beat()
      else lose({ reason: 'silent' })
    })
    if (isPinging) return
    isPinging = isPingLast = true
    // the first ping asks for what the server announces only on request: its limits, and large messages
    send(JSON.stringify({ type: 'ping', id: Date.now(), hello }))
    emitter.emit('ping')
  }

  /** Allows time for a large message: no pong can come until it has arrived. */
  const expect = (bytes: number) => {
    patience = Math.max(patience, performance.now()) + bytes / SLOWEST
    isPingLast = false
  }

  /**
   * Tries again now, but not earlier after the last attempt than the shortest delay, nor than the server allows; pings
   * an open connection. A running attempt is given up, as it may belong to the old network: each one in a row gets
   * twice the time of the previous one.
   */
  const wake = () => {
    if (is('open')) {
      if (!isPinging) beat()
    } else if (!is('idle')) {
      const time = Math.min(options.backoff.min * 2 ** wakes, connectTimeout)
      schedule(Math.max(attemptedAt + time, notBefore) - performance.now(), () => connect('wake'))
    }
  }

  const leavePage = watchPage(wake, () => {
    // an open connection is dead, though the runtime may not report it for minutes
    if (isUp()) lose({ reason: 'offline' })
  }, () => {
    if (isHidden) connect('wake')
    else wake()
  }, () => {
    if (is('idle')) return
    isHidden = true
    drop({ state: 'idle', reason: 'hidden' })
  }, options.disconnectWhenHidden)

  return {
    get state () {
      return state
    },

    connect,
    expect,
    send,

    /** A pong came: the next ping may be sent, and everything sent before this one has arrived. */
    pong () {
      isPinging = false
      if (isPingLast) patience = 0
    },

    /** Ends the connection permanently. */
    close () {
      if (is('closed')) return
      const last = socket
      enter({ state: 'closed', reason: 'close' })
      if (last) last.close(NORMAL)
      else queueMicrotask(() => emitter.emit('closed'))
    }
  }
}
