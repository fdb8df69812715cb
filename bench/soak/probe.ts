/** How long a `ping` takes, seen from a process that has little else to do. */
import { once } from 'node:events'
import type { WebSocket } from 'ws'
import { connect } from './client.ts'

const CONNECTIONS = 5
/** Milliseconds between two pings of one connection. */
const EVERY = 50

/** Pings until it is stopped. */
export class Probe {
  readonly #times: number[] = []
  readonly #sockets: WebSocket[] = []
  readonly #timers: NodeJS.Timeout[] = []

  async start (port: number): Promise<void> {
    for (let count = 0; count < CONNECTIONS; count++) {
      const socket = connect(port)
      this.#sockets.push(socket)
      await once(socket, 'open')
      // the id is when it was sent
      socket.on('message', (data) => this.#times.push(performance.now() - JSON.parse(String(data)).id))
      this.#timers.push(setInterval(() => socket.send(`{"id":${performance.now()},"type":"ping"}`), EVERY))
    }
  }

  /** Forgets what was measured so far. */
  reset (): void {
    this.#times.length = 0
  }

  /** Milliseconds, of so many pings. */
  stop (): { count: number, p50: number, p99: number, max: number } {
    for (const timer of this.#timers) clearInterval(timer)
    for (const socket of this.#sockets) socket.terminate()
    const sorted = this.#times.toSorted((a, b) => a - b)
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
    return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
  }
}
