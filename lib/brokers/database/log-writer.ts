/**
 * Queue of messages for the log. One INSERT writes all waiting messages, and the next INSERT follows its answer, so an
 * INSERT that is repeated after a lost connection overtakes no other. Its token prevents that it runs twice.
 */
import { errors } from '../../errors.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Outage } from '../../util/outage.ts'
import { refusePublish } from '../not-published.ts'
import type { Dialect, LogMessage } from './dialect.ts'
import type { LogSession } from './log-session.ts'

/** Options of a writer. */
export interface LogWriterOptions {
  dialect: Dialect
  session: LogSession
  /** Identifies this writer. */
  id: string
  limits: LogWriterLimits
  /** Failed and successful INSERTs. */
  publishing: Outage
  /** Called after each INSERT. */
  onWritten (): void
}

/** Limits of the queue. */
export interface LogWriterLimits {
  messages: number
  bytes: number
  /** Milliseconds. */
  timeout: number
}

/** Messages of one group that follow each other in one turn of the event loop. They share a promise. */
interface MessageRun {
  readonly group: string
  readonly payloads: string[]
  bytes: number
  readonly done: PromiseWithResolvers<void>
  /** Of `performance.now()`. */
  readonly since: number
  isSettled: boolean
}

/** Limits of one INSERT. */
const MESSAGES = 1000
const BYTES = 1024 * 1024
/** The bounds of the delay before an INSERT that may succeed later is tried again, in milliseconds. */
const RETRY = { min: 2, max: 50 }
/** Time after which an INSERT that may succeed later is reported, in milliseconds. */
const REPORT = 1000

export class LogWriter {
  readonly #options: LogWriterOptions
  readonly #waiting: MessageRun[] = []
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  /** The run that takes messages of this turn. */
  #open: MessageRun | undefined
  /** The runs that are being written. */
  #current: MessageRun[] = []
  #inserts = 0
  #messages = 0
  #bytes = 0
  #isScheduled = false
  #isWriting = false
  #isClosed = false
  #expiring: NodeJS.Timeout | undefined
  #wake: (() => void) | undefined

  constructor (options: LogWriterOptions) {
    this.#options = options
  }

  /** How long the oldest message has been waiting, in milliseconds. */
  get age (): number {
    const oldest = this.#current[0] ?? this.#waiting[0]
    return oldest === undefined ? 0 : performance.now() - oldest.since
  }

  /** Resolves when the message is in the log. Rejects with RP_ERR_NOT_PUBLISHED; the rejection may stay unhandled. */
  publish (group: string, payload: string): Promise<void> {
    const { limits, dialect } = this.#options
    const bytes = Buffer.byteLength(payload)
    if (this.#isClosed) return refusePublish('the broker is closed')
    if (this.#messages >= limits.messages || this.#bytes + bytes > limits.bytes) {
      return refusePublish(`${this.#messages} messages of ${this.#bytes} bytes wait for ${dialect.name} already`)
    }
    const reason = dialect.refuse({ group, payload })
    if (reason !== undefined) return refusePublish(reason)

    const run = this.#open?.group === group ? this.#open : this.#begin(group)
    run.payloads.push(payload)
    run.bytes += bytes
    this.#messages++
    this.#bytes += bytes
    if (run.payloads.length === MESSAGES || run.bytes > BYTES) this.#open = undefined
    return run.done.promise
  }

  /** Writes the queued messages on a new connection. */
  resume (): void {
    this.#wake?.()
    this.#write()
  }

  /** Refuses new messages, and resolves when all queued messages are written or have waited too long. */
  async close (): Promise<void> {
    this.#isClosed = true
    await Promise.allSettled([...this.#current, ...this.#waiting].map(({ done }) => done.promise))
    clearTimeout(this.#expiring)
  }

  #begin (group: string): MessageRun {
    const done = Promise.withResolvers<void>()
    const run: MessageRun = { group, payloads: [], bytes: 0, done, since: performance.now(), isSettled: false }
    run.done.promise.catch(() => {})
    this.#open = run
    this.#waiting.push(run)
    this.#expiring ??= setTimeout(this.#expire, this.#options.limits.timeout)
    if (!this.#isScheduled) {
      this.#isScheduled = true
      // at the end of the turn one INSERT writes all its messages
      setImmediate(() => {
        this.#isScheduled = false
        this.#open = undefined
        this.#write()
      })
    }
    return run
  }

  async #write (): Promise<void> {
    if (this.#isWriting) return
    this.#isWriting = true
    while (this.#waiting.length > 0 && this.#options.session.isReady) {
      const runs = this.#current = this.#take()
      const reason = await this.#insert(runs)
      if (reason === undefined || runs.length === 1) this.#settle(runs, reason)
      // one message that the database refuses must not take others with it
      else for (const run of runs) this.#settle([run], await this.#insert([run]))
      this.#current = []
    }
    this.#isWriting = false
  }

  /** Removes the messages of one INSERT from the queue. */
  #take (): MessageRun[] {
    let messages = 0
    let bytes = 0
    let count = 0
    for (const run of this.#waiting) {
      messages += run.payloads.length
      bytes += run.bytes
      if (count > 0 && (messages > MESSAGES || bytes > BYTES)) break
      count++
    }
    this.#open = undefined
    return this.#waiting.splice(0, count)
  }

  /** Inserts messages once, with as many attempts as it takes. @returns the reason if they are not in the log */
  async #insert (runs: readonly MessageRun[]): Promise<string | undefined> {
    const { dialect, session, publishing, onWritten } = this.#options
    const messages = runs.flatMap(({ group, payloads }) => payloads.map((payload): LogMessage => ({ group, payload })))
    const token = `${this.#options.id}/${++this.#inserts}`
    while (!runs.every(({ isSettled }) => isSettled)) {
      try {
        if (session.isReady) {
          await dialect.insert(session, messages, token)
          break
        }
        await this.#sleep(undefined)
      } catch (error) {
        const failure = dialect.failureOf(error)
        if (failure === 'repeated') break
        if (failure === 'refused' || failure === 'missing') {
          publishing.fail(error as Error)
          return (error as Error).message
        }
        if (failure === 'passing') {
          if (this.age > REPORT) publishing.fail(error as Error)
          await this.#sleep(this.#backoff.next())
        }
      }
    }
    this.#backoff.reset()
    publishing.end()
    onWritten()
    return undefined
  }

  /** Waits for some milliseconds, or else for a connection; a message that has waited too long ends it. */
  async #sleep (delay: number | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = delay === undefined ? undefined : setTimeout(resolve, delay)
    this.#wake = resolve
    await promise
    clearTimeout(timer)
    this.#wake = undefined
  }

  #settle (runs: readonly MessageRun[], reason: string | undefined): void {
    for (const run of runs) {
      if (run.isSettled) continue
      run.isSettled = true
      this.#messages -= run.payloads.length
      this.#bytes -= run.bytes
      if (reason === undefined) run.done.resolve()
      else run.done.reject(new errors.RP_ERR_NOT_PUBLISHED(reason))
    }
  }

  /** Rejects messages that have waited too long. */
  readonly #expire = (): void => {
    const { limits: { timeout }, dialect } = this.#options
    const reason = `${dialect.name} did not confirm it within ${timeout} ms`
    const isOld = ({ since }: MessageRun) => since + timeout <= performance.now()
    this.#settle(this.#current.filter(isOld), reason)
    const old = this.#waiting.splice(0, this.#waiting.filter(isOld).length)
    if (old.includes(this.#open as MessageRun)) this.#open = undefined
    this.#settle(old, reason)
    this.#wake?.()

    const next = this.#current.find(({ isSettled }) => !isSettled) ?? this.#waiting[0]
    this.#expiring = next && setTimeout(this.#expire, Math.max(1, next.since + timeout - performance.now()))
  }
}
