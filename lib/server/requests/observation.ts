/** What those who listen to the channels of diagnostics are told of one message, from its start to its end. */
import { diagnostics, type MessageEvent, type ReplyEvent } from '../../diagnostics.ts'
import type { Envelope } from '../../protocol/decode.ts'
import type { RohrpostConnection } from '../types.ts'

/** One message that somebody wants to hear of. */
export class Observation {
  readonly #event: MessageEvent
  readonly #startedAt = performance.now()

  private constructor (event: MessageEvent) {
    this.#event = event
  }

  /** Begins; nothing where nobody listens. */
  static of (connection: RohrpostConnection, type: string | undefined, message: Envelope | undefined, size: number): Observation | undefined {
    if (!diagnostics.message.hasSubscribers && !diagnostics.reply.hasSubscribers) return undefined
    return new Observation({ connection, type, message, size })
  }

  /** Tells of the message and works it off, in the stores that are bound to the channel. */
  run<Result> (work: () => Result): Result {
    return diagnostics.message.runStores(this.#event, work)
  }

  /** Tells of the end. @param text what was sent */
  end (outcome: ReplyEvent['outcome'], code: string | undefined, text: string): void {
    if (!diagnostics.reply.hasSubscribers) return
    diagnostics.reply.publish({
      message: this.#event, outcome, code, size: Buffer.byteLength(text), duration: performance.now() - this.#startedAt
    })
  }
}
