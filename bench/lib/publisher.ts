/**
 * Publishes as fast as a window of undelivered frames allows: the load generator reports what has come, the server waits when too much is
 * under way. So no server looks good by the depth of its queues.
 */
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

/** What is published in each turn of the event loop, and how much may be under way. */
export interface Publishing {
  tick: () => void | Promise<void>
  /** Deliveries that a tick leads to. */
  framesPerTick: number
  /** Deliveries that may be under way, at least four times those of a tick. */
  window: number
}

/** The publishing side of a server under test. */
export class Publisher {
  #attempted = 0
  #received = 0
  #publishing: Publishing | undefined
  #blocked = false
  #ticking: Promise<void> | undefined

  /** Listens for the reports of the load generator. */
  async listen (): Promise<number> {
    const server = createServer((socket) => {
      let rest: Buffer = Buffer.alloc(0)
      socket.on('error', () => {})
      socket.on('data', (chunk) => {
        const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
        const end = bytes.length - bytes.length % 8
        if (end > 0) this.#received = bytes.readDoubleLE(end - 8)
        rest = bytes.subarray(end)
        if (this.#blocked) this.#next()
      })
    })
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  }

  start (publishing: Publishing): void {
    this.#publishing = publishing
    this.#next()
  }

  /** Publishes no more. Gives the number of deliveries that must arrive in all. */
  async stop (): Promise<number> {
    this.#publishing = undefined
    await this.#ticking
    return this.#attempted
  }

  /** Counts deliveries that are published otherwise. */
  add (frames: number): void {
    this.#attempted += frames
  }

  readonly #next = (): void => {
    if (this.#publishing === undefined) return
    const { tick, framesPerTick, window } = this.#publishing

    this.#blocked = this.#attempted + framesPerTick - this.#received > window
    if (this.#blocked) return
    this.#attempted += framesPerTick
    const ticking = tick()
    if (ticking === undefined) setImmediate(this.#next)
    else this.#ticking = ticking.then(() => { setImmediate(this.#next) })
  }
}
