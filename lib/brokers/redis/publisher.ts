/**
 * What is published waits here until Redis has confirmed it. All that waits goes out in one script call, and the next call is made when that one is
 * answered: so a slow line makes calls larger, not more, and what is sent again after a lost connection can't overtake anything.
 */
import { errors } from '../../errors.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Trouble } from '../../util/trouble.ts'
import { isPassing, isReply } from './redis-client.ts'
import type { Connection } from './redis-connection.ts'
import { head } from './batch.ts'
import { publish } from './scripts.ts'

/** How much may wait for Redis, and for how long. */
export interface QueueLimits {
  messages: number
  bytes: number
  /** Milliseconds. */
  timeout: number
}

/** What publishing needs to know. */
export interface PublisherOptions {
  queue: QueueLimits
  /** Whether Redis keeps what is published. */
  keeps: boolean
  /** The key under which Redis remembers what this sender sent last. */
  sender: string
  /** The arguments that every script begins with. */
  scriptArguments: () => string[]
  channel: string
  /** Told of calls that Redis refuses as a whole, and of those that it takes. */
  trouble: Trouble
  /** Called when Redis keeps what this process publishes because of the options of other processes. */
  onKeptForOthers: () => void
}

/** Messages of one group that follow each other in one turn. They share a promise. */
interface Run {
  group: string
  payloads: string[]
  done: PromiseWithResolvers<void>
}

/** The messages of one turn of the event loop. */
interface Batch {
  runs: Run[]
  messages: number
  bytes: number
  /** Of `performance.now()`. */
  since: number
  settled: boolean
}

/** Batches that go out in one call. Sent again after a lost connection, it keeps its number. Without batches it tries whether Redis takes calls. */
interface Flight {
  number: number
  batches: Batch[]
  /** Who Redis was when it was sent first. */
  server: string
  isUnderWay: boolean
}

/** How much goes out in one call, for which Redis does nothing else. */
const MESSAGES = 1000
const BYTES = 1024 * 1024
/** How long Redis remembers a sender beyond the time in which that repeats itself, in milliseconds. */
const MEMORY = 60_000
/** The bounds of the delay before a Redis that refuses calls is tried again without messages, in milliseconds. */
const RETRY = { min: 1000, max: 30_000 }

export class Publisher {
  readonly #options: PublisherOptions
  readonly #connection: Connection
  readonly #waiting: Batch[] = []
  #open: Batch | undefined
  #flight: Flight | undefined
  #flights = 0
  #messages = 0
  #bytes = 0
  #isClosed = false
  #timer: NodeJS.Timeout | undefined
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  #probing: NodeJS.Timeout | undefined

  constructor (connection: Connection, options: PublisherOptions) {
    this.#options = options
    this.#connection = connection
  }

  /** How long the oldest message has been waiting, in milliseconds. */
  get age (): number {
    const oldest = this.#flight?.batches[0] ?? this.#waiting[0]
    return oldest === undefined ? 0 : performance.now() - oldest.since
  }

  /** Resolves when Redis has published it. Rejects with RP_ERR_NOT_PUBLISHED; nobody has to hear of that. */
  publish (group: string, payload: string): Promise<void> {
    const { queue } = this.#options
    const bytes = Buffer.byteLength(payload)
    if (this.#isClosed) return refuse('the broker is closed')
    if (this.#messages >= queue.messages || this.#bytes + bytes > queue.bytes) {
      return refuse(`${this.#messages} messages of ${this.#bytes} bytes wait for Redis already`)
    }

    const batch = this.#open ?? this.#begin()
    let run = batch.runs.at(-1)
    if (run?.group !== group) {
      run = { group, payloads: [], done: Promise.withResolvers() }
      run.done.promise.catch(() => {})
      batch.runs.push(run)
    }
    run.payloads.push(payload)
    batch.messages++
    batch.bytes += bytes
    this.#messages++
    this.#bytes += bytes
    if (batch.messages === MESSAGES || batch.bytes > BYTES) this.#open = undefined
    return run.done.promise
  }

  /** Sends what waits, on a connection that is new: first what was under way when the last one was lost. */
  resume (): void {
    const flight = this.#flight
    const { keeps, trouble } = this.#options
    if (flight === undefined) {
      this.#send()
    } else if (!keeps && flight.server !== this.#connection.server) {
      // a server that does not know what its predecessor published would publish it twice; with history it begins a new epoch then, and all are told
      this.#land(flight, 'Redis restarted or failed over before it confirmed it')
    } else if (!flight.isUnderWay) {
      flight.batches = flight.batches.filter(({ settled }) => !settled)
      // while Redis refuses calls, one without messages finds out when that is over
      if (flight.batches.length === 0 && trouble.error === undefined) this.#land(flight)
      else this.#call(flight)
    }
    if (this.#flight === undefined && trouble.error !== undefined) this.#probeLater()
  }

  /** Takes no more, and resolves when all that waits has been sent or has waited too long. */
  async close (): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#probing)
    const batches = [...this.#flight?.batches ?? [], ...this.#waiting]
    await Promise.allSettled(batches.flatMap(({ runs }) => runs.map(({ done }) => done.promise)))
    clearTimeout(this.#timer)
    clearTimeout(this.#probing)
  }

  #begin (): Batch {
    const batch: Batch = { runs: [], messages: 0, bytes: 0, since: performance.now(), settled: false }
    this.#open = batch
    this.#waiting.push(batch)
    this.#timer ??= setTimeout(this.#expire, this.#options.queue.timeout)
    // the end of the turn: all that is published until then goes with it
    setImmediate(() => {
      this.#open = undefined
      this.#send()
    })
    return batch
  }

  #send (): void {
    if (this.#flight !== undefined || this.#waiting.length === 0 || !this.#connection.isReady) return

    let count = 0
    let messages = 0
    let bytes = 0
    for (const batch of this.#waiting) {
      messages += batch.messages
      bytes += batch.bytes
      if (count > 0 && (messages > MESSAGES || bytes > BYTES)) break
      count++
    }
    this.#open = undefined
    this.#start(this.#waiting.splice(0, count))
  }

  #start (batches: Batch[]): void {
    this.#flight = { number: ++this.#flights, batches, server: this.#connection.server, isUnderWay: false }
    this.#call(this.#flight)
  }

  async #call (flight: Flight): Promise<void> {
    const connection = this.#connection
    const { sender, scriptArguments, queue, channel, trouble } = this.#options
    flight.isUnderWay = true
    try {
      const answer = await connection.run(publish, sender, [
        ...scriptArguments(), String(flight.number), String(queue.timeout + MEMORY), channel, ...toArguments(flight.batches)
      ])
      connection.settle()
      this.#calm()
      trouble.end()
      this.#land(flight, undefined, this.#failuresOf(answer as string[]))
    } catch (cause) {
      const error = cause as Error
      flight.isUnderWay = false
      // without an answer it is sent again when the connection is back
      if (!isReply(error)) return
      trouble.fail(error)
      if (isPassing(error)) {
        // another server, or this one a little later, takes it
        connection.reconnect(error)
      } else {
        this.#land(flight, error.message)
        this.#probeLater()
      }
    }
  }

  /** The reasons for which groups failed in a call that Redis took. */
  #failuresOf ([isKeptForOthers, ...failures]: readonly string[]): Map<string, string> {
    if (isKeptForOthers === '1') this.#options.onKeptForOthers()
    const reasons = new Map<string, string>()
    for (let at = 0; at < failures.length; at += 2) reasons.set(String(failures[at]), String(failures[at + 1]))
    return reasons
  }

  /** Finds out when a Redis that refuses calls takes them again, also if nothing is published until then. */
  #probeLater (): void {
    if (this.#isClosed || this.#probing !== undefined) return
    this.#probing = setTimeout(() => {
      this.#probing = undefined
      if (this.#flight === undefined && this.#connection.isReady) this.#start([])
      else this.#probeLater()
    }, this.#backoff.next()).unref()
  }

  /** Ends the attempts when Redis takes calls. */
  #calm (): void {
    clearTimeout(this.#probing)
    this.#probing = undefined
    this.#backoff.reset()
  }

  /** The end of a call: without a reason a good one, but for the groups that failed. */
  #land (flight: Flight, reason?: string, failures?: ReadonlyMap<string, string>): void {
    for (const batch of flight.batches) this.#settle(batch, reason, failures)
    this.#flight = undefined
    this.#send()
  }

  #settle (batch: Batch, reason: string | undefined, failures?: ReadonlyMap<string, string>): void {
    if (batch.settled) return
    batch.settled = true
    this.#messages -= batch.messages
    this.#bytes -= batch.bytes
    for (const { group, done } of batch.runs) {
      const why = reason ?? failures?.get(group)
      if (why === undefined) done.resolve()
      else done.reject(new errors.RP_ERR_NOT_PUBLISHED(why))
    }
  }

  #expire = (): void => {
    const { timeout } = this.#options.queue
    const reason = `Redis did not confirm it within ${timeout} ms`
    const isOld = ({ since }: Batch) => since + timeout <= performance.now()
    for (const batch of this.#flight?.batches ?? []) {
      if (isOld(batch)) this.#settle(batch, reason)
    }
    const young = this.#waiting.findIndex((batch) => !isOld(batch))
    for (const batch of this.#waiting.splice(0, young === -1 ? Infinity : young)) this.#settle(batch, reason)

    const next = this.#flight?.batches.find(({ settled }) => !settled) ?? this.#waiting[0]
    this.#timer = next && setTimeout(this.#expire, Math.max(1, next.since + timeout - performance.now()))
  }
}

/** The arguments for all messages: runs of one group that follow each other travel as one. */
function toArguments (batches: readonly Batch[]): string[] {
  const args: string[] = []
  let group: string | undefined
  let payloads: string[] = []
  const end = () => {
    if (group !== undefined) args.push(group, head(payloads), String(payloads.length), ...payloads)
  }
  for (const { runs } of batches) {
    for (const run of runs) {
      if (run.group === group) {
        payloads.push(...run.payloads)
        continue
      }
      end()
      group = run.group
      payloads = [...run.payloads]
    }
  }
  end()
  return args
}

function refuse (reason: string): Promise<void> {
  const refused = Promise.reject(new errors.RP_ERR_NOT_PUBLISHED(reason))
  refused.catch(() => {})
  return refused
}
