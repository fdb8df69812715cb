/** A process that commits changes of its own row until it is killed: `writer.ts NAME DATABASE REDIS_PORT outbox|none`. */
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { Counter, open, rules } from '../kills/counters.ts'
import { counting, obey } from '../kills/mortal.ts'

const [, , name, dbName = '', port, outbox] = process.argv

const orm = await open(name as DatabaseName, dbName, { subscribers: [counting] })
const app = Fastify()
await app.register(rohrpost, { broker: redisBroker({ client: new Redis({ host: '127.0.0.1', port: Number(port) }) }) })
await app.register(rohrpostMikroOrm, { orm, notify: rules, outbox: outbox === 'outbox' })
await app.ready()

obey(async ({ number }) => {
  for (;;) {
    await orm.em.fork().transactional(async (em) => {
      const counter = await em.findOneOrFail(Counter, number)
      counter.value++
    })
  }
})
