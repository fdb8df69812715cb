/** One request of a client, from its start to its reply and to the end of its handler. It is settled exactly once. */
import { randomUUID } from 'node:crypto'
import { errors, show } from '../../errors.ts'
import { ErrorCode } from '../../protocol/codes.ts'
import type { Envelope } from '../../protocol/decode.ts'
import { isThenable } from '../../util/thenable.ts'
import { logTruncated, report, requestFields } from '../report.ts'
import { encodeEnvelope } from '../sending/envelope.ts'
import type { OutgoingMessage, RohrpostConnection } from '../types.ts'
import { Message, type MessageRequest } from './message.ts'
import type { MiddlewareChain } from './middleware.ts'
import { Observation } from './observation.ts'
import type { Registration } from './registry.ts'
import { checkResult } from './result.ts'
import { INTERNAL, toWireError, type WireError } from './wire-error.ts'

/** Connection on which a request arrives. */
export interface RequestConnection extends RohrpostConnection {
  /** Sends the text of a message. */
  transmit (text: string): void
}

/** Owner of running requests. */
export interface RequestHost {
  /** Called if a handler has not settled when its deadline passes. */
  overdue (request: IncomingRequest): void
}

/** A request and its reply. */
export class IncomingRequest implements MessageRequest {
  readonly envelope: Envelope
  readonly #registration: Registration
  readonly #connection: RequestConnection
  #settled = false
  #isClientGone = false
  #overdue = false
  #abortReason: Error | undefined
  #controller: AbortController | undefined
  readonly #size: number
  #observation: Observation | undefined

  /** @param size bytes of the message */
  constructor (envelope: Envelope, registration: Registration, connection: RequestConnection, size: number) {
    this.envelope = envelope
    this.#registration = registration
    this.#connection = connection
    this.#size = size
  }

  /** Whether the request has no reply yet. */
  get isOpen (): boolean {
    return !this.#settled
  }

  /** Whether the request runs in parallel to the ordered requests of its connection. */
  get isParallel (): boolean {
    return this.#registration.parallel
  }

  /** Whether the deadline has passed before the handler settled. */
  get isOverdue (): boolean {
    return this.#overdue
  }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#abortReason !== undefined) this.#controller.abort(this.#abortReason)
    }
    return this.#controller.signal
  }

  /**
   * Validates `data` and calls the handler.
   *
   * @param handlerTimeout milliseconds until a request without a reply is answered with the error `timeout`
   * @returns a promise if the handler is asynchronous; it never rejects
   */
  run (middlewares: MiddlewareChain, handlerTimeout: number, host: RequestHost): Promise<void> | undefined {
    const observation = this.#observe()
    if (observation === undefined) return this.#run(middlewares, handlerTimeout, host)
    return observation.run(() => this.#run(middlewares, handlerTimeout, host))
  }

  #observe (): Observation | undefined {
    this.#observation = Observation.of(this.#connection, this.envelope.type, this.envelope, this.#size)
    return this.#observation
  }

  #run (middlewares: MiddlewareChain, handlerTimeout: number, host: RequestHost): Promise<void> | undefined {
    const { fn, instance, checkData, role } = this.#registration
    const problem = checkData?.(this.envelope.data)
    if (problem !== undefined) {
      this.#refuse({ error: `Invalid data: ${problem}.`, code: ErrorCode.INVALID_DATA })
      return
    }

    try {
      const message = new Message(this.envelope, this) as Message & { data: never }
      const result = role === 'application'
        ? middlewares.call(fn, instance, message, this.#connection)
        : fn.call(instance, message, this.#connection)
      if (isThenable(result)) return this.#wait(result, handlerTimeout, host)
      this.#return(result)
    } catch (error) {
      this.#throw(error)
    }
  }

  reply (data: unknown, type: string, extensions?: object): void {
    if (this.#settled) {
      if (this.#isClientGone) return
      const { log } = this.#connection
      return logTruncated(log, 'warn', requestFields(this.envelope), 'a second reply to one request was not sent')
    }

    if (typeof type !== 'string' || type === '') {
      return this.#throw(new errors.RP_ERR_INVALID_MESSAGE('type', 'a non-empty string', show(type)))
    }
    let text: string
    try {
      checkResult(data)
      const problem = this.#registration.checkReply?.(data)
      if (problem !== undefined) throw new errors.RP_ERR_INVALID_REPLY(this.envelope.type, problem)
      text = encodeEnvelope({ id: this.envelope.id ?? undefined, type, data, ...extensions })
    } catch (error) {
      return this.#throw(error)
    }
    this.#settled = true
    this.#connection.transmit(text)
    this.#observation?.end('success', undefined, text)
  }

  /** Settles the request with a message that the handler sent with `connection.send`. */
  settle ({ error, code }: OutgoingMessage, text: string): void {
    this.#settled = true
    this.#observation?.end(error ? 'error' : 'success', error ? code : undefined, text)
  }

  /** Replies with the error `unavailable` instead of running the handler, because the server stops. */
  turnAway (): void {
    this.#observe()?.run(() => {})
    this.#refuse({ error: 'The server is about to restart.', code: ErrorCode.UNAVAILABLE, retry: true })
  }

  /** Settles the request without a reply, because the client has disconnected, and aborts `signal`. */
  abandon (reason: Error): void {
    if (!this.#settled) this.#observation?.end('gone', undefined, '')
    this.#settled = true
    this.#isClientGone = true
    this.#abort(reason)
  }

  async #wait (result: PromiseLike<unknown>, timeout: number, host: RequestHost): Promise<void> {
    const deadline = setTimeout(() => {
      const error = `The handler did not settle within ${timeout} ms.`
      const fields = { ...requestFields(this.envelope), timeout }
      logTruncated(this.#connection.log, 'warn', fields, 'a handler did not settle before its deadline')
      this.#refuse({ error, code: ErrorCode.TIMEOUT })
      this.#abort(new DOMException(error, 'TimeoutError'))
      this.#overdue = true
      host.overdue(this)
    }, timeout).unref()

    try {
      this.#return(await result)
    } catch (error) {
      this.#throw(error)
    } finally {
      clearTimeout(deadline)
    }
  }

  #abort (reason: Error): void {
    this.#abortReason ??= reason
    this.#controller?.abort(reason)
  }

  /** Whether an error comes from the abort of `signal`: it is the abort reason or has it as its cause. */
  #isAbort (error: unknown): boolean {
    const reason = this.#abortReason
    return reason !== undefined && (error === reason || (error instanceof Error && error.cause === reason))
  }

  #return (data: unknown): void {
    if (data !== undefined || !this.#settled) this.reply(data, this.envelope.type)
  }

  #throw (error: unknown): void {
    const wireError = toWireError(error)
    const isReplied = wireError !== undefined && (this.isOpen || this.#isClientGone)
    // the same id in the error reply and in the log, so that a user's report leads to the log line
    const errorId = wireError === undefined && this.isOpen ? randomUUID() : undefined
    this.#refuse(wireError ?? { ...INTERNAL, error_id: errorId })
    if (isReplied || this.#isAbort(error)) return
    const fields = { ...requestFields(this.envelope), error_id: errorId }
    report(this.#connection.log, 'error', error, fields, 'a handler failed')
  }

  /** Sends an error reply, unless the request is settled. */
  #refuse (wireError: Readonly<WireError>): void {
    if (this.#settled) return
    this.#settled = true
    const { id, type } = this.envelope
    const text = encodeEnvelope({ id: id ?? undefined, type, ...wireError })
    this.#connection.transmit(text)
    this.#observation?.end('error', wireError.code, text)
  }
}
