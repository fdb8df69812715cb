/**
 * The sending side of one connection: replies and group messages leave through its send queue, in order and in one
 * write for each turn.
 */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Flushable, FlushScheduler } from './flush-scheduler.ts'
import type { Frame } from './frame.ts'
import type { FrameList } from './frame-list.ts'
import { Replays } from './replays.ts'
import type { SlowLimits, Watchable } from './slow-watch.ts'

/** Limits of the unsent bytes of one client; the options of the same names. */
export interface SendQueueLimits extends SlowLimits {
  /** Bytes of earlier turns that may be unsent at most. */
  maxUnsent: number
}

/** Queues and writes all frames of one client. Frames that are sent after the close began are dropped. */
export class SendQueue implements Flushable, Watchable {
  readonly socket: WebSocket
  readonly stream: Duplex | undefined
  /** Whether frames are written to the stream as they are; otherwise `ws` compresses and sends them. */
  readonly #isUncompressed: boolean
  readonly #scheduler: FlushScheduler
  readonly #limits: SendQueueLimits
  readonly #connection: { onSlowConsumer (): void }
  #announcesLargeFrames = false
  /** The frames of this turn; `undefined` while there are none. */
  #list: FrameList | undefined
  #replays: Replays | undefined
  #isSlow = false

  /**
   * @param stream the socket of the upgrade request; `undefined` where a test injects the WebSocket
   * @param connection called once, when the client is a slow consumer
   */
  constructor (
    socket: WebSocket,
    stream: Duplex | undefined,
    scheduler: FlushScheduler,
    limits: SendQueueLimits,
    connection: { onSlowConsumer (): void }
  ) {
    this.socket = socket
    this.stream = stream
    this.#isUncompressed = stream !== undefined && socket.extensions === ''
    this.#scheduler = scheduler
    this.#limits = limits
    this.#connection = connection

    // `ws` itself calls `close` when the client closes: frames that were sent before must leave first
    const { close } = socket
    socket.close = (code, reason) => {
      this.flush()
      close.call(socket, code, reason)
    }
  }

  /** Sends a frame at the end of the turn. */
  send (frame: Frame): void {
    const list = this.#list ?? this.#scheduler.add(this)
    const incoming = this.#announcesLargeFrames ? frame.incoming : undefined
    this.#list = (incoming === undefined ? list : list.append(incoming)).append(frame)
  }

  /** From now on an `incoming` message precedes each large frame. */
  announceLargeFrames (): void {
    this.#announcesLargeFrames = true
  }

  /**
   * Sends the frames that `next` returns, until it returns `undefined`, as fast as the client reads. Replays of one
   * client run one after another.
   */
  replay (next: () => Frame | undefined): void {
    this.#replays ??= new Replays((frame) => this.send(frame))
    this.#replays.add(next)
  }

  /** Drops a replay that has not started. */
  dropReplay (next: () => Frame | undefined): void {
    this.#replays?.drop(next)
  }

  /** Writes the frames of this turn. */
  flush (): void {
    const list = this.#list
    this.#list = undefined
    if (list === undefined || this.socket.readyState !== this.socket.OPEN) return

    const { highWaterMark, maxUnsent } = this.#limits
    if (this.socket.bufferedAmount > maxUnsent) return this.onSlowConsumer()

    const onWritten = this.#replays?.beforeWrite()
    if (this.#isUncompressed) this.#writeBytes(list.bytes, onWritten)
    else this.#sendFrames(list.frames, onWritten)
    if (this.socket.bufferedAmount > highWaterMark) this.#scheduler.watch.add(this)
  }

  onSlowConsumer (): void {
    if (this.#isSlow) return
    this.#isSlow = true
    this.#connection.onSlowConsumer()
  }

  terminate (): void {
    this.socket.terminate()
  }

  /** Called when the socket has closed. */
  stop (): void {
    this.#scheduler.watch.delete(this)
  }

  /** Writes to the stream, with one system call. */
  #writeBytes (bytes: Buffer | readonly Buffer[], onWritten: (() => void) | undefined): void {
    const { stream } = this
    if (Buffer.isBuffer(bytes)) {
      stream?.write(bytes, onWritten)
      return
    }
    stream?.cork()
    const last = bytes.length - 1
    for (const [index, buffer] of bytes.entries()) stream?.write(buffer, index === last ? onWritten : undefined)
    stream?.uncork()
  }

  #sendFrames (frames: readonly Frame[], onWritten: (() => void) | undefined): void {
    const last = frames.length - 1
    for (const [index, { text }] of frames.entries()) this.socket.send(text, index === last ? onWritten : undefined)
  }
}
