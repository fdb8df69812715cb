/**
 * The way out to the sockets. What goes to one client in one turn of the event loop, replies and group messages alike, leaves in
 * order and in one write: a write is the dearest part of a delivery.
 */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Follower } from './followers.ts'
import type { Frame } from './frame.ts'
import { FrameList } from './frame-list.ts'
import { Replays } from './replays.ts'

/** Writes after which the event loop gets its turn, in the midst of a huge group. */
const PORTION = 1000

/** The outboxes of a server that have something to send in this turn. */
export class Turn {
  /** From which all lists of the turn go on. */
  #start = new FrameList()
  #outboxes: Outbox[] = []
  #scheduled = false

  /** Has an outbox emptied when this turn ends. Gives the list with which it begins. */
  add (outbox: Outbox): FrameList {
    this.#outboxes.push(outbox)
    if (!this.#scheduled) {
      this.#scheduled = true
      process.nextTick(this.#end)
    }
    return this.#start
  }

  readonly #end = (): void => {
    this.#start = new FrameList()
    const outboxes = this.#outboxes.splice(0, PORTION)
    if (this.#outboxes.length > 0) setImmediate(this.#end)
    else this.#scheduled = false

    for (const outbox of outboxes) {
      try {
        outbox.flush()
      } catch {
        // a client that has lost a frame must not go on, and must not keep the others from theirs
        outbox.cut()
      }
    }
  }
}

/** How much may be on its way to one client. */
export interface OutboxLimits {
  /** Bytes that may be unsent for longer than `slowTimeout` milliseconds. */
  highWaterMark: number
  slowTimeout: number
  /** Bytes that may be left unsent of earlier turns. */
  maxUnsent: number
}

/** Whom an outbox belongs to. */
export interface Peer {
  /** Called when the client does not read as fast as it must. */
  slow (): void
}

/** Everything that goes to one client goes through here, in order; what comes after the close began goes nowhere. */
export class Outbox implements Follower {
  readonly #socket: WebSocket
  /** The line itself, where nothing between frames and line changes them; else `ws` sends. */
  readonly #line: Duplex | undefined
  readonly #turn: Turn
  readonly #limits: OutboxLimits
  readonly #peer: Peer
  /** What is to be sent, while there is something. */
  #list: FrameList | undefined
  #replays: Replays | undefined
  /** Runs while more than `highWaterMark` is unsent. */
  #slow: NodeJS.Timeout | undefined

  /** @param line the socket of the upgrade request */
  constructor (socket: WebSocket, line: Duplex | undefined, turn: Turn, limits: OutboxLimits, peer: Peer) {
    this.#socket = socket
    this.#line = socket.extensions === '' ? line : undefined
    this.#turn = turn
    this.#limits = limits
    this.#peer = peer

    // whoever closes, `ws` itself included when the client does: what was sent before goes out first
    const { close } = socket
    socket.close = (code, reason) => {
      this.flush()
      close.call(socket, code, reason)
    }
  }

  /** Sends a frame when the turn ends. */
  send (frame: Frame): void {
    const list = this.#list ?? this.#turn.add(this)
    this.#list = list.with(frame)
  }

  replay (next: () => Frame | undefined): void {
    this.#replays ??= new Replays((frame) => this.send(frame))
    this.#replays.add(next)
  }

  /** Drops a replay that has not begun. */
  dropReplay (next: () => Frame | undefined): void {
    this.#replays?.drop(next)
  }

  /** Writes what is to be sent. */
  flush (): void {
    const list = this.#list
    this.#list = undefined
    if (list === undefined || this.#socket.readyState !== this.#socket.OPEN) return

    const { highWaterMark, maxUnsent } = this.#limits
    const unsent = this.#socket.bufferedAmount
    if (unsent > maxUnsent) return this.#peer.slow()

    const { bytes } = list
    const watched = unsent + bytes.length > highWaterMark ? this.#watch() : undefined
    const done = both(watched, this.#replays?.written())
    if (this.#line !== undefined) {
      this.#line.write(bytes, done)
    } else {
      const { frames } = list
      for (const [index, { text }] of frames.entries()) this.#socket.send(text, index === frames.length - 1 ? done : undefined)
    }
  }

  /** Ends the line. */
  cut (): void {
    this.#socket.terminate()
  }

  /** The socket has closed. */
  stop (): void {
    clearTimeout(this.#slow)
  }

  /** Gives the client `slowTimeout` to read; the returned function is to be called when it has read something. */
  #watch (): () => void {
    this.#slow ??= setTimeout(() => this.#peer.slow(), this.#limits.slowTimeout).unref()
    return () => {
      if (this.#socket.bufferedAmount > this.#limits.highWaterMark) return
      clearTimeout(this.#slow)
      this.#slow = undefined
    }
  }
}

function both (one: (() => void) | undefined, other: (() => void) | undefined): (() => void) | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return () => {
    one()
    other()
  }
}
