/** Errors of the client. */

/**
 * Codes of errors that the client itself makes. Codes of the server are in `ErrorCode` of `fastify-rohrpost/protocol`;
 * applications add their own.
 */
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

/** Properties of an error besides its text. */
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
  /**
   * The machine-readable cause: from the server or one of {@link ClientErrorCode}. Servers of the original send none.
   */
  declare readonly code: string | undefined
  /** Whether the same request can succeed later; wait a random time before. */
  declare readonly retry: boolean
  /** Milliseconds that the server wants to pass before the retry. */
  declare readonly retryAfter: number | undefined
  /** The field `data` of the server's error message. */
  declare readonly data: unknown
  /** For a failure of the server, the id of the entry in its log. */
  declare readonly errorId: string | undefined

  constructor (message: string, details?: RohrpostErrorDetails) {
    super(message, details)
    Object.assign(this, { name: 'RohrpostError', retry: false }, details)
  }

  override toString (): string {
    return this.message
  }
}
