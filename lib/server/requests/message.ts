/** Message of a request: the first argument of its handler. */
import type { Envelope, MessageId } from '../../protocol/decode.ts'
import type { RohrpostMessage } from '../types.ts'

/** The request of a message. An interface, because the module of requests imports this one. */
export interface MessageRequest {
  /** Whether the request has no reply yet. */
  readonly isOpen: boolean
  readonly signal: AbortSignal
  reply (data: unknown, type: string, extensions?: object): void
}

/** Properties of a message that a field of the client's envelope does not replace. */
const RESERVED_FIELDS = new Set(['id', 'type', 'data', 'reply', 'signal'])

/** Decoded envelope with `reply` and `signal`. */
export class Message implements RohrpostMessage {
  readonly id: MessageId
  readonly type: string
  readonly data: unknown
  readonly [field: string]: unknown
  readonly #request: MessageRequest

  constructor (envelope: Envelope, request: MessageRequest) {
    this.id = envelope.id
    this.type = envelope.type
    this.data = envelope.data
    this.#request = request

    for (const field in envelope) {
      if (field === '__proto__') {
        const value = envelope[field]
        Object.defineProperty(this, field, { value, enumerable: true, configurable: true, writable: true })
      } else if (!RESERVED_FIELDS.has(field)) {
        (this as Record<string, unknown>)[field] = envelope[field]
      }
    }
  }

  /** Whether the request of a message has its reply. `false` for an object that is not a message. */
  static isAnswered (message: object): boolean {
    return #request in message && !message.#request.isOpen
  }

  get signal (): AbortSignal {
    return this.#request.signal
  }

  /** @param options `extensions` adds fields at the top level of the reply; built-in handlers use it */
  reply (data?: unknown, { type = this.type, extensions }: { type?: string, extensions?: object } = {}): void {
    this.#request.reply(data, type, extensions)
  }
}
