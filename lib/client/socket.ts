/** One connection that comes back: dials, beats, notices when the line is dead, waits and dials again. */
import type { CloseCode } from '../protocol/codes.ts'
import { backoff, type Backoff } from './backoff.ts'
import { after } from './checks.ts'
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
  return code >= 4400 && code < 4500 && code !== 4408 && code !== 4429 && !(code === 4401 && renewable)
}

/** See {@link State}. */
export class Socket {
  readonly #options: SocketOptions
  readonly #listener: SocketListener
  #state: State = 'idle'
  #socket: WebSocketLike | undefined
  /** The timer of the state: of the attempt, of the next beat, or of the wait. */
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Runs while the page is hidden. */
  #hiding: ReturnType<typeof setTimeout> | undefined
  /** Whether the page is hidden for so long that the connection was let go. */
  #isHidden = false
  /** Counts the changes of state, so that an attempt knows whether it still counts. */
  #attempt = 0
  /** Attempts that failed since a connection was good. */
  #failures = 0
  /** Attempts in a row that were given up because the network came back. */
  #woken = 0
  /** When the last attempt began, when the connection opened, and before when the server wants no attempt, as `performance.now()` tells. */
  #dialled = 0
  #openedAt = 0
  #notBefore = 0
  #pinging = false
  #pinged = false
  #heard = false
  /** Until when a large text may be on its way, in either direction: a WebSocket tells only of whole messages. */
  #patience = 0
  /** Whether the last ping was sent after the last large text. */
  #isBehind = false
  /** What was unsent at the last beat. */
  #unsent = 0

  constructor (options: SocketOptions, listener: SocketListener) {
    this.#options = options
    this.#listener = listener
  }

  get state (): State {
    return this.#state
  }

  /** Whether there is a connection or an attempt to make one. */
  get #isUp (): boolean {
    return this.#state === 'open' || this.#state === 'connecting'
  }

  /** Makes the first attempt. @throws what the WebSocket's constructor throws, for a URL that is none */
  start (): void {
    this.#state = 'connecting'
    try {
      this.#dial()
    } catch (error) {
      clearTimeout(this.#timer)
      throw error
    }
  }

  /** Sends text, while the state is `open`. */
  send (text: string): void {
    if (text.length > LARGE) this.expect(text.length)
    this.#socket?.send(text)
  }

  /** A pong came: the next ping may go, and all that was sent before this one has arrived. */
  pong (): void {
    this.#pinging = false
    if (this.#isBehind) this.#patience = 0
  }

  /** A large text comes or goes: no pong can come until it has arrived. */
  expect (bytes: number): void {
    this.#patience = Math.max(this.#patience, performance.now()) + bytes / SLOWEST
    this.#isBehind = false
  }

  /**
   * Tries again now, though not sooner after the last attempt than the shortest wait, nor than the server wants; an open line is asked for a
   * sign of life. An attempt under way is given up, as it may be one of the old network: each one in a row gets twice the time of the last.
   */
  wake (): void {
    const { backoff: { min }, connectTimeout } = this.#options
    if (this.#state === 'open') {
      if (!this.#pinging) this.#beat()
    } else if (this.#state !== 'idle') {
      const time = Math.min(min * 2 ** this.#woken, connectTimeout)
      this.#schedule(() => this.connect('wake'), Math.max(this.#dialled + time, this.#notBefore) - performance.now())
    }
  }

  /** The network is gone: what is open is dead, though the runtime may not say so for minutes. */
  offline (): void {
    if (this.#isUp) this.#lose({ reason: 'offline' })
  }

  /** The page was hidden, which ends the connection after a while, or it is shown again. */
  shown (isShown: boolean): void {
    clearTimeout(this.#hiding)
    if (!isShown) this.#hiding = after(this.#options.disconnectWhenHidden, () => this.#letGo())
    else if (this.#isHidden) this.connect('wake')
    else this.wake()
  }

  /** Begins an attempt now; what is there, or under way, is given up. */
  connect (reason: 'retry' | 'wake' | 'connect' | 'reconnect'): void {
    if (this.#isUp) this.#lose({ reason }, this.#woken + 1)
    // a listener may have closed, or connected
    if (this.#isUp || this.state === 'closed') return
    this.#isHidden = false
    this.#enter('connecting')
    this.#listener.changed({ state: 'connecting', reason })
    if (this.state !== 'connecting') return
    try {
      this.#dial()
    } catch (cause) {
      this.#lose({ reason: 'lost', cause })
    }
  }

  /** Ends the connection for good. */
  close (): void {
    if (this.#state === 'closed') return
    this.#enter('closed')
    clearTimeout(this.#hiding)
    if (this.#socket === undefined) queueMicrotask(() => this.#listener.ended())
    else this.#socket.close(NORMAL)
    this.#listener.changed({ state: 'closed', reason: 'close' })
  }

  /** Asks for the token and the URL where they have to be asked for, else opens the connection at once. */
  #dial (): void {
    const { token, url, connectTimeout } = this.#options
    this.#dialled = performance.now()
    this.#schedule(() => this.#lose({ reason: 'slow' }), connectTimeout)
    if (token.renewable || typeof url === 'function') this.#prepare(this.#attempt)
    else this.#connect(url)
  }

  async #prepare (attempt: number): Promise<void> {
    const { token, url } = this.#options
    let reason: Loss['reason'] = 'token'
    try {
      // an answer of the attempt before may never come
      if (token.renewable) await token.renew(true)
      reason = 'url'
      const target = typeof url === 'function' ? await url() : url
      reason = 'lost'
      if (attempt === this.#attempt) this.#connect(target)
    } catch (cause) {
      if (attempt === this.#attempt) this.#lose({ reason, cause })
    }
  }

  #connect (url: string | URL): void {
    const socket = new this.#options.WebSocket(String(url))
    this.#socket = socket
    let cause: unknown
    // what a socket that was given up still says is nobody's business
    const own = <Event>(listener: (event: Event) => void) => (event: Event) => {
      if (socket === this.#socket) listener(event)
    }
    socket.addEventListener('open', own(() => this.#opened()))
    socket.addEventListener('message', own(({ data }) => this.#receive(data)))
    socket.addEventListener('close', own((event) => this.#ended(event, cause)))
    socket.addEventListener('error', ({ error, message }) => {
      // Node.js has an error without text for all that can be wrong
      if (error !== undefined) cause = message ? error : new Error('no WebSocket at this address', { cause: error })
    })
  }

  #opened (): void {
    if (this.#state === 'closed') return
    this.#pinging = this.#pinged = false
    this.#woken = this.#patience = this.#unsent = 0
    this.#openedAt = performance.now()
    this.#enter('open')
    this.#listener.changed({ state: 'open', reason: 'opened' })
    if (this.#state === 'open') this.#beat()
  }

  #receive (data: unknown): void {
    if (this.#state !== 'open') return
    this.#heard = true
    if (performance.now() - this.#openedAt >= GOOD) this.#failures = 0
    this.#listener.received(String(data))
  }

  #ended ({ code, reason }: { code: number, reason: string }, cause: unknown): void {
    if (this.#state === 'closed') return this.#listener.ended()
    if (!this.#options.isFinal(code, reason)) return this.#lose({ reason: 'lost', code, text: reason, ...(cause !== undefined && { cause }) })
    this.#enter('closed')
    clearTimeout(this.#hiding)
    this.#listener.changed({ state: 'closed', reason: 'refused', code, text: reason })
  }

  /** Sends a ping unless one is under way, and gives the line up if nothing is heard, and nothing moves, until the next beat. */
  #beat (): void {
    this.#heard = false
    this.#schedule(() => {
      const before = this.#unsent
      this.#unsent = this.#socket?.bufferedAmount ?? 0
      if (this.#heard || this.#unsent < before || performance.now() < this.#patience) this.#beat()
      else this.#lose({ reason: 'silent' })
    }, this.#options.pingInterval)
    if (this.#pinging) return
    this.#pinging = this.#isBehind = true
    this.#listener.ping(!this.#pinged)
    this.#pinged = true
  }

  #lose (loss: Loss, woken = 0): void {
    this.#woken = woken
    const retryAfter = Number(/retry_after=(\d+)/.exec(loss.text ?? '')?.[1] ?? 0)
    const delay = backoff(this.#options.backoff, this.#failures++, retryAfter)
    this.#notBefore = performance.now() + retryAfter
    this.#drop({ ...loss, state: 'waiting', delay })
  }

  /** A page that nobody sees needs no connection. */
  #letGo (): void {
    if (this.#state === 'idle') return
    this.#isHidden = true
    this.#drop({ state: 'idle', reason: 'hidden' })
  }

  #drop (change: StateChange): void {
    const socket = this.#socket
    this.#socket = undefined
    if (change.code === undefined) socket?.close()
    this.#enter(change.state)
    if (change.delay !== undefined) this.#schedule(() => this.connect('retry'), change.delay)
    this.#listener.changed(change)
  }

  #enter (state: State): void {
    clearTimeout(this.#timer)
    this.#attempt++
    this.#state = state
  }

  #schedule (run: () => void, delay: number): void {
    clearTimeout(this.#timer)
    this.#timer = after(delay, run)
  }
}
