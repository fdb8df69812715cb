/** One of several Fastify processes behind one Redis. Publishes what its parent asks for, and tells what came of it. */
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import rohrpost from '../../../lib/index.ts'
import type { Ask, Told } from './cluster.ts'

const { port, redis, history, publisher, groups } = JSON.parse(process.argv[2] ?? '') as {
  port: number
  redis: number
  history: { size: number, ttl: number } | undefined
  publisher: number
  groups: number
}

let last = 0
const nothing = (): Told => ({ published: [], failed: [], isUnwell: false, lines: 0 })
let told = nothing()

const stream = {
  write (line: string) {
    const { level, msg } = JSON.parse(line) as { level: number, msg: string }
    // what the broker itself says, not that of each message that was not sent
    if (level >= 50 && msg === 'the broker failed') told.lines++
    if (process.env.FAULTS_LOG !== undefined) process.stderr.write(line)
  }
}
const app = Fastify({ logger: { level: process.env.FAULTS_LOG ?? 'error', stream } })
const client = new Redis({ host: '127.0.0.1', port: redis, lazyConnect: true, retryStrategy: () => 50 })
client.on('error', () => {})
await app.register(rohrpost, { broker: redisBroker({ client, ...(history && { history }) }), drainTimeout: 1000 })
app.rohrpost.group('todo', { authorize: () => true })

function tell (): void {
  process.send?.(told)
  told = nothing()
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
  const { ok, broker } = app.rohrpost.health()
  told.isUnwell ||= !ok || broker.detail !== undefined
  if (told.published.length > 0 || told.failed.length > 0 || told.isUnwell || told.lines > 0) tell()
}, 20)
// without its parent nobody needs it
process.on('disconnect', () => process.exit())

await app.listen({ port, host: '127.0.0.1' })
tell()
