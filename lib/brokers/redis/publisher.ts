/**
 * What is published waits here until Redis has confirmed it. All that waits goes out in one script call, and the next call is made when that one is
 * answered: so a slow line makes calls larger, not more, and what is sent again after a lost connection can't overtake anything.
 */
import { errors } from '../../errors.ts'
import { isPassing, isReply } from './client.ts'
import type { Connection } from './connection.ts'
import { head } from './envelope.ts'
import { publishAndKeep, publishOnly } from './scripts.ts'

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
  /** What the scripts need first; `log` begins with an epoch that was never used. */
  log: () => string[]
  channel: string
}

/** The messages of one turn of the event loop, who share a promise. */
interface Batch {
  groups: string[]
  payloads: string[]
  bytes: number
  /** Of `performance.now()`. */
  since: number
  settled: boolean
  done: PromiseWithResolvers<void>
}

/** Batches that go out in one call. Sent again after a lost connection, it keeps its number. */
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

export class Publisher {
  readonly #options: PublisherOptions
  readonly #connection: () => Connection | undefined
  readonly #waiting: Batch[] = []
  #open: Batch | undefined
  #flight: Flight | undefined
  #flights = 0
  #messages = 0
  #bytes = 0
  #isClosed = false
  #timer: NodeJS.Timeout | undefined

  constructor (options: PublisherOptions, connection: () => Connection | undefined) {
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
    batch.groups.push(group)
    batch.payloads.push(payload)
    batch.bytes += bytes
    this.#messages++
    this.#bytes += bytes
    if (batch.payloads.length === MESSAGES || batch.bytes > BYTES) this.#open = undefined
    return batch.done.promise
  }

  /** Sends what waits, on a connection that is new: first what was under way when the last one was lost. */
  resume (): void {
    const flight = this.#flight
    if (flight === undefined) return this.#send()

    // a server that does not know what its predecessor published would publish it twice; with history it begins a new epoch then, and all are told
    if (!this.#options.keeps && flight.server !== this.#connection()?.server) return this.#land(flight, 'Redis restarted or failed over before it confirmed it')
    flight.batches = flight.batches.filter(({ settled }) => !settled)
    if (flight.batches.length === 0) this.#land(flight)
    else if (!flight.isUnderWay) this.#call(flight)
  }

  /** Takes no more, and resolves when all that waits has been sent or has waited too long. */
  async close (): Promise<void> {
    this.#isClosed = true
    await Promise.allSettled([...this.#flight?.batches ?? [], ...this.#waiting].map(({ done }) => done.promise))
    clearTimeout(this.#timer)
  }

  #begin (): Batch {
    const batch: Batch = { groups: [], payloads: [], bytes: 0, since: performance.now(), settled: false, done: Promise.withResolvers() }
    batch.done.promise.catch(() => {})
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
    const connection = this.#connection()
    if (this.#flight !== undefined || this.#waiting.length === 0 || !connection?.isReady) return

    let count = 0
    let messages = 0
    let bytes = 0
    for (const batch of this.#waiting) {
      messages += batch.payloads.length
      bytes += batch.bytes
      if (count > 0 && (messages > MESSAGES || bytes > BYTES)) break
      count++
    }
    this.#flight = { number: ++this.#flights, batches: this.#waiting.splice(0, count), server: connection.server, isUnderWay: false }
    this.#open = undefined
    this.#call(this.#flight)
  }

  async #call (flight: Flight): Promise<void> {
    const connection = this.#connection()
    const { keeps, sender, log, queue, channel } = this.#options
    flight.isUnderWay = true
    try {
      await connection?.run(keeps ? publishAndKeep : publishOnly, sender, [
        ...log(), String(flight.number), String(queue.timeout + MEMORY), channel, ...toRuns(flight.batches)
      ])
      this.#land(flight)
    } catch (error) {
      flight.isUnderWay = false
      // no answer, or one that another server would not give: it is sent again when the connection is back
      if (isPassing(error)) connection?.reconnect()
      else if (isReply(error)) this.#land(flight, (error as Error).message)
    }
  }

  /** The end of a call, a good one without a reason. */
  #land (flight: Flight, reason?: string): void {
    for (const batch of flight.batches) this.#settle(batch, reason)
    this.#flight = undefined
    this.#send()
  }

  #settle (batch: Batch, reason?: string): void {
    if (batch.settled) return
    batch.settled = true
    this.#messages -= batch.payloads.length
    this.#bytes -= batch.bytes
    if (reason === undefined) batch.done.resolve()
    else batch.done.reject(new errors.RP_ERR_NOT_PUBLISHED(reason))
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

/** Messages of one group that follow each other become a run, which travels as one. */
function toRuns (batches: readonly Batch[]): string[] {
  const args: string[] = []
  let group: string | undefined
  let run: string[] = []
  const end = () => {
    if (group !== undefined) args.push(group, head(run), String(run.length), ...run)
  }
  for (const { groups, payloads } of batches) {
    payloads.forEach((payload, index) => {
      if (groups[index] !== group) {
        end()
        group = groups[index]
        run = []
      }
      run.push(payload)
    })
  }
  end()
  return args
}

function refuse (reason: string): Promise<void> {
  const refused = Promise.reject(new errors.RP_ERR_NOT_PUBLISHED(reason))
  refused.catch(() => {})
  return refused
}
