/** A process that writes rows on PostgreSQL, and serves screens that show them. Started by the benchmark: `log-host.ts <options as JSON>`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { MikroORM } from '@mikro-orm/postgresql'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { makeSettings } from '../lib/brokers/database/broker-settings.ts'
import { DatabaseBroker } from '../lib/brokers/database/database-broker.ts'
import { logEntities } from '../lib/brokers/database/index.ts'
import { redisBroker } from '../lib/brokers/redis/index.ts'
import rohrpost from '../lib/index.ts'
import { announce, Book } from './lib/orm.ts'
import { serve } from './lib/remote.ts'

/** How a process is started. */
export interface LogHostOptions {
  broker: 'database' | 'redis' | 'none'
  /** The database. */
  clientUrl: string
  redisPort: number
  /** The first of the rows that this process writes. */
  firstRow: number
  /** Milliseconds between two deletions of old rows; as it is by default if it is not given. */
  cleanInterval?: number
}

const options: LogHostOptions = JSON.parse(process.argv[2] ?? '{}')
const { clientUrl, redisPort, firstRow, cleanInterval } = options
const history = { size: 1000, ttl: 60_000 }

const orm = await MikroORM.init({ clientUrl, ensureDatabase: false, entities: [Book, ...logEntities] })
const app = Fastify()
await app.register(rohrpost, { path: '/ws', broker: openBroker() })
if (options.broker !== 'none') await announce(app, orm)
app.rohrpost.handle('join', { data: Type.String() }, ({ data }, connection) => connection.join(data))
const address = await app.listen({ port: 0, host: '127.0.0.1' })

function openBroker () {
  if (options.broker !== 'database') return redisBroker({ client: new Redis(redisPort, '127.0.0.1'), history })
  const settings = makeSettings({ orm, history })
  return new DatabaseBroker({ ...settings, cleanInterval: cleanInterval ?? settings.cleanInterval })
}

/** Makes a function that changes one row and commits it. */
async function openRow (index: number): Promise<() => Promise<void>> {
  const em = orm.em.fork()
  const row = await em.findOneOrFail(Book, firstRow + index)
  return async () => {
    row.stock++
    await em.flush()
  }
}

const host = {
  port: () => Number(new URL(address).port),

  /** Has so many writers commit for so many milliseconds, one commit after the other. Gives the milliseconds that each commit took. */
  async write ({ writers, ms, pause = 0 }: { writers: number, ms: number, pause?: number }) {
    const commits = await Promise.all(Array.from({ length: writers }, (_, index) => openRow(index)))
    const times: number[] = []
    const start = performance.now()
    await Promise.all(commits.map(async (commit) => {
      while (performance.now() - start < ms) {
        const since = performance.now()
        await commit()
        times.push(performance.now() - since)
        if (pause > 0) await sleep(pause)
      }
    }))
    return { times, ms: performance.now() - start }
  },

  /** Commits one by one. Gives the time of each commit's answer, in nanoseconds of the monotonic clock. */
  async writeSingly ({ count, pause }: { count: number, pause: number }): Promise<number[]> {
    const commit = await openRow(0)
    const answered: number[] = []
    for (let done = 0; done < count; done++) {
      await commit()
      answered.push(Number(process.hrtime.bigint()))
      await sleep(pause)
    }
    return answered
  }
}

export type LogHost = typeof host

serve(host)
