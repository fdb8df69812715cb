/**
 * Flushes the send queues of a server at the end of each turn of the event loop. One write for all frames of a turn is
 * cheap; a write for each frame is the most expensive part of a delivery.
 */
import { FrameList } from './frame-list.ts'
import { SlowWatch, type SlowLimits } from './slow-watch.ts'

/** Outboxes that are flushed before the event loop continues: a message to a huge group must not block it. */
const MAX_FLUSHES = 1000

/** A send queue as the scheduler uses it. */
export interface Flushable {
  /** Writes the frames of the turn to the socket. */
  flush (): void
  /** Destroys the socket. */
  terminate (): void
}

/** The send queues of one server that have frames to write. */
export class FlushScheduler {
  /** Finds the slow consumers among the same send queues. */
  readonly watch: SlowWatch
  /** The empty list that the send queues of this turn share. */
  #start = new FrameList()
  #sendQueues: Flushable[] = []
  #isScheduled = false

  constructor (limits: SlowLimits) {
    this.watch = new SlowWatch(limits)
  }

  /** Schedules the flush of a send queue. @returns the empty frame list of this turn */
  add (sendQueue: Flushable): FrameList {
    this.#sendQueues.push(sendQueue)
    if (!this.#isScheduled) {
      this.#isScheduled = true
      process.nextTick(this.#flush)
    }
    return this.#start
  }

  readonly #flush = (): void => {
    this.#start = new FrameList()
    const sendQueues = this.#sendQueues.splice(0, MAX_FLUSHES)
    if (this.#sendQueues.length > 0) setImmediate(this.#flush)
    else this.#isScheduled = false

    for (const sendQueue of sendQueues) {
      try {
        sendQueue.flush()
      } catch {
        // a client that has lost a frame must not continue, and must not keep other clients from their frames
        sendQueue.terminate()
      }
    }
  }
}
