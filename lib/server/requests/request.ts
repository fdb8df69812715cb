/** One request under way: it is settled exactly once, whoever does it first. */
import { randomUUID } from 'node:crypto'
import { errors, show } from '../../errors.ts'
import { ErrorCode } from '../../protocol/codes.ts'
import type { Envelope } from '../../protocol/decode.ts'
import { encodeEnvelope } from '../sending/envelope.ts'
import { Message, type Answerable } from './message.ts'
import { Observation } from './observation.ts'
import type { Registration, Registry } from './registry.ts'
import { named, note, report } from '../report.ts'
import { checkResult } from './result.ts'
import { isThenable } from '../../util/thenable.ts'
import type { OutgoingMessage, RohrpostConnection } from '../types.ts'
import { INTERNAL, toWireError, type WireError } from './wire-error.ts'

/** What a request needs to know of the connection that it came from. */
export interface RequestConnection extends RohrpostConnection {
  /** Puts the text of a frame on its way. */
  transmit (text: string): void
}

/** What a request needs to run. */
export interface RunContext {
  readonly registry: Registry
  /** `handlerTimeout`: milliseconds until an unsettled request is answered with `timeout`. */
  readonly limits: { handlerTimeout: number }
}

/** Where a request runs. */
export interface RequestHost {
  /** Called when the deadline has passed before the handler settled. */
  overdue (request: Request): void
}

/** A request from its start to its settlement, and on to the end of its handler. */
export class Request implements Answerable {
  readonly envelope: Envelope
  readonly #registration: Registration
  readonly #connection: RequestConnection
  #settled = false
  #gone = false
  #overdue = false
  #aborted: Error | undefined
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

  get open (): boolean {
    return !this.#settled
  }

  /** Whether it runs beside the ordered requests of its connection. */
  get isParallel (): boolean {
    return this.#registration.parallel
  }

  /** Whether its deadline has passed before its handler settled. */
  get isOverdue (): boolean {
    return this.#overdue
  }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted)
    }
    return this.#controller.signal
  }

  /**
   * Checks `data` and calls the handler.
   *
   * @returns a promise, which never rejects, if the handler goes on
   */
  run (context: RunContext, host: RequestHost): Promise<void> | undefined {
    const observation = this.#observe()
    return observation === undefined ? this.#run(context, host) : observation.run(() => this.#run(context, host))
  }

  #observe (): Observation | undefined {
    this.#observation = Observation.of(this.#connection, this.envelope.type, this.envelope, this.#size)
    return this.#observation
  }

  #run ({ registry, limits }: RunContext, host: RequestHost): Promise<void> | undefined {
    const { fn, instance, checkData, role } = this.#registration
    const problem = checkData?.(this.envelope.data)
    if (problem !== undefined) {
      this.#refuse({ error: `Invalid data: ${problem}.`, code: ErrorCode.INVALID_DATA })
      return
    }

    try {
      const message = new Message(this.envelope, this) as Message & { data: never }
      const result = role === 'application'
        ? registry.call(fn, instance, message, this.#connection)
        : fn.call(instance, message, this.#connection)
      if (isThenable(result)) return this.#wait(result, limits.handlerTimeout, host)
      this.#return(result)
    } catch (error) {
      this.#throw(error)
    }
  }

  reply (data: unknown, type: string, extensions?: object): void {
    if (this.#settled) {
      if (!this.#gone) note(this.#connection.log, 'warn', named(this.envelope), 'a second reply to one request was not sent')
      return
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

  /** Counts an answer that the application sent by itself. */
  settle ({ error, code }: OutgoingMessage, text: string): void {
    this.#settled = true
    this.#observation?.end(error ? 'error' : 'success', error ? code : undefined, text)
  }

  /** Answers that the server can't do it now. */
  turnAway (): void {
    this.#observe()?.run(() => {})
    this.#refuse({ error: 'The server is about to restart.', code: ErrorCode.UNAVAILABLE, retry: true })
  }

  /** The client has gone: nobody waits for the answer. */
  abandon (reason: Error): void {
    if (!this.#settled) this.#observation?.end('gone', undefined, '')
    this.#settled = true
    this.#gone = true
    this.#abort(reason)
  }

  async #wait (result: PromiseLike<unknown>, timeout: number, host: RequestHost): Promise<void> {
    const deadline = setTimeout(() => {
      const text = `The handler did not settle within ${timeout} ms.`
      note(this.#connection.log, 'warn', { ...named(this.envelope), timeout }, 'a handler did not settle before its deadline')
      this.#refuse({ error: text, code: ErrorCode.TIMEOUT })
      this.#abort(new DOMException(text, 'TimeoutError'))
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
    this.#aborted ??= reason
    this.#controller?.abort(reason)
  }

  /** Whether this is what `signal` made of a handler: its reason, or an error of those who listened to it. */
  #isAbort (error: unknown): boolean {
    return this.#aborted !== undefined && (error === this.#aborted || (error instanceof Error && error.cause === this.#aborted))
  }

  #return (data: unknown): void {
    if (data !== undefined || !this.#settled) this.reply(data, this.envelope.type)
  }

  #throw (error: unknown): void {
    const meant = toWireError(error)
    const isTold = meant !== undefined && (this.open || this.#gone)
    // by this the client's user and the log speak of the same failure
    const errorId = meant === undefined && this.open ? randomUUID() : undefined
    this.#refuse(meant ?? { ...INTERNAL, error_id: errorId })
    // what the client does not read stands in the log
    if (!isTold && !this.#isAbort(error)) report(this.#connection.log, 'error', error, { ...named(this.envelope), error_id: errorId }, 'a handler failed')
  }

  #refuse (reason: Readonly<WireError>): void {
    if (this.#settled) return
    this.#settled = true
    const { id, type } = this.envelope
    const text = encodeEnvelope({ id: id ?? undefined, type, ...reason })
    this.#connection.transmit(text)
    this.#observation?.end('error', reason.code, text)
  }
}
