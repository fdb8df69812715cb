/**
 * The way out to the sockets. What goes to one client in one turn of the event loop, replies and group messages alike, leaves in
 * order and in one write: a write is the dearest part of a delivery.
 */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Follower } from '../groups/catch-up.ts'
import type { Frame } from './frame.ts'
import { FrameList } from './frame-list.ts'
import { Replays } from './replays.ts'
import { SlowWatch, type SlowLimits, type Watchable } from './slow-watch.ts'

/** Writes after which the event loop gets its turn, in the midst of a huge group. */
const PORTION = 1000

/** The outboxes of a server that have something to send in this turn, and those of slow clients. */
export class Turn {
  readonly watch: SlowWatch
  /** From which all lists of the turn go on. */
  #start = new FrameList()
  #outboxes: Outbox[] = []
  #scheduled = false

  constructor (limits: SlowLimits) {
    this.watch = new SlowWatch(limits)
  }

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
export interface OutboxLimits extends SlowLimits {
  /** Bytes that may be left unsent of earlier turns. */
  maxUnsent: number
}

/** Whom an outbox belongs to. */
export interface Peer {
  /** Called once, when the client does not read as fast as it must. */
  slow (): void
}

/** Everything that goes to one client goes through here, in order; what comes after the close began goes nowhere. */
export class Outbox implements Follower, Watchable {
  readonly socket: WebSocket
  /** The socket of the upgrade request. */
  readonly line: Duplex | undefined
  /** Whether frames go to the line as they are; else `ws` compresses and sends them. */
  readonly #isPlain: boolean
  readonly #turn: Turn
  readonly #limits: OutboxLimits
  readonly #peer: Peer
  /** Whether the client asked to be told of large frames before they come. */
  #announces = false
  /** What is to be sent, while there is something. */
  #list: FrameList | undefined
  #replays: Replays | undefined
  #isSlow = false

  constructor (socket: WebSocket, line: Duplex | undefined, turn: Turn, limits: OutboxLimits, peer: Peer) {
    this.socket = socket
    this.line = line
    this.#isPlain = line !== undefined && socket.extensions === ''
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
    this.#list = (this.#announces && frame.notice !== undefined ? list.with(frame.notice) : list).with(frame)
  }

  /** Tells the client of each large frame before it comes. */
  announce (): void {
    this.#announces = true
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
    if (list === undefined || this.socket.readyState !== this.socket.OPEN) return

    const { highWaterMark, maxUnsent } = this.#limits
    if (this.socket.bufferedAmount > maxUnsent) return this.slow()

    const done = this.#replays?.written()
    if (this.#isPlain) this.#write(list.bytes, done)
    else this.#send(list.frames, done)
    if (this.socket.bufferedAmount > highWaterMark) this.#turn.watch.add(this)
  }

  slow (): void {
    if (this.#isSlow) return
    this.#isSlow = true
    this.#peer.slow()
  }

  /** Ends the line. */
  cut (): void {
    this.socket.terminate()
  }

  /** The socket has closed. */
  stop (): void {
    this.#turn.watch.delete(this)
  }

  /** Writes to the line, with one system call. */
  #write (bytes: Buffer | readonly Buffer[], done: (() => void) | undefined): void {
    const { line } = this
    if (Buffer.isBuffer(bytes)) {
      line?.write(bytes, done)
      return
    }
    line?.cork()
    for (const [index, buffer] of bytes.entries()) line?.write(buffer, index === bytes.length - 1 ? done : undefined)
    line?.uncork()
  }

  #send (frames: readonly Frame[], done: (() => void) | undefined): void {
    for (const [index, { text }] of frames.entries()) this.socket.send(text, index === frames.length - 1 ? done : undefined)
  }
}
