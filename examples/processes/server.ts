/** One server process, started by start.ts: a page with a board that all processes share through the database. */
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import staticFiles from '@fastify/static'
import { Type } from '@sinclair/typebox'
import { build } from 'esbuild'
import Fastify from 'fastify'
import rohrpost from 'fastify-rohrpost'
import { databaseBroker } from 'fastify-rohrpost/brokers/database'
import { redisBroker } from 'fastify-rohrpost/brokers/redis'
import { notifyOnCreate, rohrpostMikroOrm } from 'fastify-rohrpost/mikro-orm'
import { Redis } from 'ioredis'
import { openDatabase } from './database.ts'
import { Post } from './post.ts'

const { REDIS_URL, DATABASE = '', PORT } = process.env
const history = { size: 1000, ttl: 60_000 }

const app = Fastify({ logger: { level: 'warn' }, forceCloseConnections: true })
const orm = await openDatabase(DATABASE)
app.addHook('onClose', () => orm.close())

await app.register(rohrpost, { broker: REDIS_URL ? openRedis(REDIS_URL) : databaseBroker({ orm, history }) })
await app.register(rohrpostMikroOrm, {
  orm,
  notify: [notifyOnCreate(Post, { group: 'board', data: ['id', 'text', 'process'] })]
})
app.rohrpost.group('board', { id: false, authorize: () => true })

app.rohrpost.handle('posts', async () => {
  const newest = await orm.em.findAll(Post, { orderBy: { id: 'desc' }, limit: 100 })
  return newest.toReversed()
})

const Text = Type.Object({ text: Type.String({ minLength: 1, maxLength: 200 }) })
app.rohrpost.handle('say', { data: Text }, async ({ data }) => {
  orm.em.create(Post, { text: data.text, process: process.pid })
  await orm.em.flush()
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

await app.listen({ port: Number(PORT ?? 0) })
process.send?.((app.server.address() as AddressInfo).port)
process.once('SIGTERM', () => app.close().then(() => process.exit()))
process.once('disconnect', () => app.close().then(() => process.exit()))

function openRedis (url: string) {
  const client = new Redis(url)
  client.on('error', () => {}) // the broker logs it
  app.addHook('onClose', () => client.disconnect())
  return redisBroker({ client, prefix: 'board:', history })
}
