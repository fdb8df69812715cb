/** The built-in `ping`. See PROTOCOL.md, "ping" and "Hello". */
import type { RohrpostMessage } from '../types.ts'

interface PingMessage extends RohrpostMessage {
  reply (data?: unknown, options?: { type?: string, extensions?: object }): void
}

/** A connection as `ping` needs it. */
export interface Pinging {
  /** Tells the client of each large message before it comes. */
  announce (): void
}

/** Answers with a `pong`; a client that says `hello` is told the limits and, from now on, of large messages before they come. */
export function answerPing (message: PingMessage, connection: Pinging, maxPayload: () => number): void {
  if (message.hello !== true) return message.reply(message.data, { type: 'pong' })
  connection.announce()
  message.reply(message.data, { type: 'pong', extensions: { limits: { max_payload: maxPayload() } } })
}
