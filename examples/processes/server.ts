/** One server process, started by start.ts: a page with a board that all processes share through Redis. */
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import staticFiles from '@fastify/static'
import { Type } from '@sinclair/typebox'
import { build } from 'esbuild'
import Fastify from 'fastify'
import rohrpost from 'fastify-rohrpost'
import { redisBroker } from 'fastify-rohrpost/brokers/redis'
import { Redis } from 'ioredis'

const redis = new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379')
redis.on('error', () => {}) // the broker logs it
const app = Fastify({ logger: { level: 'warn' }, forceCloseConnections: true })
app.addHook('onClose', () => redis.disconnect())

await app.register(rohrpost, {
  broker: redisBroker({ client: redis, prefix: 'board:', history: { size: 1000, ttl: 60_000 } })
})
app.rohrpost.group('board', { id: false, authorize: () => true })

const Post = Type.Object({ text: Type.String({ minLength: 1, maxLength: 200 }) })
app.rohrpost.handle('say', { data: Post }, async ({ data }) => {
  const object = { text: data.text, process: process.pid }
  await app.rohrpost.sendToGroup('board', {
    type: 'subscription-update',
    data: { group: 'board', type: 'create', object }
  })
})

app.rohrpost.handle('who', () => process.pid)
app.get('/health', (_request, reply) => {
  const health = app.rohrpost.health()
  return reply.code(health.ok ? 200 : 503).send(health)
})

const { outputFiles: [client] } = await build({
  entryPoints: [fileURLToPath(import.meta.resolve('fastify-rohrpost/client'))],
  bundle: true,
  format: 'esm',
  write: false
})
app.get('/rohrpost.js', (_request, reply) => reply.type('text/javascript').send(client?.text))
await app.register(staticFiles, { root: join(import.meta.dirname, 'public') })

await app.listen({ port: Number(process.env.PORT ?? 0) })
process.send?.((app.server.address() as AddressInfo).port)
process.once('SIGTERM', () => app.close().then(() => process.exit()))
process.once('disconnect', () => app.close().then(() => process.exit()))
