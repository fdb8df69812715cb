/** What a handler gets as its first argument. */
import type { Envelope, MessageId } from '../protocol/decode.ts'
import type { RohrpostMessage } from './types.ts'

/** What a message needs to know of the request that it belongs to. */
export interface Answerable {
  readonly signal: AbortSignal
  reply (data: unknown, type: string): void
}

/** A parsed envelope with `reply` and `signal`, which a client's own fields of these names do not replace. */
export class Message implements RohrpostMessage {
  readonly id: MessageId
  readonly type: string
  readonly data: unknown
  readonly [field: string]: unknown
  readonly #request: Answerable

  constructor (envelope: Envelope, request: Answerable) {
    this.id = envelope.id
    this.type = envelope.type
    this.data = envelope.data
    this.#request = request

    for (const field in envelope) {
      if (field in this && !Object.hasOwn(Object.prototype, field)) continue
      // defined, not assigned: `__proto__` is a field like any other
      Object.defineProperty(this, field, { value: envelope[field], enumerable: true, configurable: true, writable: true })
    }
  }

  get signal (): AbortSignal {
    return this.#request.signal
  }

  reply (data?: unknown, { type = this.type }: { type?: string } = {}): void {
    this.#request.reply(data, type)
  }
}
