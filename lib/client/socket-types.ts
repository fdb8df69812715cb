/** Types of the connection: WebSockets, states, and their reasons. */

/** The part of a WebSocket that the client needs: the standard one has it, and the one of the package `ws`. */
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

/** The address of the server, or a function that returns it. */
export type UrlSource = string | URL | (() => string | URL | Promise<string | URL>)

/**
 * `connecting`: an attempt is in progress. `open`: requests can be made. `waiting`: the next attempt follows
 * automatically. `idle`: no attempt follows automatically, because `connect()` was not called yet or the page is
 * hidden. `closed`: permanently.
 */
export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed'

/** A change of the state, and its reason. */
export interface StateChange {
  readonly state: State
  /**
   * `opened`; `lost`: the connection was closed or never opened, see `code`, `text` and `cause`; `silent`: nothing was
   * received after a ping; `slow`: opening took too long; `token`, `url`: the function failed; `refused`: the server
   * does not accept the client again; `retry`: the delay is over; `wake`: the network or the page is back; `offline`:
   * the network is gone; `hidden`: the page was hidden for `disconnectWhenHidden`; `connect`, `reconnect`, `close`: the
   * application called that method.
   */
  readonly reason:
    'opened' | 'lost' | 'silent' | 'slow' | 'token' | 'url' | 'refused' | 'retry' | 'wake' | 'offline' | 'hidden' |
    'connect' | 'reconnect' | 'close'
  /** The close code. */
  readonly code?: number
  /** The reason that came with the close code. */
  readonly text?: string
  /** Milliseconds until the next attempt. */
  readonly delay?: number
  /**
   * The error of the token or URL function, of the WebSocket's constructor, or of its `error` event, in which browsers
   * give none.
   */
  readonly cause?: unknown
}
