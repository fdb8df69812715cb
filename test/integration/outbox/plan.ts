/**
 * Kills processes that commit and publish through Redis, while a client of another process follows. Each process has a
 * row of its own, whose last committed state the client must receive.
 */
import { fileURLToPath } from 'node:url'
import type { MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import { RohrpostClient } from '../../../lib/client/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import type { After, DatabaseName } from '../../brokers/database/support.ts'
import { privateRedis, type PrivateRedis } from '../../support/redis.ts'
import { Counter, GROUP, rules } from '../kills/counters.ts'
import { kill, makeCounters, readUntil, withEndings, type CounterRow, type KillOptions } from '../kills/killer.ts'
import type { Instructions } from '../kills/mortal.ts'

/** Options of a plan. */
export interface OutboxKillOptions extends KillOptions {
  /** Whether the processes have an outbox. */
  hasOutbox?: boolean
}

/** What the client has received, compared with the table. */
export interface KillReport {
  kills: number
  /** Changes that were committed. */
  commits: number
  /** Rows whose last committed state has not reached the client. */
  lost: number
  /** Changes after which the client was told to load again. */
  resyncs: number
}

const WRITER = fileURLToPath(new URL('writer.ts', import.meta.url))
/** Milliseconds in which the client must have received all changes: rows stay in the outbox for up to 11 s. */
const END = 20_000

/** SQLite has no server: the answer to a COMMIT is there when the call returns. */
const INSTANTS: Record<DatabaseName, ReadonlyArray<Instructions['instant']>> = {
  PostgreSQL: ['committed', 'killed', 'sent', 'confirmed'],
  MariaDB: ['committed', 'killed', 'sent', 'confirmed'],
  SQLite: ['committed', 'killed']
}

export function run ({ database: name, kills, hasOutbox = true, say }: OutboxKillOptions): Promise<KillReport> {
  return withEndings(async (after) => {
    const { orm, dbName } = await makeCounters(name, kills, after)
    const redis = await privateRedis({ after })
    const follower = await follow(orm, redis, hasOutbox, after)
    const args = [name, dbName, String(redis.port), hasOutbox ? 'outbox' : 'none']
    // without an outbox nothing is deleted
    const instants = INSTANTS[name].filter((instant) => hasOutbox || instant !== 'confirmed')
    await kill({ writer: WRITER, args, instants, kills, after, say })
    return { kills, ...await follower.compare() }
  })
}

/** A process of the application with a client, which receives the changes of all writers. */
async function follow (orm: MikroORM, redis: PrivateRedis, outbox: boolean, after: After) {
  const app = Fastify()
  await app.register(rohrpost, { broker: redisBroker({ client: redis.client() }) })
  await app.register(rohrpostMikroOrm, { orm, notify: rules, outbox })
  app.rohrpost.group(GROUP, { id: false, authorize: () => true })
  after(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const client = new RohrpostClient(`${url.replace('http', 'ws')}/ws/rohrpost`, { WebSocket })
  after(() => client.close())

  /** The states that a screen shows. A client that has to load again reads the table. */
  const shown = new Map<number, number>()
  let resyncs = 0
  let wake = () => {}
  client.on('resync', async () => {
    resyncs++
    for (const { id, value } of await orm.em.fork().find(Counter, {})) shown.set(id, value)
    wake()
  })
  client.on(GROUP, (error, change) => {
    if (error) throw error
    const { id, value } = change.object as { id: number, value: number }
    shown.set(id, value)
    wake()
  })
  await client.subscribe({ type: GROUP })

  const lostOf = (counters: readonly CounterRow[]) => {
    return counters.filter(({ id, value }) => (shown.get(id) ?? 0) !== value).length
  }
  return {
    /** Waits until the client shows the values in the table, for some seconds at most. */
    async compare (): Promise<Omit<KillReport, 'kills'>> {
      const counters = await readUntil(orm, (counters) => lostOf(counters) === 0, (run) => { wake = run }, END)
      const commits = counters.reduce((sum, { value }) => sum + value, 0)
      return { commits, lost: lostOf(counters), resyncs }
    }
  }
}
