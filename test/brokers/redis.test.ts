/**
 * The conformance suite for the Redis broker, with and without history, with ioredis 5 and 6. The user of Redis has
 * only the permissions that docs/brokers.md lists. Tests of this broker alone are in redis/.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, suite, test } from 'node:test'
import { Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis-5'
import { redisBroker, type RedisClient } from '../../lib/brokers/redis/index.ts'
import type { HistoryOptions } from '../../lib/index.ts'
import { brokerSuite } from '../../lib/testing/index.ts'
import { privateRedis, redisServer } from '../support/redis.ts'

const TTL = 60_000

/** Reads the commands from the documentation: those of every broker, and those of history. */
function documented (): { always: string[], history: string[] } {
  const text = readFileSync(new URL('../../docs/brokers.md', import.meta.url), 'utf8')
  const item = text.slice(text.indexOf('## What Redis needs to be')).split(/^- /m).find((item) => item.includes('`EVALSHA`')) ?? ''
  const [always = '', history = ''] = item.split('With history also')
  const commandsOf = (part: string) => [...part.matchAll(/`([A-Z]+(?: [A-Z]+)?)`/g)].map(([, name = '']) => name.toLowerCase().replace(' ', '|'))
  return { always: commandsOf(always), history: commandsOf(history) }
}

const CLIENTS: Record<string, (options: object) => RedisClient> = {
  'ioredis 6': (options) => new Redis(options),
  'ioredis 5': (options) => new Redis5(options)
}

for (const [name, connect] of Object.entries(CLIENTS)) {
  for (const history of [undefined, { size: 100, ttl: TTL }] as (HistoryOptions | undefined)[]) {
    suite(`the Redis broker ${history ? 'with' : 'without'} history, with ${name}`, { skip: redisServer.skip }, async () => {
      if (redisServer.skip !== false) return
      const redis = await privateRedis({ after })
      const admin = redis.client()
      const lists = documented()
      const commands = [...lists.always, ...(history ? lists.history : [])]
      await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~rohrpost:*', 'resetchannels', '&rohrpost:*', '-@all', ...commands.map((command) => `+${command}`))
      const client = connect({ host: '127.0.0.1', port: redis.port, username: 'app', password: 'secret', lazyConnect: true, retryStrategy: () => 10 })

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
          forget: async () => { await admin.flushall() },
          expire: async () => {
            for (const key of await admin.keys('rohrpost:log:*')) {
              const entries = await admin.xrange(key, '-', '+')
              await admin.del(key)
              for (const [id, fields] of entries) await admin.xadd(key, id.replace(/-(.*)/, (_, written) => `-${written - TTL}`), ...fields)
            }
          }
        }
      })

      test('runs the documented commands, and no others', async () => {
        const broker = redisBroker({ client, queue: { timeout: 400 }, ...(history && { history }) })
        await broker.open({ deliver () {}, lost () {}, error () {} })
        // pings keep an idle connection under observation
        while (!(await admin.info('commandstats')).includes('cmdstat_ping')) await new Promise((resolve) => setTimeout(resolve, 20))
        await broker.close()

        const used = [...(await admin.info('commandstats')).matchAll(/cmdstat_([^:]+):/g)].map(([, command = '']) => command)
        assert.deepEqual(commands.filter((command) => !used.includes(command)), [])
        assert.deepEqual(await admin.call('ACL', 'LOG'), [])
      })
    })
  }
}
