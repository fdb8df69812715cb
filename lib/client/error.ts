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
  /** `unsubscribe` came before the subscription was made. */
  UNSUBSCRIBED: 'unsubscribed'
} as const

/** One of the codes of {@link ClientErrorCode}. */
export type ClientErrorCode = typeof ClientErrorCode[keyof typeof ClientErrorCode]

/** What an error says beyond its text. */
export interface RohrpostErrorDetails {
  code?: string | undefined
  retry?: boolean | undefined
  data?: unknown
  errorId?: string | undefined
  cause?: unknown
}

/** A request that failed. Its message, and `String(error)`, is the text that the server sent. */
export class RohrpostError extends Error {
  override readonly name = 'RohrpostError'
  /** What went wrong, for programs to read: from the server or one of {@link ClientErrorCode}. Servers of the original send none. */
  readonly code: string | undefined
  /** Whether the same request can succeed later; wait a random time before. */
  readonly retry: boolean
  /** What the server sent beside the error. */
  readonly data: unknown
  /** Of a failure of the server, the id that stands in its log, to be told to whoever reads that. */
  readonly errorId: string | undefined

  constructor (message: string, { code, retry, data, errorId, cause }: RohrpostErrorDetails = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.retry = retry === true
    this.data = data
    this.errorId = errorId
  }

  override toString (): string {
    return this.message
  }
}
