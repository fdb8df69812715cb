/**
 * Requests in flight: each is settled exactly once, by its reply, its timeout, its signal, or the end of the
 * connection.
 */
import type { ErrorCode } from '../protocol/codes.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import { asNumber, asString } from './option-checks.ts'
import type { Token } from './token.ts'
import { waitFor } from './waiting.ts'

/** The code of an expired `auth_jwt`. Only the text: an import of the table would put all of it into the bundle. */
const TOKEN_EXPIRED: ErrorCode = 'token_expired'

/** Milliseconds that the server has to answer; its own deadline is the same by default. */
const ANSWER_TIMEOUT = 30_000

/** Messages up to this length are sent before the server has announced its limit. */
const SMALL = 4096

/** The fields of a message from the server that the client reads. */
export interface ServerMessage {
  readonly id?: unknown
  readonly type?: unknown
  readonly error?: unknown
  readonly data?: unknown
  readonly code?: unknown
  readonly retry?: unknown
  readonly retry_after?: unknown
  readonly error_id?: unknown
  readonly position?: unknown
  readonly recovered?: unknown
  readonly top?: { readonly offset?: unknown } | undefined
  readonly limits?: { readonly max_payload?: unknown } | undefined
  readonly bytes?: unknown
  readonly spread?: unknown
}

/** Options of a request. */
export interface RequestOptions {
  /** Milliseconds to wait for the reply; `Infinity`: without limit. */
  timeout?: number
  signal?: AbortSignal | undefined
  /**
   * Called synchronously with the reply. A promise continuation would run only after the next WebSocket message may
   * have been handled.
   */
  answered?: (reply: ServerMessage) => void
  /** Whether the request is still wanted, asked before it is sent again with a new token. */
  still?: () => boolean
  /** The position from which a group is recovered, `true` without one; see PROTOCOL.md, "Recovery". */
  recover?: unknown
  /** Whether batches are to arrive whole; see PROTOCOL.md, "Batches". */
  batch?: true | undefined
}

interface PendingRequest {
  readonly reject: (reason: unknown) => void
  readonly answer: (message: ServerMessage) => Promise<unknown>
}

/** The requests of one client. */
export type Requests = ReturnType<typeof createRequests>

/** Keeps the requests of a client. @param send sends a text on the connection */
export function createRequests (token: Token, send: (text: string) => void) {
  const pending = new Map<unknown, PendingRequest>()
  let lastId = 0
  /** The size of the largest message that the server takes, in bytes; `NaN` until the first pong. */
  let limit = NaN
  /** Large messages, and those behind them, that wait for the limit. */
  let held: (() => void)[] = []

  return {
    /**
     * Sends a request and waits for its reply.
     *
     * @returns the reply's data; rejects with a RohrpostError, or with the reason of the signal
     */
    request (
      type: string,
      data: unknown,
      { timeout = ANSWER_TIMEOUT, signal, answered, still, recover, batch }: RequestOptions
    ): Promise<unknown> {
      return waitFor(signal, (resolve, reject) => {
        const id = ++lastId
        let isRepeated = false

        const transmit = () => {
          // throws for data without a JSON form
          const text = JSON.stringify({ id, type, auth_jwt: token.current, data, recover, batch })
          pending.set(id, { reject, answer })
          const sendNow = () => {
            if (!pending.has(id)) return
            // a server closes the connection at a message beyond its limit, and all other requests would fail too
            const bytes = text.length * 3 > limit ? new Blob([text]).size : 0
            if (!(bytes > limit)) return send(text)
            const error = `too large: ${bytes} bytes, the server takes ${limit}`
            reject(new RohrpostError(error, { code: ClientErrorCode.TOO_LARGE }))
          }
          if (!limit && (text.length > SMALL || held.length)) held.push(sendNow)
          else sendNow()
        }

        const answer = async (message: ServerMessage) => {
          if (!message.error) {
            answered?.(message)
            return resolve(message.data)
          }
          let cause: unknown
          if (message.code === TOKEN_EXPIRED && token.renew && !isRepeated) {
            isRepeated = true
            try {
              await token.renew()
              // it may have been settled meanwhile
              if (still?.() !== false) return pending.has(id) && transmit()
            } catch (error) {
              cause = error
            }
          }
          reject(toError(message, cause))
        }

        transmit()
        return () => pending.delete(id)
      }, timeout, () => new RohrpostError('call timed out', { code: ClientErrorCode.TIMEOUT }))
    },

    /** Settles the request that a message answers. @returns `undefined` if there is none */
    answer: (message: ServerMessage): Promise<unknown> | undefined => pending.get(message.id)?.answer(message),

    /** Sends held messages: the server has announced its limit, or answered without one. */
    limit (bytes: unknown): void {
      limit = asNumber(bytes) || limit || Infinity
      for (const sendNow of held.splice(0)) sendNow()
    },

    /** Rejects all requests: there will be no replies. */
    fail (error: RohrpostError): void {
      held = []
      for (const { reject } of pending.values()) reject(error)
    }
  }
}

/** The error of a message. A text of another type, as servers of the original send it, becomes JSON. */
export function toError (
  { error, code, retry, retry_after: retryAfter, data, error_id: errorId }: ServerMessage,
  cause?: unknown
): RohrpostError {
  return new RohrpostError(asString(error) ?? JSON.stringify(error), {
    code: asString(code),
    retry: retry === true,
    retryAfter: asNumber(retryAfter),
    data,
    errorId: asString(errorId),
    cause
  })
}
