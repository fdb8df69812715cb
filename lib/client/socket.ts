/** One connection that comes back: dials, beats, notices when the line is dead, waits and dials again. */
import type { CloseCode } from '../protocol/codes.ts'
import { backoff, type Backoff } from './retry-delay.ts'
import { after } from './option-checks.ts'
import type { Token } from './token.ts'

/** What the client needs of a WebSocket: the standard one has it, and that of `ws`. */
export interface WebSocketLike {
  readonly bufferedAmount?: number
  send (data: string): void
  close (code?: number): void
  addEventListener (type: 'open', listener: (event: unknown) => void): void
  addEventListener (type: 'error', listener: (event: { error?: unknown, message?: unknown }) => void): void
  addEventListener (type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener (type: 'close', listener: (event: { code: number, reason: string }) => void): void
}

/** Makes WebSockets. */
export type WebSocketConstructor = new (url: string) => WebSocketLike

/** The address of the server, or a function that gives it. */
export type UrlSource = string | URL | (() => string | URL | Promise<string | URL>)

/**
 * `connecting`: an attempt is under way. `open`: requests can be made. `waiting`: the next attempt comes by itself. `idle`: none comes by
 * itself, because `connect()` was not called yet or the page is hidden. `closed`: for good.
 */
export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed'

/** Why a state has come. */
export interface StateChange {
  readonly state: State
  /**
   * `opened`; `lost`: the connection was closed or never came about, `code`, `text` and `cause` say more; `silent`: nothing was heard after
   * a ping; `slow`: it took too long to open; `token`, `url`: the function failed; `refused`: the server does not want the client back;
   * `retry`: the wait is over; `wake`: the network or the page is back; `offline`: the network is gone; `hidden`: the page was hidden for
   * `disconnectWhenHidden`; `connect`, `reconnect`, `close`: the application called that.
   */
  readonly reason: 'opened' | 'lost' | 'silent' | 'slow' | 'token' | 'url' | 'refused' | 'retry' | 'wake' | 'offline' | 'hidden' | 'connect' | 'reconnect' | 'close'
  /** The close code. */
  readonly code?: number
  /** The reason that came with the close code. */
  readonly text?: string
  /** Milliseconds until the next attempt. */
  readonly delay?: number
  /** What the token or URL function or the WebSocket's constructor threw, or what the WebSocket's `error` event tells; browsers tell nothing. */
  readonly cause?: unknown
}

/** How the socket behaves. Durations are milliseconds; `Infinity` is never. */
export interface SocketOptions {
  readonly url: UrlSource
  readonly WebSocket: WebSocketConstructor
  readonly token: Token
  readonly pingInterval: number
  readonly connectTimeout: number
  readonly disconnectWhenHidden: number
  readonly backoff: Backoff
  readonly isFinal: (code: number, text: string) => boolean
}

/** Whom the socket tells. */
export interface SocketListener {
  /** The state has changed. */
  changed (change: StateChange): void
  /** A message came. */
  received (text: string): void
  /** It is time for a ping. @param isFirst whether it is the first on this connection */
  ping (isFirst: boolean): void
  /** A closed connection has really ended. */
  ended (): void
}

/** What ended a connection, or an attempt. */
type Loss = Pick<StateChange, 'reason' | 'code' | 'text' | 'cause'>

/** The table would be bundled whole. */
const NORMAL: CloseCode = 1000
/** Texts longer than this, in characters, take their time on a slow line. */
const LARGE = 32_768
/** The slowest line that is not taken for a dead one, in bytes each millisecond. */
const SLOWEST = 10
/** Milliseconds that a connection must be open, and heard after that, to count as good: the next wait is a short one again. */
const GOOD = 5000

/**
 * Whether a close code means "do not come back": those that mirror a client error of HTTP, but for those where a second attempt can
 * go better, 4408 (too slow) and 4429 (too many), and 4401 if there may be a new token.
 */
export function isFinal (code: number, renewable: boolean): boolean {
  return /^44(?!08|29)..$/.test(String(code)) && !(code === 4401 && renewable)
}

/** A connection that is made again whenever it breaks. */
export type Socket = ReturnType<typeof createSocket>

/** Makes the connection of a client; `start()` begins the first attempt. */
export function createSocket (options: SocketOptions & SocketListener) {
  const { url, token, connectTimeout } = options
  let state: State = 'idle'
  let socket: WebSocketLike | undefined
  /** The timer of the state: of the attempt, of the next beat, or of the wait. */
  let timer: ReturnType<typeof setTimeout> | undefined
  /** Runs while the page is hidden. */
  let hiding: ReturnType<typeof setTimeout> | undefined
  /** Whether the page is hidden for so long that the connection was let go. */
  let isHidden = false
  /** Counts the changes of state, so that an attempt knows whether it still counts. */
  let attempts = 0
  /** Attempts that failed since a connection was good. */
  let failures = 0
  /** Attempts in a row that were given up because the network came back. */
  let woken = 0
  /** When the last attempt began, when the connection opened, and before when the server wants no attempt, as `performance.now()` tells. */
  let dialledAt = 0
  let openedAt = 0
  let notBefore = 0
  let isPinging = false
  let isHeard = false
  /** Until when a large text may be on its way, in either direction: a WebSocket tells only of whole messages. */
  let patience = 0
  /** Whether the last ping was sent after the last large text. */
  let isBehind = false
  /** What was unsent at the last beat. */
  let unsent = 0

  const is = (wanted: State) => state === wanted
  /** Whether there is a connection or an attempt to make one. */
  const isUp = () => is('open') || is('connecting')

  const schedule = (run: () => void, delay: number) => {
    clearTimeout(timer)
    timer = after(delay, run)
  }

  const enter = (change: StateChange) => {
    clearTimeout(timer)
    attempts++
    state = change.state
    if (change.delay) schedule(() => connect('retry'), change.delay)
    if (is('closed')) clearTimeout(hiding)
    options.changed(change)
  }

  const drop = (change: StateChange) => {
    const dropped = socket
    socket = undefined
    if (!change.code) dropped?.close()
    enter(change)
  }

  const lose = (loss: Loss) => {
    woken = 0
    const retryAfter = Number(/retry_after=(\d+)/.exec(loss.text ?? '')?.[1] ?? 0)
    notBefore = performance.now() + retryAfter
    drop({ ...loss, state: 'waiting', delay: backoff(options.backoff, failures++, retryAfter) })
  }

  /** Begins an attempt now; what is there, or under way, is given up. */
  const connect = (reason: 'retry' | 'wake' | 'connect' | 'reconnect') => {
    if (isUp()) {
      const before = woken
      lose({ reason })
      woken = before + 1
    }
    // a listener may have closed, or connected
    if (isUp() || is('closed')) return
    isHidden = false
    enter({ state: 'connecting', reason })
    if (!is('connecting')) return
    try {
      dial()
    } catch (cause) {
      lose({ reason: 'lost', cause })
    }
  }

  /** Asks for the token and the URL where they have to be asked for, else opens the connection at once. */
  const dial = () => {
    dialledAt = performance.now()
    schedule(() => lose({ reason: 'slow' }), connectTimeout)
    if (token.renewable || typeof url === 'function') prepare(attempts)
    else open(url)
  }

  const prepare = async (attempt: number) => {
    let reason: Loss['reason'] = 'token'
    try {
      // an answer of the attempt before may never come
      if (token.renewable) await token.renew(true)
      reason = 'url'
      const target = typeof url === 'function' ? await url() : url
      reason = 'lost'
      if (attempt === attempts) open(target)
    } catch (cause) {
      if (attempt === attempts) lose({ reason, cause })
    }
  }

  const open = (target: string | URL) => {
    const opening = socket = new options.WebSocket(String(target))
    let cause: unknown
    // what a socket that was given up still says is nobody's business
    const own = <Event>(listen: (event: Event) => void) => (event: Event) => {
      if (opening === socket) listen(event)
    }
    opening.addEventListener('open', own(() => {
      if (is('closed')) return
      isPinging = false
      woken = patience = unsent = 0
      openedAt = performance.now()
      enter({ state: 'open', reason: 'opened' })
      if (is('open')) beat(true)
    }))
    opening.addEventListener('message', own(({ data }) => {
      if (!is('open')) return
      isHeard = true
      if (performance.now() - openedAt >= GOOD) failures = 0
      options.received(String(data))
    }))
    opening.addEventListener('close', own(({ code, reason: text }) => {
      if (is('closed')) options.ended()
      else if (options.isFinal(code, text)) enter({ state: 'closed', reason: 'refused', code, text })
      else lose({ reason: 'lost', code, text, ...(cause !== undefined && { cause }) })
    }))
    opening.addEventListener('error', ({ error, message }) => {
      // Node.js has an error without text for all that can be wrong
      if (error !== undefined) cause = message ? error : new Error('no WebSocket at this address', { cause: error })
    })
  }

  /** Sends a ping unless one is under way, and gives the line up if nothing is heard, and nothing moves, until the next beat. */
  const beat = (isFirst = false) => {
    isHeard = false
    schedule(() => {
      const before = unsent
      unsent = socket?.bufferedAmount ?? 0
      if (isHeard || unsent < before || performance.now() < patience) beat()
      else lose({ reason: 'silent' })
    }, options.pingInterval)
    if (isPinging) return
    isPinging = isBehind = true
    options.ping(isFirst)
  }

  /** A large text comes or goes: no pong can come until it has arrived. */
  const expect = (bytes: number) => {
    patience = Math.max(patience, performance.now()) + bytes / SLOWEST
    isBehind = false
  }

  /**
   * Tries again now, though not sooner after the last attempt than the shortest wait, nor than the server wants; an open line is asked for a
   * sign of life. An attempt under way is given up, as it may be one of the old network: each one in a row gets twice the time of the last.
   */
  const wake = () => {
    if (is('open')) {
      if (!isPinging) beat()
    } else if (!is('idle')) {
      const time = Math.min(options.backoff.min * 2 ** woken, connectTimeout)
      schedule(() => connect('wake'), Math.max(dialledAt + time, notBefore) - performance.now())
    }
  }

  return {
    get state () {
      return state
    },

    /** Makes the first attempt. @throws what the WebSocket's constructor throws, for a URL that is none */
    start () {
      state = 'connecting'
      try {
        dial()
      } catch (error) {
        clearTimeout(timer)
        throw error
      }
    },

    connect,
    expect,

    /** The network is back. */
    online: wake,

    /** Sends text, while the state is `open`. */
    send (text: string) {
      if (text.length > LARGE) expect(text.length)
      socket?.send(text)
    },

    /** A pong came: the next ping may go, and all that was sent before this one has arrived. */
    pong () {
      isPinging = false
      if (isBehind) patience = 0
    },

    /** The network is gone: what is open is dead, though the runtime may not say so for minutes. */
    offline () {
      if (isUp()) lose({ reason: 'offline' })
    },

    /** The page was hidden, which ends the connection after a while, or it is shown again. */
    shown (isShown: boolean) {
      clearTimeout(hiding)
      if (!isShown) {
        hiding = after(options.disconnectWhenHidden, () => {
          if (is('idle')) return
          isHidden = true
          drop({ state: 'idle', reason: 'hidden' })
        })
      } else if (isHidden) connect('wake')
      else wake()
    },

    /** Ends the connection for good. */
    close () {
      if (is('closed')) return
      const last = socket
      enter({ state: 'closed', reason: 'close' })
      if (last) last.close(NORMAL)
      else queueMicrotask(options.ended)
    }
  }
}
