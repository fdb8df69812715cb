/** Requests under way: each is settled exactly once, by its answer, its time-out, its signal, or the end of the connection. */
import type { ErrorCode } from '../protocol/codes.ts'
import { after } from './checks.ts'
import { deferred, onAbort, throwIfAborted } from './deferred.ts'
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

interface Pending extends RequestOptions {
  readonly type: string
  readonly data: unknown
  readonly resolve: (data: unknown) => void
  readonly reject: (reason: unknown) => void
  repeated: boolean
}

/** The code with which an application says that `auth_jwt` has expired: the text alone, the table would be bundled whole. */
const TOKEN_EXPIRED: ErrorCode = 'token_expired'

/** Texts up to this length are sent before the server has said what it takes. */
const SMALL = 4096

/** The requests of one client. */
export class Requests {
  readonly #pending = new Map<unknown, Pending>()
  readonly #token: Token
  readonly #send: (text: string) => void
  #lastId = 0
  /** The largest message that the server takes, in bytes; `undefined` until it has said so, or has let the question pass. */
  #limit: number | undefined
  /** What waits for the server to say so: a large message, and those behind it. */
  #held: (() => void)[] = []

  constructor (token: Token, send: (text: string) => void) {
    this.#token = token
    this.#send = send
  }

  /** Sends a request and waits for its answer. @returns the reply's data; rejects with a RohrpostError, or with the reason of the signal */
  async request (type: string, data: unknown, options: RequestOptions): Promise<unknown> {
    const { timeout, signal } = options
    throwIfAborted(signal)

    const id = ++this.#lastId
    const { promise, resolve, reject } = deferred<unknown>()
    const stop = onAbort(signal, reject)
    const timer = after(timeout, () => reject(new RohrpostError('call timed out', { code: ClientErrorCode.TIMEOUT })))

    try {
      const pending = { ...options, type, data, resolve, reject, repeated: false }
      this.#pending.set(id, pending)
      this.#transmit(id, pending)
      return await promise
    } finally {
      clearTimeout(timer)
      stop()
      this.#pending.delete(id)
    }
  }

  /** Whether a message answers a request; if so, the request is settled. */
  answer (message: Message): boolean {
    const { id, data } = message
    const pending = this.#pending.get(id)
    if (pending === undefined) return false

    if (!message.error) {
      pending.answered?.(message)
      pending.resolve(data)
    } else if (message.code === TOKEN_EXPIRED && this.#token.renewable && !pending.repeated) {
      pending.repeated = true
      this.#repeat(id, pending, message)
    } else {
      pending.reject(toError(message))
    }
    return true
  }

  /** The server said what it takes, or answered without saying it. */
  limit (bytes: unknown): void {
    this.#limit = typeof bytes === 'number' ? bytes : this.#limit ?? Infinity
    for (const send of this.#held.splice(0)) send()
  }

  /** Rejects all requests: there will be no answers. */
  fail (error: RohrpostError): void {
    this.#held = []
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
  }

  async #repeat (id: unknown, pending: Pending, message: Message): Promise<void> {
    try {
      await this.#token.renew()
    } catch (cause) {
      return pending.reject(toError(message, cause))
    }
    // it may have been settled otherwise meanwhile
    if (!this.#pending.has(id)) return
    if (pending.still?.() ?? true) this.#transmit(id, pending)
    else pending.reject(toError(message))
  }

  #transmit (id: unknown, pending: Pending): void {
    const { type, data, fields } = pending
    const text = JSON.stringify({ id, type, auth_jwt: this.#token.current, data, ...fields })
    const send = () => {
      if (!this.#pending.has(id)) return
      // a server closes the connection at what is too large for it, and with that all other requests fail
      const limit = this.#limit ?? Infinity
      const bytes = text.length * 3 > limit ? new Blob([text]).size : 0
      if (bytes <= limit) this.#send(text)
      else pending.reject(new RohrpostError(`too large: ${bytes} bytes, and the server takes ${limit}`, { code: ClientErrorCode.TOO_LARGE }))
    }
    if (this.#limit === undefined && (text.length > SMALL || this.#held.length > 0)) this.#held.push(send)
    else send()
  }
}

/** The error that a message tells of; what is no text, as servers of the original may send it, is shown as JSON. */
export function toError ({ error, code, retry, retry_after: retryAfter, data, error_id: errorId }: Message, cause?: unknown): RohrpostError {
  return new RohrpostError(typeof error === 'string' ? error : JSON.stringify(error), {
    code: ofType('string', code),
    retry: retry === true,
    retryAfter: ofType('number', retryAfter),
    data,
    errorId: ofType('string', errorId),
    cause
  })
}

function ofType (type: 'string', value: unknown): string | undefined
function ofType (type: 'number', value: unknown): number | undefined
function ofType (type: string, value: unknown): unknown {
  const own = typeof value
  return own === type ? value : undefined
}
