/** The subject. */
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import rohrpost from '../../lib/index.ts'
import { LISTEN, type RedisOptions, type StartServer } from './server.ts'

const Sentence = Type.Object({ text: Type.String(), n: Type.Integer(), flag: Type.Boolean() })

export const start: StartServer = async ({ orm, redis }) => {
  const app = Fastify()
  await app.register(rohrpost, { path: '/ws', ...(redis && { broker: await openBroker(redis) }) })
  if (orm !== undefined) {
    const { announce } = await import('../lib/orm.ts')
    await announce(app, orm)
  }

  app.rohrpost.handle('echo', { data: Sentence }, ({ data }) => data)
  app.rohrpost.handle('join', { data: Type.Object({ groups: Type.Array(Type.String()) }) }, async ({ data }, connection) => {
    await Promise.all(data.groups.map((group) => connection.join(group)))
  })

  const address = await app.listen(LISTEN)
  return {
    port: Number(new URL(address).port),
    publish: (group, event) => { app.rohrpost.sendToGroup(group, event) }
  }
}

async function openBroker ({ port, history }: RedisOptions) {
  const [{ Redis }, { redisBroker }] = await Promise.all([import('ioredis'), import('../../lib/brokers/redis/index.ts')])
  return redisBroker({ client: new Redis(port, '127.0.0.1'), ...(history && { history: { size: 1000, ttl: 60_000 } }) })
}
