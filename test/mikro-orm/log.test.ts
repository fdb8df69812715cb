/** Transactions whose messages are rows of the broker's log: they are committed together, or not at all. */
import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import type { MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import rohrpost from '../../lib/index.ts'
import { databaseBroker, logEntities } from '../../lib/brokers/database/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { makeDatabase, skips, type After, type DatabaseName, type TestDatabase } from '../brokers/database/support.ts'

const TodoSchema = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.string(), title: p.string() } })
class Todo extends TodoSchema.class {}
TodoSchema.setClass(Todo)
const rule = notifyOnChange(Todo, { group: 'list-{list}', data: ['title'] })

const DATABASES: DatabaseName[] = ['PostgreSQL', 'MariaDB', 'SQLite']

interface Opened {
  database: TestDatabase
  orm: MikroORM
  /** Runs before the database is dropped. */
  after: After
}

/** Makes a database with the tables. */
async function open (t: TestContext, name: DatabaseName): Promise<Opened> {
  const ends: Parameters<After>[0][] = []
  const after: After = (end) => ends.unshift(end)
  t.after(async () => { for (const end of ends) await end() })
  const database = await makeDatabase(name, after, { hasTables: false })
  const orm = await database.connect({ entities: [TodoSchema, ...logEntities] })
  await orm.schema.create()
  return { database, orm, after }
}

/** Starts an app with the broker on the database. */
async function start ({ orm, after }: Pick<Opened, 'orm' | 'after'>, broker = databaseBroker({ orm })) {
  const app = Fastify()
  after(() => app.close())
  await app.register(rohrpost, { broker })
  await app.register(rohrpostMikroOrm, { orm, notify: [rule] })
  app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data)))
  await app.ready()
  return app
}

async function logged ({ run }: TestDatabase): Promise<string[]> {
  const rows = await run('select group_name, payload from rohrpost_log order by id')
  return rows.map(({ group_name: group, payload }) => {
    const { data: { type, object } = { type: 'message', object: JSON.parse(String(payload)) } } = JSON.parse(String(payload))
    return `${type} ${group} ${JSON.stringify(object)}`
  })
}

const add = (em: EntityManager, title: string, list = 'a') => em.create(Todo, { list, title })

for (const name of DATABASES) {
  test(`${name}: the messages of a transaction are committed with it, in order`, { skip: skips[name] }, async (t) => {
    const { database, orm, after } = await open(t, name)
    const app = await start({ orm, after })

    await orm.em.fork().transactional(async (em) => {
      add(em, 'one')
      await em.flush()
      await app.rohrpost.sendToGroup('chat', { hello: 'you' }, { em })
      add(em, 'two')
      await em.flush()
      assert.deepEqual(await logged(database), [])
    })

    assert.deepEqual(await logged(database), ['create list-a {"title":"one"}', 'message chat {"hello":"you"}', 'create list-a {"title":"two"}'])
  })
}
