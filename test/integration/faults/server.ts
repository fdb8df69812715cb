/** One of several Fastify processes behind one Redis. Publishes what its parent asks for, and tells what came of it. */
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { redisBroker } from '../../../lib/brokers/redis.ts'
import rohrpost from '../../../lib/index.ts'
import type { Ask, Told } from './cluster.ts'

const { port, redis, history, publisher, groups } = JSON.parse(process.argv[2] ?? '') as {
  port: number
  redis: number
  history: { size: number, ttl: number } | undefined
  publisher: number
  groups: number
}

const app = Fastify({ logger: { level: process.env.FAULTS_LOG ?? 'silent' } })
const client = new Redis({ host: '127.0.0.1', port: redis, lazyConnect: true, retryStrategy: () => 50 })
client.on('error', () => {})
await app.register(rohrpost, { broker: redisBroker({ client, ...(history && { history }) }), drain: 1000 })
app.rohrpost.group('todo', { authorize: () => true })

let last = 0
let told: Told = { published: [], failed: [] }

function tell (): void {
  process.send?.(told)
  told = { published: [], failed: [] }
}

async function publish (group: string, n: number): Promise<void> {
  try {
    await app.rohrpost.sendToGroup(group, { id: n, type: 'subscription-update', data: { group, type: 'update', object: { publisher, n } } })
    told.published.push(n)
  } catch {
    told.failed.push(n)
  }
}

process.on('message', ({ count }: Ask) => {
  for (let n = 0; n < count; n++) {
    last++
    publish(`todo-${last % groups}`, last)
  }
})
setInterval(() => {
  if (told.published.length > 0 || told.failed.length > 0) tell()
}, 20)
// without its parent nobody needs it
process.on('disconnect', () => process.exit())

await app.listen({ port, host: '127.0.0.1' })
tell()
