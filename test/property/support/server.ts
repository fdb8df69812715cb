/** A server on a free port, and raw clients that are disconnected when the test ends. */
import type { TestContext } from 'node:test'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import rohrpost, { type RohrpostOptions } from '../../../lib/index.ts'
import { RawSocket, type RawOptions } from './raw-socket.ts'

export interface Server {
  app: FastifyInstance
  port: number
  /** Opens a client that writes raw bytes. */
  raw (options?: RawOptions): Promise<RawSocket>
  /** Opens a well-behaved client. */
  connect (): Promise<WebSocket>
}

/** Starts a server whose handlers are `echo`, `point` (data: {x: number}) and `join` (data: the group). */
export async function start (t: TestContext, options: RohrpostOptions = {}): Promise<Server> {
  const app = Fastify()
  const clients: { end (): void }[] = []
  t.after(() => {
    for (const client of clients) client.end()
    return app.close()
  })
  await app.register(rohrpost, options)
  app.rohrpost
    .handle('echo', ({ data }) => data)
    .handle('point', { data: Type.Object({ x: Type.Number() }) }, ({ data }) => data.x)
    .handle('join', async ({ data }, connection) => { await connection.join(String(data)) })

  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  return {
    app,
    port,
    async raw (options) {
      const client = await RawSocket.open(port, options)
      clients.push({ end: () => client.destroy() })
      return client
    },
    async connect () {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/rohrpost`)
      clients.push({ end: () => socket.terminate() })
      await once(socket, 'open')
      return socket
    }
  }
}

/** Sends a request to a server and reads the next message. */
export async function ask (socket: WebSocket, message: object): Promise<unknown> {
  const answered = once(socket, 'message')
  socket.send(JSON.stringify(message))
  const [data] = await answered
  return JSON.parse(String(data))
}
