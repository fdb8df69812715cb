/**
 * Finds slow consumers: clients that make no progress in reading. A client that has much left to read, and reads, is
 * not slow.
 */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'

/**
 * Checks in one `slowTimeout`. A check that is late, because the event loop was blocked, counts once: that delay is the
 * server's.
 */
const CHECKS = 10
/** Progress: the part of `highWaterMark` that the kernel must take from a socket in each `slowTimeout`. */
const PROGRESS = 1 / 16

/** A send queue as the watch uses it. */
export interface Watchable {
  readonly socket: WebSocket
  /** The TCP or TLS stream below the WebSocket. */
  readonly stream: Duplex | undefined
  /** Called once, when the client has made no progress for `slowTimeout`. */
  onSlowConsumer (): void
}

/** Limits that define a slow consumer; the options of the same names. */
export interface SlowLimits {
  /** Bytes that may stay unsent without any progress. */
  highWaterMark: number
  /** Milliseconds. */
  slowTimeout: number
}

/** The last progress of a send queue. */
interface Progress {
  /** See {@link bytesTaken}. */
  taken: number
  /** Checks since then. */
  checks: number
}

/** Watches the send queues of a server that have more than `highWaterMark` unsent, with one timer for all. */
export class SlowWatch {
  readonly #limits: SlowLimits
  readonly #watched = new Map<Watchable, Progress>()
  #timer: NodeJS.Timeout | undefined

  constructor (limits: SlowLimits) {
    this.#limits = limits
  }

  /** Watches a send queue until it has no more than `highWaterMark` unsent. */
  add (sendQueue: Watchable): void {
    if (this.#watched.has(sendQueue)) return
    this.#watched.set(sendQueue, { taken: bytesTaken(sendQueue.stream), checks: 0 })
    this.#timer ??= setInterval(() => this.#check(), this.#limits.slowTimeout / CHECKS).unref()
  }

  delete (sendQueue: Watchable): void {
    if (this.#watched.delete(sendQueue) && this.#watched.size === 0) this.#stop()
  }

  #check (): void {
    for (const [sendQueue, progress] of this.#watched) {
      if (sendQueue.socket.bufferedAmount <= this.#limits.highWaterMark) {
        this.delete(sendQueue)
      } else if (this.#hasProgress(sendQueue, progress)) {
        progress.taken = bytesTaken(sendQueue.stream)
        progress.checks = 0
      } else if (++progress.checks === CHECKS) {
        this.delete(sendQueue)
        sendQueue.onSlowConsumer()
      }
    }
  }

  /**
   * Whether the kernel took enough bytes, or all that the stream has: other unsent bytes are still being compressed.
   */
  #hasProgress ({ stream }: Watchable, { taken }: Progress): boolean {
    return stream?.writableLength === 0 || bytesTaken(stream) - taken >= this.#limits.highWaterMark * PROGRESS
  }

  #stop (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** Node.js' internal handle of a TCP, TLS or pipe socket. */
interface SocketHandle {
  /** Bytes that were passed to the handle. */
  readonly bytesWritten: number
  /** Bytes of these that the kernel has not taken; it changes during a write. */
  readonly writeQueueSize: number
  /** The handle of the TCP socket below TLS. */
  readonly _parent?: Partial<SocketHandle>
}

/**
 * A counter that grows as the kernel takes bytes from a stream. A stream without a handle, as a test injects, has its
 * negative queue length instead, which falls with each write.
 */
function bytesTaken (stream: Duplex | undefined): number {
  const own = (stream as { _handle?: Partial<SocketHandle> | null } | undefined)?._handle
  // TLS encrypts a whole write at once: only the handle below it shows progress
  const handle = own?._parent ?? own
  if (handle?.bytesWritten !== undefined && handle.writeQueueSize !== undefined) {
    return handle.bytesWritten - handle.writeQueueSize
  }
  return -Number(stream?.writableLength)
}
