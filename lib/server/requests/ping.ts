/** Built-in handler of `ping`. See PROTOCOL.md, "ping" and "Hello". */
import type { RohrpostMessage } from '../types.ts'

interface PingMessage extends RohrpostMessage {
  reply (data?: unknown, options?: { type?: string, extensions?: object }): void
}

/** Connection of a client that sends `ping`. */
export interface PingConnection {
  /** From now on, announces each large message to the client before it is sent. */
  announceLargeMessages (): void
}

/**
 * Creates the handler, which replies with `pong`. The reply to a `hello` also contains the limits of the server, and
 * large messages are announced from then on.
 */
export function pingHandler (maxPayload: () => number): (message: PingMessage, connection: PingConnection) => void {
  return (message, connection) => {
    if (message.hello !== true) return message.reply(message.data, { type: 'pong' })
    connection.announceLargeMessages()
    message.reply(message.data, { type: 'pong', extensions: { limits: { max_payload: maxPayload() } } })
  }
}
