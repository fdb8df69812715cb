/** A WebSocket whose server is the test. */
import type { WebSocketLike } from '../../../lib/client/index.ts'

type Events = { open: unknown, error: object, message: { data: unknown }, close: { code: number, reason: string } }

/** A new WebSocket class, with its instances. */
export function fakeSockets () {
  const sockets: FakeSocket[] = []
  class Made extends FakeSocket {
    constructor (url: string) {
      super(url)
      sockets.push(this)
    }
  }
  return {
    WebSocket: Made,
    sockets,
    /** The latest socket. */
    get last (): FakeSocket {
      const socket = sockets.at(-1)
      if (socket === undefined) throw new Error('nobody has dialled')
      return socket
    }
  }
}

export class FakeSocket implements WebSocketLike {
  readonly url: string
  readonly sent: Record<string, unknown>[] = []
  readonly closes: (number | undefined)[] = []
  readonly #listeners: { [Name in keyof Events]?: ((event: never) => void)[] } = {}

  constructor (url: string) {
    this.url = url
  }

  addEventListener (type: keyof Events, listener: (event: never) => void): void {
    (this.#listeners[type] ??= []).push(listener)
  }

  send (data: string): void {
    this.sent.push(JSON.parse(data))
  }

  close (code?: number): void {
    this.closes.push(code)
  }

  /** The sent messages except pings. */
  get requests (): Record<string, unknown>[] {
    return this.sent.filter(({ type }) => type !== 'ping')
  }

  open (): void {
    this.#emit('open', {})
  }

  /** Receives a message from the server; an object becomes JSON. */
  receive (message: unknown): void {
    this.#emit('message', { data: typeof message === 'string' ? message : JSON.stringify(message) })
  }

  /** Answers the last request. */
  answer (fields: Record<string, unknown> = {}): void {
    const { id, type } = this.requests.at(-1) ?? {}
    this.receive({ id, type, ...fields })
  }

  end (code = 1006, reason = '', error: object = {}): void {
    this.#emit('error', error)
    this.#emit('close', { code, reason })
  }

  #emit<Name extends keyof Events> (type: Name, event: Events[Name]): void {
    for (const listener of this.#listeners[type] ?? []) listener(event as never)
  }
}

/** Resolves after the callbacks of all settled promises have run. */
export function settled (): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
