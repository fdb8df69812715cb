/** Finds clients that make no progress. A client that has much left to read, and reads, is not slow. */
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'

/** Steps of `slowTimeout`. The time of a step that comes late, because the event loop was blocked, counts once: it is the server's. */
const STEPS = 10
/** The part of `highWaterMark` that a line must take in each `slowTimeout`. */
const PROGRESS = 1 / 16

/** The sending side of one connection. */
export interface Watchable {
  readonly socket: WebSocket
  /** The stream below the socket, also where `ws` writes to it. */
  readonly line: Duplex | undefined
  /** Called when the client has made no progress, once. */
  slow (): void
}

/** The limits by which a client is slow; the options of the same names. */
export interface SlowLimits {
  /** Bytes that may be unsent for any time. */
  highWaterMark: number
  /** Milliseconds. */
  slowTimeout: number
}

/** Since when a connection has made no progress. */
interface Mark {
  taken: number
  steps: number
}

/** Watches the connections of a server that have more than `highWaterMark` unsent, all with one timer. */
export class SlowWatch {
  readonly #limits: SlowLimits
  readonly #marks = new Map<Watchable, Mark>()
  #timer: NodeJS.Timeout | undefined

  constructor (limits: SlowLimits) {
    this.#limits = limits
  }

  /** Watches a connection until it has less unsent. */
  add (outbox: Watchable): void {
    if (this.#marks.has(outbox)) return
    this.#marks.set(outbox, { taken: takenBy(outbox.line), steps: 0 })
    this.#timer ??= setInterval(() => this.#step(), this.#limits.slowTimeout / STEPS).unref()
  }

  delete (outbox: Watchable): void {
    if (this.#marks.delete(outbox) && this.#marks.size === 0) this.#stop()
  }

  #step (): void {
    for (const [outbox, mark] of this.#marks) {
      if (outbox.socket.bufferedAmount <= this.#limits.highWaterMark) {
        this.delete(outbox)
      } else if (this.#advances(outbox, mark)) {
        mark.taken = takenBy(outbox.line)
        mark.steps = 0
      } else if (++mark.steps === STEPS) {
        this.delete(outbox)
        outbox.slow()
      }
    }
  }

  /** Whether the line took enough since the mark, or all that it was given: what else is unsent is still being compressed. */
  #advances ({ line }: Watchable, { taken }: Mark): boolean {
    return line?.writableLength === 0 || takenBy(line) - taken >= this.#limits.highWaterMark * PROGRESS
  }

  #stop (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** Node.js' handle of a TCP, TLS or pipe socket. */
interface Handle {
  /** Bytes that were handed to the handle. */
  readonly bytesWritten: number
  /** Those of them that the kernel has not taken, which changes in the midst of a write. */
  readonly writeQueueSize: number
  /** The handle below that of TLS. */
  readonly _parent?: Partial<Handle>
}

/** A number of bytes that grows as the kernel takes them. Without a handle, as for a stream that a test injected, it falls with what is written too. */
function takenBy (line: Duplex | undefined): number {
  const own = (line as { _handle?: Partial<Handle> | null } | undefined)?._handle
  // TLS encrypts all of a write at once: the progress is that of the socket below
  const handle = own?._parent ?? own
  if (handle?.bytesWritten !== undefined && handle.writeQueueSize !== undefined) return handle.bytesWritten - handle.writeQueueSize
  return -Number(line?.writableLength)
}
