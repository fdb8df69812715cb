/** Requests under way: each is settled exactly once, by its answer, its time-out, its signal, or the end of the connection. */
import type { ErrorCode } from '../protocol/codes.ts'
import { waitFor } from './deferred.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import type { Token } from './token.ts'

/** A message from the server, as far as it is looked at. */
export interface Message {
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
  readonly top?: unknown
  readonly limits?: unknown
  readonly bytes?: unknown
  readonly spread?: unknown
}

/** How a request is made. */
export interface RequestOptions {
  /** Milliseconds to wait for the answer; `Infinity` is for ever. */
  timeout: number
  signal?: AbortSignal | undefined
  /** Called at the reply, before the next message is read: who only waits for the promise hears of that first. */
  answered?: (reply: Message) => void
  /** Asked before the request is sent again with a new token: whether it is still meant. */
  still?: () => boolean
  /** Further fields of the message. */
  fields?: object
}

/** A request under way. */
interface Pending {
  readonly reject: (reason: unknown) => void
  readonly answer: (message: Message) => void
}

/** The code with which an application says that `auth_jwt` has expired: the text alone, the table would be bundled whole. */
const TOKEN_EXPIRED: ErrorCode = 'token_expired'

/** Texts up to this length are sent before the server has said what it takes. */
const SMALL = 4096

/** The requests of one client. */
export type Requests = ReturnType<typeof createRequests>

/** Keeps the requests of a client. @param send sends a text on the connection */
export function createRequests (token: Token, send: (text: string) => void) {
  const all = new Map<unknown, Pending>()
  let lastId = 0
  /** The largest message that the server takes, in bytes; `undefined` until it has said so, or has let the question pass. */
  let limit: number | undefined
  /** What waits for the server to say so: a large message, and those behind it. */
  let held: (() => void)[] = []

  return {
    /** Sends a request and waits for its answer. @returns the reply's data; rejects with a RohrpostError, or with the reason of the signal */
    request (type: string, data: unknown, { timeout, signal, answered, still, fields }: RequestOptions): Promise<unknown> {
      let id: number | undefined
      const late = new RohrpostError('call timed out', { code: ClientErrorCode.TIMEOUT })
      return waitFor(signal, timeout, late, ({ resolve, reject }) => {
        id = ++lastId
        let isRepeated = false

        const transmit = () => {
          const text = JSON.stringify({ id, type, auth_jwt: token.current, data, ...fields })
          const sendNow = () => {
            if (!all.has(id)) return
            // a server closes the connection at what is too large for it, and with that all other requests fail
            const most = limit ?? Infinity
            const bytes = text.length * 3 > most ? new Blob([text]).size : 0
            if (bytes <= most) send(text)
            else reject(new RohrpostError(`too large: ${bytes} bytes, and the server takes ${most}`, { code: ClientErrorCode.TOO_LARGE }))
          }
          if (limit === undefined && (text.length > SMALL || held.length > 0)) held.push(sendNow)
          else sendNow()
        }

        const answer = async (message: Message) => {
          if (!message.error) {
            answered?.(message)
            return resolve(message.data)
          }
          let cause: unknown
          if (message.code === TOKEN_EXPIRED && token.renewable && !isRepeated) {
            isRepeated = true
            try {
              await token.renew()
              // it may have been settled otherwise meanwhile
              if (still?.() ?? true) return all.has(id) && transmit()
            } catch (error) {
              cause = error
            }
          }
          reject(toError(message, cause))
        }

        all.set(id, { reject, answer })
        transmit()
      }, () => all.delete(id))
    },

    /** Whether a message answers a request; if so, the request is settled. */
    answer (message: Message): boolean {
      const pending = all.get(message.id)
      pending?.answer(message)
      return pending !== undefined
    },

    /** The server said what it takes, or answered without saying it. */
    limit (bytes: unknown): void {
      limit = typeof bytes === 'number' ? bytes : limit ?? Infinity
      for (const sendNow of held.splice(0)) sendNow()
    },

    /** Rejects all requests: there will be no answers. */
    fail (error: RohrpostError): void {
      held = []
      for (const { reject } of all.values()) reject(error)
    }
  }
}

/** The error that a message tells of; what is no text, as servers of the original may send it, is shown as JSON. */
export function toError ({ error, code, retry, retry_after: retryAfter, data, error_id: errorId }: Message, cause?: unknown): RohrpostError {
  return new RohrpostError(isText(error) ? error : JSON.stringify(error), {
    code: isText(code) ? code : undefined,
    retry: retry === true,
    retryAfter: typeof retryAfter === 'number' ? retryAfter : undefined,
    data,
    errorId: isText(errorId) ? errorId : undefined,
    cause
  })
}

function isText (value: unknown): value is string {
  return typeof value === 'string'
}
