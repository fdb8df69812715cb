/** Diagnostics of one client message: the events `rohrpost:message` and `rohrpost:reply`. */
import { diagnostics, type MessageEvent, type ReplyEvent } from '../../diagnostics.ts'
import type { Envelope } from '../../protocol/decode.ts'
import type { RohrpostConnection } from '../types.ts'

/** Publishes the diagnostics events of one message. It exists only while one of the two channels has a subscriber. */
export class Observation {
  readonly #event: MessageEvent
  readonly #startedAt = performance.now()

  private constructor (event: MessageEvent) {
    this.#event = event
  }

  /** Starts an observation; `undefined` if neither channel has a subscriber. */
  static of (
    connection: RohrpostConnection,
    type: string | undefined,
    message: Envelope | undefined,
    size: number
  ): Observation | undefined {
    if (!diagnostics.message.hasSubscribers && !diagnostics.reply.hasSubscribers) return undefined
    return new Observation({ connection, type, message, size })
  }

  /** Publishes the message event, and calls `handle` inside the stores that are bound to its channel. */
  run<Result> (handle: () => Result): Result {
    return diagnostics.message.runStores(this.#event, handle)
  }

  /** Publishes the reply event. @param text the text that was sent */
  end (outcome: ReplyEvent['outcome'], code: string | undefined, text: string): void {
    if (!diagnostics.reply.hasSubscribers) return
    diagnostics.reply.publish({
      message: this.#event, outcome, code, size: Buffer.byteLength(text), duration: performance.now() - this.#startedAt
    })
  }
}
