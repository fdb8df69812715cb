/** `@fastify/websocket`, by hand. */
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import { answer, Groups } from './groups.ts'
import { LISTEN, type StartServer } from './server.ts'

export const start: StartServer = async ({ inContext }) => {
  const groups = new Groups()
  const app = Fastify()
  await app.register(websocket)
  app.get('/ws', { websocket: true }, (socket) => answer(socket, groups, inContext))

  const address = await app.listen(LISTEN)
  return {
    port: Number(new URL(address).port),
    publish: (group, event) => groups.publish(group, event)
  }
}
