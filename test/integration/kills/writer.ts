/** A process that commits changes of hot rows until it is killed: `writer.ts NAME DATABASE`. */
import Fastify from 'fastify'
import { databaseBroker } from '../../../lib/brokers/database/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { change, open, rules } from './counters.ts'
import { counting, obey } from './mortal.ts'

const [, , name, dbName = ''] = process.argv
/** Transactions at a time. SQLite has one connection, and one writer. */
const TRANSACTIONS = name === 'SQLite' ? 1 : 3

const orm = await open(name as DatabaseName, dbName, { subscribers: [counting] })
const app = Fastify()
await app.register(rohrpost, { broker: databaseBroker({ orm }) })
await app.register(rohrpostMikroOrm, { orm, notify: rules })
await app.ready()

obey(() => Promise.all(Array.from({ length: TRANSACTIONS }, async () => {
  for (;;) await change(orm)
})))
