/** The clients of one recording: several sockets by name, and what reached each of them. */
import { once } from 'node:events'
import { WebSocket } from 'ws'
import { payloadOf, type Outcome, type Step } from './fixture.ts'

/** One socket with what it received since it was last asked. */
class Client {
  readonly socket: WebSocket
  readonly closed: Promise<unknown>
  frames: string[] = []
  code: number | undefined

  constructor (url: string) {
    this.socket = new WebSocket(url)
    this.socket.on('message', (data: Buffer) => this.frames.push(data.toString()))
    this.socket.on('close', (code: number) => { this.code = code })
    this.closed = once(this.socket, 'close')
  }

  /** Resolves when all that the server had to send before has arrived. */
  async settle (): Promise<void> {
    if (this.socket.readyState !== WebSocket.OPEN) {
      await this.closed
      return
    }
    const answered = once(this.socket, 'pong')
    this.socket.ping()
    await Promise.race([answered, this.closed])
  }
}

/** Acts as all the clients of a recording. */
export class Clients {
  readonly #url: string
  readonly #clients = new Map<string, Client>()
  readonly #gone = new Set<string>()

  constructor (url: string) {
    this.#url = url
  }

  /** Connects the clients that are there from the start: those of the steps, without who comes later. */
  async connect (steps: readonly Step[]): Promise<void> {
    const late = new Set(steps.filter(({ open }) => open).map(({ on }) => on))
    const names = new Set(steps.flatMap(({ on, answer }) => [on, ...Object.keys(answer ?? {})]))
    await Promise.all([...names].filter((name) => !late.has(name)).map((name) => this.#open(name)))
  }

  /** Does one step. @returns what reached the clients until nothing more was to come */
  async act (step: Step): Promise<Outcome<string>> {
    if (step.open) await this.#open(step.on)
    const actor = this.#clients.get(step.on)
    if (actor === undefined) throw new Error(`${step.on} is not connected`)

    if (step.close) actor.socket.close(1000)
    else if (!step.open) actor.socket.send(payloadOf(step))

    // a handler that goes on asynchronously has answered before the server reads the second of two pings
    await actor.settle()
    await actor.settle()
    await Promise.all([...this.#clients.values()].map((client) => client.settle()))
    return this.#collect()
  }

  terminate (): void {
    for (const { socket } of this.#clients.values()) socket.terminate()
  }

  async #open (name: string): Promise<void> {
    const client = new Client(this.#url)
    this.#clients.set(name, client)
    await once(client.socket, 'open')
  }

  #collect (): Outcome<string> {
    const answer: Record<string, string[]> = {}
    const closed: Record<string, number> = {}
    for (const [name, client] of this.#clients) {
      if (client.frames.length > 0) answer[name] = client.frames
      client.frames = []
      if (client.code === undefined || this.#gone.has(name)) continue
      closed[name] = client.code
      this.#gone.add(name)
    }
    return {
      ...(Object.keys(answer).length > 0 && { answer }),
      ...(Object.keys(closed).length > 0 && { closed })
    }
  }
}
