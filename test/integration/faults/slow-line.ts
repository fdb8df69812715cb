/** A TCP line that can be led to another server, cut, and made slow. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'

/** How slow a line is: bytes a second of each connection and direction, and milliseconds until they arrive. */
export interface Slowness {
  rate: number
  delay: number
}

export class SlowLine {
  /** Where new connections go. */
  target: number
  /** How slow it is, `undefined` for as fast as can be. */
  slowness: Slowness | undefined
  readonly #sockets = new Set<Socket>()
  readonly #server = createServer((near) => this.#lead(near))

  constructor (target: number) {
    this.target = target
  }

  get port (): number {
    return (this.#server.address() as AddressInfo).port
  }

  async open (): Promise<void> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  /** Ends all connections. */
  cut (): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  close (): void {
    this.#server.close()
    this.cut()
  }

  #lead (near: Socket): void {
    const far = connect(this.target, '127.0.0.1')
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.#sockets.add(from)
      this.#carry(from, to)
      from.on('error', () => {})
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
    }
  }

  async #carry (from: Socket, to: Socket): Promise<void> {
    // what is sent when the line is fast again does not overtake what is on its way
    let carried = Promise.resolve()
    const arrive = (piece: Buffer, at: number) => {
      carried = carried.then(async () => {
        const left = at - performance.now()
        if (left > 0) await wait(left)
        to.write(piece)
      })
    }
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        for (let at = 0; at < chunk.length;) {
          const { rate, delay = 0 } = this.slowness ?? {}
          const length = rate === undefined ? chunk.length : Math.ceil(rate / 20)
          const piece = chunk.subarray(at, at + length)
          if (rate !== undefined) await wait(piece.length * 1000 / rate)
          arrive(piece, performance.now() + delay)
          at += length
        }
      }
    } catch {
      // the connection is gone
    }
  }
}
