/** socket.io with its rooms; clients use its WebSocket transport only. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Server, type Socket } from 'socket.io'
import { LISTEN, type StartServer } from './server.ts'

type Acknowledge = (data?: unknown) => void

export const start: StartServer = async ({ inContext, redis }) => {
  const http = createServer()
  const io = new Server(http, { transports: ['websocket'], serveClient: false })
  if (redis !== undefined) io.adapter(await openAdapter(redis.port))
  io.on('connection', (socket: Socket) => {
    if (inContext !== undefined) socket.use((_packet, next) => inContext(next))
    socket.on('ping', (data: unknown, acknowledge: Acknowledge) => acknowledge(data))
    socket.on('echo', (data: unknown, acknowledge: Acknowledge) => acknowledge(data))
    socket.on('join', (data: { groups: string[] }, acknowledge: Acknowledge) => {
      socket.join(data.groups)
      acknowledge()
    })
  })

  http.listen(LISTEN)
  await once(http, 'listening')
  return {
    port: (http.address() as AddressInfo).port,
    publish: (group, event) => { io.to(group).emit('change', event) }
  }
}

async function openAdapter (port: number) {
  const [{ Redis }, { createAdapter }] = await Promise.all([import('ioredis'), import('@socket.io/redis-adapter')])
  const client = new Redis(port, '127.0.0.1')
  return createAdapter(client, client.duplicate())
}
