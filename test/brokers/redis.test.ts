/** The Redis broker passes the suite, with history and without. What only it does is in redis/. */
import { after, suite, test } from 'node:test'
import { redisBroker } from '../../lib/brokers/redis.ts'
import type { HistoryOptions } from '../../lib/index.ts'
import { brokerSuite } from '../../lib/testing/index.ts'
import { privateRedis, redisServer } from '../support/redis.ts'

const TTL = 60_000

for (const history of [undefined, { size: 100, ttl: TTL }] as (HistoryOptions | undefined)[]) {
  suite(`the Redis broker ${history ? 'with' : 'without'} history`, { skip: redisServer.skip }, async () => {
    if (redisServer.skip !== false) return
    const redis = await privateRedis({ after })
    const client = redis.client()

    brokerSuite({
      test,
      open: async (receiver) => {
        const broker = redisBroker({ client, ...(history && { history }) })
        await broker.open(receiver)
        return broker
      },
      capabilities: { processes: true, ...(history && { history: { size: history.size } }) },
      fault: {
        disconnect: async () => { await redis.cut() },
        away: async () => {
          redis.signal('SIGSTOP')
          return () => redis.signal('SIGCONT')
        },
        forget: async () => { await client.flushall() },
        expire: async () => {
          for (const key of await client.keys('rohrpost:log:*')) {
            const entries = await client.xrange(key, '-', '+')
            await client.del(key)
            for (const [id, fields] of entries) await client.xadd(key, id.replace(/-(.*)/, (_, written) => `-${written - TTL}`), ...fields)
          }
        }
      }
    })
  })
}
