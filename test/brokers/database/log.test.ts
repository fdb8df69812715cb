/** What becomes of the log: it is cleaned, rewound, and its connections are lost. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, suite, test } from 'node:test'
import { LogCleaner } from '../../../lib/brokers/database/log-cleaner.ts'
import { LogSession } from '../../../lib/brokers/database/log-session.ts'
import { LogStatements } from '../../../lib/brokers/database/log-statements.ts'
import { Outage } from '../../../lib/util/outage.ts'
import { poll } from '../../support/broker.ts'
import { intercepted } from './intercept.ts'
import { lockSqlite, makeDatabase, openBroker, openClient, settingsOf, skips, type DatabaseName } from './support.ts'

const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']
const DAY = 24 * 60 * 60 * 1000

for (const name of names) {
  suite(`the log on ${name}`, { skip: skips[name] }, async () => {
    const database = await makeDatabase(name, after)

    test('old rows are deleted, but for the newest one of each group, which goes a day later', async (t) => {
      const [one, two] = [randomUUID(), randomUUID()]
      const { broker, recorder } = await openBroker(t, database)
      const { dialect, tables } = settingsOf(database.orm)
      const top = await broker.subscribe(one)
      await broker.subscribe(two)
      const failures: Error[] = []
      const ready = Promise.withResolvers<void>()
      const session = new LogSession({ dialect, role: 'writer', patience: 5000, onReady: () => ready.resolve(), onFailure: (error) => failures.push(error) })
      t.after(() => session.close())
      session.open()
      await ready.promise
      const cleaner = new LogCleaner({
        dialect,
        session,
        statements: new LogStatements(dialect, tables),
        id: 'test',
        keep: 60_000,
        keepNewest: DAY,
        interval: 2,
        cleaning: new Outage({ began: (error) => failures.push(error), ended () {} })
      })
      const clean = async (age: number) => {
        await database.run("update rohrpost_log_state set value = '0' where name = 'cleaner'")
        await database.run('update rohrpost_log set created_at = created_at - ?', [age])
        await cleaner.clean()
      }
      const left = async () => (await database.run('select payload from rohrpost_log where group_name in (?, ?) order by id', [one, two])).map(({ payload }) => payload)
      const after = async (group: string, index: number) => (await broker.history(group, recorder.positions(group)[index] ?? assert.fail(), 100))?.map(({ payload }) => payload)

      for (const n of [1, 2]) await broker.publish(one, `{"n":${n}}`)
      await broker.publish(two, '{"n":1}')
      await recorder.until(two, '{"n":1}')
      await clean(0)
      assert.deepEqual(await left(), ['{"n":1}', '{"n":2}', '{"n":1}'])
      await clean(60_000)
      assert.deepEqual(await left(), ['{"n":2}', '{"n":1}'])
      assert.equal(await broker.history(one, top ?? assert.fail(), 100), undefined)
      assert.equal(await after(one, 0), undefined)
      assert.deepEqual(await after(one, 1), [])

      await broker.publish(one, '{"n":3}')
      await recorder.until(one, '{"n":3}')
      assert.deepEqual(await after(one, 1), ['{"n":3}'])
      await clean(60_000)
      await broker.publish(two, '{"n":2}')
      await recorder.until(two, '{"n":2}')
      await clean(60_000)
      assert.deepEqual(await left(), ['{"n":1}', '{"n":3}', '{"n":2}'], 'the newest row of all is none of the old ones')
      assert.deepEqual(await after(one, 2), [])
      assert.equal(await after(one, 1), undefined)

      await clean(DAY)
      assert.deepEqual(await left(), ['{"n":2}'])
      assert.deepEqual(await after(one, 2), [], 'no row after it is deleted')
      assert.equal(await after(one, 1), undefined)
      assert.equal(await after(two, 0), undefined)
      assert.deepEqual(await after(two, 1), [])
      assert.deepEqual(failures, [])
      assert.deepEqual(recorder.errors, [])
    })

    test('a log that was emptied begins a new epoch, and members are told', async (t) => {
      const group = randomUUID()
      const { broker, recorder } = await openBroker(t, database, { pollInterval: 20 })
      const top = await broker.subscribe(group)
      await broker.publish(group, '{"n":1}')
      await recorder.until(group, '{"n":1}')

      await database.orm.schema.clear({ truncate: true })
      // the reader has seen the last of the tables empty when it knows the position of another group
      await broker.subscribe(randomUUID())
      await recorder.when('word of the loss', () => recorder.of(group).some(({ kind }) => kind === 'lost'))
      await broker.publish(group, '{"n":2}')
      await recorder.until(group, '{"n":2}')

      // tables are emptied one after another, which can begin two epochs
      const lost = recorder.of(group).findLast(({ kind }) => kind === 'lost')
      assert.notEqual(lost?.position?.epoch, top?.epoch)
      assert.equal(recorder.positions(group)[1]?.epoch, lost?.position?.epoch)
      assert.equal(await broker.history(group, top ?? assert.fail(), 100), undefined)
    })

    test('one message that the database refuses takes no other one with it', async (t) => {
      const [good, bad] = [randomUUID(), `${randomUUID()}${'x'.repeat(300)}`]
      const { broker, recorder } = await openBroker(t, database)
      await broker.subscribe(good)
      if (name === 'SQLite') await database.run(`create trigger refuse before insert on rohrpost_log when new.group_name = '${bad}' begin select raise(abort, 'too long'); end`)

      const refused = assert.rejects(async () => broker.publish(bad, '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /too long/i })
      await broker.publish(good, '{"n":1}')
      await refused
      await broker.publish(good, '{"n":2}')
      await recorder.until(good, '{"n":2}')

      assert.deepEqual(recorder.payloads(good), ['{"n":1}', '{"n":2}'])
      assert.equal(recorder.errors.length, 1)
      await recorder.when('word that it is over', () => recorder.notices.some(({ text }) => text === `${name} takes messages again`))
    })

    test('takes no more than its limits, and gives up what waits too long', async (t) => {
      const { broker } = await openBroker(t, database, { limits: { messages: 2, bytes: 100, timeout: 5000 } })

      const published = [broker.publish('g', '{}'), broker.publish('g', '{}')]
      await assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /2 messages of 4 bytes wait for/ })
      await Promise.all(published)
      await assert.rejects(async () => broker.publish('g', `{"a":"${'x'.repeat(100)}"}`), { code: 'RP_ERR_NOT_PUBLISHED' })
      const last = broker.publish('g', '{}')
      await broker.close()
      await last
      await assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /closed/ })
      await assert.rejects(async () => broker.subscribe('g'), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
    })
  })
}

suite('the log on SQLite only', async () => {
  const database = await makeDatabase('SQLite', after)
  const { orm } = database

  test('a message that waits for another writer for too long is not published', async (t) => {
    const { broker } = await openBroker(t, database, { limits: { messages: 10, bytes: 1000, timeout: 300 } })
    const unlock = lockSqlite(String(orm.config.get('dbName')))

    const published = assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /SQLite did not confirm it within 300 ms/ })
    await assert.rejects(async () => broker.subscribe('g'), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
    await poll(() => !broker.health().ok)
    await published
    unlock()

    await poll(() => broker.health().ok)
    await broker.subscribe('g')
  })

  test('the transaction of the application on the same thread is never waited for in a blocking way', async (t) => {
    const { settings, hook } = intercepted(orm)
    const { broker, recorder } = await openBroker(t, database, settings)
    await broker.subscribe('g')
    const client = await openClient(t, database)
    await client.run('begin immediate')
    const refused = Promise.withResolvers<void>()
    hook.intercept = async (sql, run) => {
      try {
        return await run()
      } catch (error) {
        if (sql.startsWith('insert into')) refused.resolve()
        throw error
      }
    }

    const published = broker.publish('g', '{"n":1}')
    await refused.promise
    await client.run('commit')
    await published
    await recorder.until('g', '{"n":1}')
  })
})

suite('the log on PostgreSQL only', { skip: skips.PostgreSQL }, async () => {
  const database = await makeDatabase('PostgreSQL', after)

  test('text that PostgreSQL does not store is refused, and nothing else', async (t) => {
    const { broker } = await openBroker(t, database, { history: undefined })

    await assert.rejects(async () => broker.publish('g', '\0'), { code: 'RP_ERR_NOT_PUBLISHED', message: /U\+0000/ })
    await broker.publish('g', '')
  })

  test('a process hears of others by notifications, and by its poll while it hears none', async (t) => {
    const [one, two] = [await openBroker(t, database, { pollInterval: 60_000 }), await openBroker(t, database, { pollInterval: 60_000 })]
    const group = randomUUID()
    await two.broker.subscribe(group)
    await one.broker.publish(group, '{"n":1}')
    await two.recorder.until(group, '{"n":1}')

    await database.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query ilike '%listen%'")
    await one.broker.publish(group, '{"n":2}')
    await two.recorder.until(group, '{"n":2}')
    await one.broker.publish(group, '{"n":3}')
    await two.recorder.until(group, '{"n":3}')
    assert.deepEqual(two.recorder.payloads(group), ['{"n":1}', '{"n":2}', '{"n":3}'])
  })
})

suite('notifications of PostgreSQL', { skip: skips.PostgreSQL }, async () => {
  const database = await makeDatabase('PostgreSQL', after)

  test('the log is read more often while notifications do not arrive, and both are said once', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { dialect } = settings
    const prepare = dialect.prepare.bind(dialect)
    let deafness: string | undefined = 'a pooler is in between'
    dialect.prepare = async (connection, role) => {
      await prepare(connection, role)
      return role === 'reader' ? deafness : undefined
    }
    const { broker, recorder } = await openBroker(t, database, settings)
    const notices = () => recorder.notices.map(({ text }) => text)
    assert.deepEqual(notices(), ['notifications of PostgreSQL do not arrive: a pooler is in between; the log is read every 100 ms'])

    const reconnect = () => {
      hook.intercept = (sql, run) => {
        if (!sql.includes('rohrpost_log')) return run()
        hook.intercept = (_sql, run) => run()
        return Promise.reject(new Error('the connection is gone'))
      }
    }
    reconnect()
    await poll(() => recorder.notices.length > 1 && broker.health().ok)
    deafness = undefined
    reconnect()
    await recorder.when('second notice', () => notices().includes('notifications of PostgreSQL arrive; the log is read every 1000 ms'))

    assert.equal(notices().filter((text) => text.startsWith('notifications')).length, 2)
  })
})
