/** The way out to one socket. */
import type { WebSocket } from 'ws'
import type { Member } from './groups.ts'

const TEXT = { binary: false }

/** Everything that goes to one client goes through here, in order; what comes after the close began goes nowhere. */
export class Outbox implements Member {
  readonly #socket: WebSocket

  constructor (socket: WebSocket) {
    this.#socket = socket
  }

  /** Sends a text frame: its text, or the UTF-8 bytes of it. */
  send (frame: string | Buffer): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.send(frame, TEXT)
  }
}
