/** A process that changes hot rows: `hot-rows-host.ts POSTGRESQL_URL DATABASE REDIS_PORT stamps|none|log`. */
import { defineEntity, LockMode, p } from '@mikro-orm/core'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { serve } from '../../../bench/lib/remote.ts'
import { databaseBroker, logEntities } from '../../../lib/brokers/database/index.ts'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import rohrpost from '../../../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'

const [, , clientUrl = '', dbName = '', port = '', stamps] = process.argv

const Counter = defineEntity({ name: 'Counter', properties: { id: p.integer().primary(), value: p.integer() } })
/** Transactions at a time. */
const WRITERS = 4
/** The event loop is blocked for so many milliseconds after every so many changes. */
const BLOCKED = 4
const CALM = 7

/** One of so many transactions is rolled back. */
const ROLLBACKS = 10

const orm = await MikroORM.init({
  driver: PostgreSqlDriver, clientUrl, dbName, entities: [Counter, ...logEntities], pool: { max: WRITERS }
})
const redis = stamps === 'log' ? undefined : new Redis({ host: '127.0.0.1', port: Number(port) })
const broker = redis === undefined ? databaseBroker({ orm }) : redisBroker({ client: redis })
if (stamps === 'none') {
  const publish = broker.publish.bind(broker)
  broker.publish = (group, payload) => publish(group, payload)
}
const app = Fastify()
await app.register(rohrpost, { broker })
await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Counter, { group: 'counters', data: ['id', 'value'] })] })
await app.ready()

let changed = 0

class Rollback extends Error {}

/** Increments a row, and the same in a transaction that is rolled back now and then. */
async function change (id: number): Promise<void> {
  const increment = (fails: boolean) => orm.em.fork().transactional(async (em) => {
    const counter = await em.findOneOrFail(Counter, id, { lockMode: LockMode.PESSIMISTIC_WRITE })
    counter.value++
    await em.flush()
    await app.rohrpost.sendToGroup('values', { id, value: counter.value }, { em })
    if (fails) throw new Rollback()
  })
  if (changed % ROLLBACKS === 0) {
    await increment(true).catch((error: unknown) => { if (!(error instanceof Rollback)) throw error })
  }
  await increment(false)
  if (++changed % CALM !== 0) return
  for (const end = performance.now() + BLOCKED; performance.now() < end;);
}

const host = {
  /** Changes rows. */
  async run ({ changes, rows }: { changes: number, rows: number }): Promise<void> {
    let left = changes
    await Promise.all(Array.from({ length: WRITERS }, async () => {
      while (left-- > 0) await change(1 + Math.floor(Math.random() * rows))
    }))
    await app.close()
    await orm.close()
    redis?.disconnect()
  }
}

export type HotRowsHost = typeof host

serve(host)
