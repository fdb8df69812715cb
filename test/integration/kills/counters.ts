/** Hot rows: counters that transactions of several processes increment. */
import { defineEntity, LockMode, p } from '@mikro-orm/core'
import { MikroORM, NodeSqliteDialect, SqliteDriver, type Options } from '@mikro-orm/sql'
import { logEntities } from '../../../lib/brokers/database/index.ts'
import { notifyOnUpdate } from '../../../lib/mikro-orm/index.ts'
import { servers, type DatabaseName } from '../../brokers/database/support.ts'

export const Counter = defineEntity({
  name: 'Counter',
  properties: { id: p.integer().primary().autoincrement(false), value: p.integer() }
})

export const ROWS = 6
export const GROUP = 'counters'
export const rules = [notifyOnUpdate(Counter, { group: GROUP, data: ['id', 'value'] })]

/** Connects to the database as one process of an application does. */
export async function open (name: DatabaseName, dbName: string, options: Options = {}): Promise<MikroORM> {
  const server = name === 'SQLite'
    ? { driver: SqliteDriver, driverOptions: new NodeSqliteDialect(dbName) }
    : { driver: servers[name].driver, clientUrl: servers[name].url }
  const entities = [Counter, ...logEntities]
  // a query that creates a missing database would come before the busy timeout
  const orm = await MikroORM.init({ ...server, dbName, entities, ensureDatabase: false, ...options } as Options)
  if (name === 'SQLite') await orm.em.getConnection().execute('pragma busy_timeout = 1000')
  return orm
}

/** Increments two counters in one transaction, which is sometimes rolled back. */
export async function change (orm: MikroORM): Promise<void> {
  const [first, second] = twoOf(ROWS)
  const isRolledBack = Math.random() < 0.2
  await orm.em.fork().transactional(async (em) => {
    // in the order of ids, so that transactions do not wait for each other
    for (const id of [first, second]) {
      const counter = await em.findOneOrFail(Counter, id, { lockMode: LockMode.PESSIMISTIC_WRITE })
      counter.value++
    }
    if (isRolledBack) throw new Error('rolled back')
  }).catch(() => {})
}

function twoOf (count: number): [number, number] {
  const first = 1 + Math.floor(Math.random() * (count - 1))
  return [first, first + 1 + Math.floor(Math.random() * (count - first))]
}
