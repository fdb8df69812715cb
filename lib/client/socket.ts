/** One connection that comes back: dials, beats, notices when the line is dead, waits and dials again. */
import { CloseCode } from '../protocol/codes.ts'
import { backoff, type Backoff } from './backoff.ts'
import type { Token } from './token.ts'

/** What the client needs of a WebSocket: the standard one has it, and that of `ws`. */
export interface WebSocketLike {
  send (data: string): void
  close (code?: number): void
  addEventListener (type: 'open' | 'error', listener: (event: unknown) => void): void
  addEventListener (type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener (type: 'close', listener: (event: { code: number, reason: string }) => void): void
}

/** Makes WebSockets. */
export type WebSocketConstructor = new (url: string) => WebSocketLike

/** `connecting`: an attempt is under way. `open`: requests can be made. `waiting`: the next attempt comes by itself. `closed`: for good. */
export type State = 'connecting' | 'open' | 'waiting' | 'closed'

/** Why a state has come. */
export interface StateChange {
  readonly state: State
  /**
   * `opened`; `lost`: the connection was closed or never came about, `code` and `text` say more; `silent`: nothing was heard after a
   * ping; `slow`: it took too long to open; `token`: the token function failed; `refused`: the server does not want the client back;
   * `retry`: the wait is over; `wake`: the network or the tab is back; `close`: `close()` was called.
   */
  readonly reason: 'opened' | 'lost' | 'silent' | 'slow' | 'token' | 'refused' | 'retry' | 'wake' | 'close'
  /** The close code. */
  readonly code?: number
  /** The reason that came with the close code. */
  readonly text?: string
  /** Milliseconds until the next attempt. */
  readonly delay?: number
  /** What the token function or the WebSocket's constructor threw. */
  readonly cause?: unknown
}

/** How the socket behaves. */
export interface SocketOptions {
  readonly url: string
  readonly WebSocket: WebSocketConstructor
  readonly token: Token
  readonly pingInterval: number
  readonly connectTimeout: number
  readonly backoff: Backoff
  readonly isFinal: (code: number, text: string) => boolean
}

/** Whom the socket tells. */
export interface SocketListener {
  /** The state has changed. */
  changed (change: StateChange): void
  /** A message came. */
  received (text: string): void
  /** It is time for a ping. */
  ping (): void
  /** A closed connection has really ended. */
  ended (): void
}

/** What ended a connection, or an attempt. */
type Loss = Pick<StateChange, 'reason' | 'code' | 'text' | 'cause'>

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
  #state: State = 'connecting'
  #socket: WebSocketLike | undefined
  /** The timer of the state: of the attempt, of the next beat, or of the wait. */
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Attempts that failed since the server was last heard. */
  #failures = 0
  #dialled = 0
  #pinging = false
  #heard = false

  /** @throws what the WebSocket's constructor throws, for a URL that is none */
  constructor (options: SocketOptions, listener: SocketListener) {
    this.#options = options
    this.#listener = listener
    try {
      this.#dial()
    } catch (error) {
      clearTimeout(this.#timer)
      throw error
    }
  }

  get state (): State {
    return this.#state
  }

  /** Sends text, while the state is `open`. */
  send (text: string): void {
    this.#socket?.send(text)
  }

  /** A pong came: the next ping may go. */
  pong (): void {
    this.#pinging = false
  }

  /** Tries again now, though not sooner after the last attempt than the shortest wait; an open line is asked for a sign of life. */
  wake (): void {
    if (this.#state === 'open') this.#beat()
    if (this.#state === 'waiting') {
      const rest = this.#dialled + this.#options.backoff.min - Date.now()
      this.#schedule(() => this.#redial('wake'), Math.max(0, rest))
    }
  }

  /** Ends the connection for good. */
  close (): void {
    if (this.#state === 'closed') return
    this.#enter('closed')
    if (this.#socket === undefined) queueMicrotask(() => this.#listener.ended())
    else this.#socket.close(CloseCode.NORMAL)
    this.#listener.changed({ state: 'closed', reason: 'close' })
  }

  #redial (reason: 'retry' | 'wake'): void {
    this.#enter('connecting')
    this.#listener.changed({ state: 'connecting', reason })
    if (this.#state === 'connecting') this.#try(() => this.#dial())
  }

  /** Asks for the token where it has to be asked for, else opens the connection at once. */
  #dial (): void {
    const { token, connectTimeout } = this.#options
    this.#dialled = Date.now()
    const timer = this.#schedule(() => this.#lose({ reason: 'slow' }), connectTimeout)
    if (!token.renewable) return this.#connect()

    token.renew().then(() => {
      if (this.#timer === timer) this.#try(() => this.#connect())
    }, (cause: unknown) => {
      if (this.#timer === timer) this.#lose({ reason: 'token', cause })
    })
  }

  #try (run: () => void): void {
    try {
      run()
    } catch (cause) {
      this.#lose({ reason: 'lost', cause })
    }
  }

  #connect (): void {
    const socket = new this.#options.WebSocket(this.#options.url)
    this.#socket = socket
    // what a socket that was given up still says is nobody's business
    const own = <Event>(listener: (event: Event) => void) => (event: Event) => {
      if (socket === this.#socket) listener(event)
    }
    socket.addEventListener('open', own(() => this.#opened()))
    socket.addEventListener('message', own(({ data }) => this.#receive(data)))
    socket.addEventListener('close', own((event) => this.#ended(event)))
    // the close that follows says it all, but `ws` throws an error that nobody listens to
    socket.addEventListener('error', () => {})
  }

  #opened (): void {
    if (this.#state === 'closed') return
    this.#pinging = false
    this.#enter('open')
    this.#listener.changed({ state: 'open', reason: 'opened' })
    if (this.#state === 'open') this.#beat()
  }

  #receive (data: unknown): void {
    if (this.#state !== 'open') return
    this.#heard = true
    this.#failures = 0
    this.#listener.received(String(data))
  }

  #ended ({ code, reason }: { code: number, reason: string }): void {
    if (this.#state === 'closed') return this.#listener.ended()
    if (!this.#options.isFinal(code, reason)) return this.#lose({ reason: 'lost', code, text: reason })
    this.#enter('closed')
    this.#listener.changed({ state: 'closed', reason: 'refused', code, text: reason })
  }

  /** Sends a ping unless one is under way, and gives the line up if nothing at all is heard until the next beat. */
  #beat (): void {
    this.#heard = false
    this.#schedule(() => this.#heard ? this.#beat() : this.#lose({ reason: 'silent' }), this.#options.pingInterval)
    if (this.#pinging) return
    this.#pinging = true
    this.#listener.ping()
  }

  #lose (loss: Loss): void {
    const socket = this.#socket
    this.#socket = undefined
    if (loss.code === undefined) socket?.close()
    const delay = backoff(this.#options.backoff, this.#failures++)
    this.#enter('waiting')
    this.#schedule(() => this.#redial('retry'), delay)
    this.#listener.changed({ ...loss, state: 'waiting', delay })
  }

  #enter (state: State): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#state = state
  }

  #schedule (run: () => void, delay: number): ReturnType<typeof setTimeout> {
    clearTimeout(this.#timer)
    const timer = setTimeout(run, delay)
    this.#timer = timer
    return timer
  }
}
