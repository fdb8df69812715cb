/** What a handler gets as its first argument. */
import type { Envelope, MessageId } from '../../protocol/decode.ts'
import type { RohrpostMessage } from '../types.ts'

/** What a message needs to know of the request that it belongs to. */
export interface Answerable {
  /** Whether the answer is still owed. */
  readonly open: boolean
  readonly signal: AbortSignal
  reply (data: unknown, type: string, extensions?: object): void
}

/** What a client's fields of the same names do not replace. */
const OWN_FIELDS = new Set(['id', 'type', 'data', 'reply', 'signal'])

/** A parsed envelope with `reply` and `signal`. */
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
      if (field === '__proto__') {
        Object.defineProperty(this, field, { value: envelope[field], enumerable: true, configurable: true, writable: true })
      } else if (!OWN_FIELDS.has(field)) {
        (this as Record<string, unknown>)[field] = envelope[field]
      }
    }
  }

  /** Whether a message that a handler got needs no answer any more. */
  static isAnswered (message: object): boolean {
    return #request in message && !message.#request.open
  }

  get signal (): AbortSignal {
    return this.#request.signal
  }

  /** @param options `extensions` are further fields at the top level, for what is built in */
  reply (data?: unknown, { type = this.type, extensions }: { type?: string, extensions?: object } = {}): void {
    this.#request.reply(data, type, extensions)
  }
}
