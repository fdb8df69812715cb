/** `ws` on `node:http`, by hand. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocketServer } from 'ws'
import { answer, Groups } from './groups.ts'
import { LISTEN, type StartServer } from './server.ts'

export const start: StartServer = async ({ inContext }) => {
  const groups = new Groups()
  const http = createServer()
  const server = new WebSocketServer({ server: http })
  server.on('connection', (socket) => answer(socket, groups, inContext))

  http.listen(LISTEN)
  await once(http, 'listening')
  return {
    port: (http.address() as AddressInfo).port,
    publish: (group, event) => groups.publish(group, event)
  }
}
