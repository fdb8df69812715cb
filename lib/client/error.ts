/** What the client rejects with. */

/** Codes of errors that arise in the client. Those of the server are in `ErrorCode` of `fastify-rohrpost/protocol`, and the application's own. */
export const ClientErrorCode = {
  /** There is no connection now: nothing was sent. */
  OFFLINE: 'offline',
  /** The connection broke before the answer came: whether the request took effect is unknown. */
  CONNECTION_LOST: 'connection_lost',
  /** The client is closed, by `close()` or for good by the server. */
  CLOSED: 'closed',
  /** No answer came in time: whether the request took effect is unknown. */
  TIMEOUT: 'timeout',
  /** The message has more bytes than the server takes: nothing was sent. */
  TOO_LARGE: 'too_large',
  /** `unsubscribe` came before the subscription was made. */
  UNSUBSCRIBED: 'unsubscribed'
} as const

/** One of the codes of {@link ClientErrorCode}. */
export type ClientErrorCode = typeof ClientErrorCode[keyof typeof ClientErrorCode]

/** What an error says beyond its text. */
export interface RohrpostErrorDetails {
  code?: string | undefined
  retry?: boolean | undefined
  retryAfter?: number | undefined
  data?: unknown
  errorId?: string | undefined
  cause?: unknown
}

/** A request that failed. Its message, and `String(error)`, is the text that the server sent. */
export class RohrpostError extends Error {
  declare readonly name: 'RohrpostError'
  /** What went wrong, for programs to read: from the server or one of {@link ClientErrorCode}. Servers of the original send none. */
  declare readonly code: string | undefined
  /** Whether the same request can succeed later; wait a random time before. */
  declare readonly retry: boolean
  /** Milliseconds that the server wants to pass before that. */
  declare readonly retryAfter: number | undefined
  /** What the server sent beside the error. */
  declare readonly data: unknown
  /** Of a failure of the server, the id that stands in its log, to be told to whoever reads that. */
  declare readonly errorId: string | undefined

  constructor (message: string, { cause, ...details }: RohrpostErrorDetails = {}) {
    super(message, cause === undefined ? undefined : { cause })
    Object.assign(this, { name: 'RohrpostError', retry: false }, details)
  }

  override toString (): string {
    return this.message
  }
}
