/** Registration of `@fastify/websocket`, which performs the WebSocket handshake. */
import websocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'

/** Maximum fragments of one message: the default of `ws`. */
const MAX_FRAGMENTS = 16_384
/**
 * Average bytes of a fragment. Messages of more than 16,384 fragments of this size may have proportionally more
 * fragments.
 */
const FRAGMENT_SIZE = 64

/** Registers `@fastify/websocket`, unless the app has done so. */
export async function registerWebsocket (
  app: FastifyInstance,
  { maxPayload, websocket: options }: { maxPayload: number, websocket: WebsocketPluginOptions }
): Promise<void> {
  if (app.hasDecorator('websocketServer')) return
  const maxFragments = Math.max(MAX_FRAGMENTS, Math.ceil(maxPayload / FRAGMENT_SIZE))
  await app.register(websocket, { ...options, options: { maxPayload, maxFragments, ...options.options } })
}

/**
 * Returns the maximum message size: an app that registered `@fastify/websocket` itself may allow less than
 * `maxPayload`.
 */
export function effectiveMaxPayload ({ websocketServer }: FastifyInstance, maxPayload: number): number {
  return Math.min(maxPayload, websocketServer.options.maxPayload || Infinity)
}
