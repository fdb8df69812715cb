/** What the database broker needs, and says when it is missing. */
import assert from 'node:assert/strict'
import { after, suite, test } from 'node:test'
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import { databaseBroker, logEntities, type DatabaseBrokerOptions } from '../../../lib/brokers/database/index.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { makeDatabase, openBroker, skips, type DatabaseName } from './support.ts'

const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']

async function memory (entities: typeof logEntities = logEntities): Promise<MikroORM> {
  const orm = await MikroORM.init({
    driver: SqliteDriver, dbName: ':memory:', driverOptions: new NodeSqliteDialect(':memory:'), entities, discovery: { warnWhenNoEntities: false }
  })
  after(() => orm.close())
  return orm
}

test('refuses options that it does not know, or that are wrong', async () => {
  const orm = await memory()
  const refuses = (options: unknown, code: string, message: RegExp) => assert.throws(() => databaseBroker(options as DatabaseBrokerOptions), { code, message })

  refuses({ orm, prefix: 'x' }, 'RP_ERR_UNKNOWN_OPTION', /'prefix'/)
  refuses({}, 'RP_ERR_INVALID_OPTION', /'orm': expected a MikroORM instance, got undefined/)
  refuses({ orm, pollInterval: 0 }, 'RP_ERR_INVALID_OPTION', /'pollInterval'.*got 0/)
  refuses({ orm, history: { size: 0, ttl: 1 } }, 'RP_ERR_INVALID_OPTION', /'history.size'/)
  refuses({ orm: await memory([]) }, 'RP_ERR_INVALID_OPTION', /'orm': expected a MikroORM with 'entities: \[\.\.\., \.\.\.logEntities\]', got one without 'RohrpostLog'/)
})

test('refuses a database that it does not know', async () => {
  const orm = await memory()
  class OtherPlatform {
    supportsNativeEnums () { return false }
    supportsUnsigned () { return false }
    quoteIdentifier (name: string) { return name }
  }
  const other = { em: { getPlatform: () => new OtherPlatform() }, getMetadata: () => orm.getMetadata(), config: orm.config }

  assert.throws(() => databaseBroker({ orm: other as never }), { code: 'RP_ERR_INVALID_OPTION', message: /PostgreSQL, MariaDB, MySQL or SQLite, got OtherPlatform/ })
})

test('does nothing before it is open, and closes', async () => {
  const broker = databaseBroker({ orm: await memory() })

  await assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED' })
  await assert.rejects(async () => broker.subscribe('g'), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  broker.unsubscribe('g')
  assert.deepEqual(broker.health(), { ok: false, detail: 'the broker is not open' })
  await broker.close()
})

test('refuses a database in memory, which is of one connection', async () => {
  const orm = await memory()
  await orm.schema.create()

  await assert.rejects(async () => databaseBroker({ orm }).open(new Recorder()), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /in memory belongs to one connection/ })
})

for (const name of names) {
  suite(`opening on ${name}`, { skip: skips[name] }, () => {
    test('says which table is missing', async (t) => {
      const { orm } = await makeDatabase(name, (run) => t.after(run), { hasTables: false })
      const broker = databaseBroker({ orm })

      await assert.rejects(async () => broker.open(new Recorder()), {
        code: 'RP_ERR_TABLE_MISSING', message: /^The table (?:"public"\.)?["`]rohrpost_log["`] is missing: create it with MikroORM's schema generator or a migration$/
      })
      await broker.close()
    })

    test('needs no change of the schema that the schema generator made', async (t) => {
      const { orm } = await makeDatabase(name, (run) => t.after(run))

      assert.equal(await orm.schema.getUpdateSchemaSQL(), '')
    })
  })
}

suite('opening on PostgreSQL only', { skip: skips.PostgreSQL }, async () => {
  const database = await makeDatabase('PostgreSQL', after)
  const rejects = (message: RegExp) => assert.rejects(async () => databaseBroker({ orm: database.orm }).open(new Recorder()), { code: 'RP_ERR_BROKER_UNAVAILABLE', message })

  test('refuses a sequence that draws numbers in advance', async (t) => {
    t.after(() => database.run('alter sequence rohrpost_log_id_seq cache 1'))
    await database.run('alter sequence rohrpost_log_id_seq cache 10')

    await rejects(/the sequence of "public"\."rohrpost_log" must have 'increment by 1' and 'cache 1'/)
  })

  test('works in a schema, and for a role whose transactions are serializable', async (t) => {
    await database.run('create schema other')
    const orm = await database.connect({ schema: 'other' })
    await orm.schema.create()
    await database.run(`alter database "${orm.config.get('dbName')}" set default_transaction_isolation = 'serializable'`)

    const { broker, recorder } = await openBroker(t, { orm })
    await broker.subscribe('g')
    await broker.publish('g', '{}')
    await recorder.until('g', '{}')

    assert.deepEqual(await database.run('select count(*)::int as count from other.rohrpost_log'), [{ count: 1 }])
  })
})
