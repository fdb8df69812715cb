/**
 * The way out to the sockets. What goes to one client in one turn of the event loop, replies and group messages alike, leaves in
 * order and in one write: a write is the dearest part of a delivery.
 */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Frame } from './frame.ts'
import type { Member } from './groups.ts'

/** Writes after which the event loop gets its turn, in the midst of a huge group. */
const PORTION = 1000

/** The outboxes of a server that have something to send in this turn. */
export class Turn {
  #outboxes: Outbox[] = []
  #scheduled = false

  /** Has an outbox emptied when this turn ends. */
  add (outbox: Outbox): void {
    this.#outboxes.push(outbox)
    if (!this.#scheduled) {
      this.#scheduled = true
      process.nextTick(this.#end)
    }
  }

  readonly #end = (): void => {
    const outboxes = this.#outboxes.splice(0, PORTION)
    if (this.#outboxes.length > 0) setImmediate(this.#end)
    else this.#scheduled = false

    // members of the same groups have the same list: they share the joined bytes too
    let last: readonly Frame[] = []
    let bytes: Buffer | undefined
    for (const outbox of outboxes) {
      const frames = outbox.take()
      if (bytes === undefined || !same(frames, last)) bytes = join(frames)
      last = frames
      if (bytes !== undefined) outbox.write(bytes)
    }
  }
}

/** Everything that goes to one client goes through here, in order; what comes after the close began goes nowhere. */
export class Outbox implements Member {
  readonly #socket: WebSocket
  /** The line itself, where nothing between frames and line changes them; else `ws` sends. */
  readonly #line: Duplex | undefined
  readonly #turn: Turn
  #frames: Frame[] = []

  /** @param line the socket of the upgrade request */
  constructor (socket: WebSocket, line: Duplex | undefined, turn: Turn) {
    this.#socket = socket
    this.#line = socket.extensions === '' ? line : undefined
    this.#turn = turn
  }

  /** Sends a frame when the turn ends. */
  send (frame: Frame): void {
    if (this.#line === undefined) {
      if (this.#isOpen()) this.#socket.send(frame.text)
    } else if (this.#frames.push(frame) === 1) {
      this.#turn.add(this)
    }
  }

  /** Hands over what is to be sent. */
  take (): readonly Frame[] {
    const frames = this.#frames
    this.#frames = []
    return frames
  }

  /** Sends now what would be sent when the turn ends. */
  flush (): void {
    const bytes = join(this.take())
    if (bytes !== undefined) this.write(bytes)
  }

  /** Writes the bytes of whole frames. */
  write (bytes: Buffer): void {
    if (this.#isOpen()) this.#line?.write(bytes)
  }

  #isOpen (): boolean {
    return this.#socket.readyState === this.#socket.OPEN
  }
}

function same (frames: readonly Frame[], others: readonly Frame[]): boolean {
  return frames.length === others.length && frames.every((frame, index) => frame === others[index])
}

function join (frames: readonly Frame[]): Buffer | undefined {
  return frames.length > 1 ? Buffer.concat(frames.map(({ bytes }) => bytes)) : frames[0]?.bytes
}
