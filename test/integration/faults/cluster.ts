/** Fastify processes behind one Redis, and a balancer before them that sends each connection to one that is there. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../support/free-port.ts'

/** What a process is asked: to publish so many messages, one to each group in turn. */
export interface Ask {
  count: number
}

/** What a process tells: the numbers of messages that the broker has, and of those that it could not take. */
export interface Told {
  published: number[]
  failed: number[]
  /** Whether `health()` said that something is wrong, and how many lines of the log said that the broker failed. */
  isUnwell: boolean
  lines: number
}

export interface ClusterOptions {
  /** The port of Redis. */
  redis: number
  processes: number
  groups: number
  history: { size: number, ttl: number } | undefined
}

/** The messages of one process: `n` counts them, and the group is `n` modulo the number of groups. */
export interface Publisher {
  asked: number
  readonly published: Set<number>
  readonly failed: Set<number>
}

interface Place {
  readonly port: number
  child: ChildProcess | undefined
  publisher: number
}

export class Cluster {
  /** Every process there has been. */
  readonly publishers: Publisher[] = []
  /** How often processes said that they are not well, and lines of their logs said that the broker failed. */
  readonly signs = { health: 0, log: 0 }
  readonly #options: ClusterOptions
  readonly #places: Place[] = []
  readonly #lines = new Set<Socket>()
  readonly #balancer = createServer((near) => this.#lead(near))

  constructor (options: ClusterOptions) {
    this.#options = options
  }

  /** Starts all processes. @returns where clients connect to */
  async start (): Promise<string> {
    for (let n = 0; n < this.#options.processes; n++) this.#places.push({ port: await freePort(), child: undefined, publisher: -1 })
    await Promise.all(this.#places.map((_, index) => this.startOne(index)))
    this.#balancer.listen(0, '127.0.0.1')
    await once(this.#balancer, 'listening')
    return `ws://127.0.0.1:${(this.#balancer.address() as AddressInfo).port}/ws/rohrpost`
  }

  /** Starts a process where there is none. */
  async startOne (index: number): Promise<void> {
    const place = this.#place(index)
    const { redis, history, groups } = this.#options
    const publisher: Publisher = { asked: 0, published: new Set(), failed: new Set() }
    const options = { port: place.port, redis, history, groups, publisher: this.publishers.push(publisher) - 1 }
    const child = fork(fileURLToPath(new URL('server.ts', import.meta.url)), [JSON.stringify(options)])
    const ready = Promise.withResolvers<void>()
    child.on('message', ({ published, failed, isUnwell, lines }: Told) => {
      this.signs.health += Number(isUnwell)
      this.signs.log += lines
      for (const n of published) publisher.published.add(n)
      for (const n of failed) publisher.failed.add(n)
      ready.resolve()
    })
    child.on('exit', (code) => {
      place.child = undefined
      ready.reject(new Error(`a process ended with ${code}`))
    })
    await ready.promise
    place.child = child
    place.publisher = options.publisher
  }

  /** Ends a process as a power failure would. */
  async kill (index: number): Promise<void> {
    const { child } = this.#place(index)
    if (child === undefined) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  /** How many processes there are. */
  get size (): number {
    return this.#places.length
  }

  /** Has messages published by all processes that are there. */
  publish (count: number): void {
    const there = this.#places.filter(({ child }) => child !== undefined)
    for (const [index, { child, publisher }] of there.entries()) {
      const share = Math.floor((count + index) / there.length)
      const asked = this.publishers[publisher]
      if (asked === undefined || share === 0) continue
      asked.asked += share
      child?.send({ count: share } satisfies Ask, () => {})
    }
  }

  /** Cuts the lines of some clients. */
  cut (count: number): void {
    const lines = [...this.#lines]
    for (let n = 0; n < count; n++) lines[Math.floor(Math.random() * lines.length)]?.destroy()
  }

  async stop (): Promise<void> {
    this.#balancer.close()
    for (const line of this.#lines) line.destroy()
    await Promise.all(this.#places.map((_, index) => this.kill(index)))
  }

  #place (index: number): Place {
    const place = this.#places[index]
    if (place === undefined) throw new RangeError(`there is no process ${index}`)
    return place
  }

  #lead (near: Socket): void {
    const ready = this.#places.filter(({ child }) => child !== undefined)
    const place = ready[Math.floor(Math.random() * ready.length)]
    near.on('error', () => {})
    if (place === undefined) {
      near.destroy()
      return
    }
    const far = connect(place.port, '127.0.0.1')
    this.#lines.add(near)
    near.pipe(far).pipe(near)
    far.on('error', () => {})
    far.on('close', () => near.destroy())
    near.on('close', () => {
      this.#lines.delete(near)
      far.destroy()
    })
  }
}
