/** Transactions whose messages are rows of the broker's log: they are committed together, or not at all. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import test, { describe, type TestContext } from 'node:test'
import { defineEntity, IsolationLevel, p, wrap, type EntityManager, type Transaction } from '@mikro-orm/core'
import { MikroORM, type Options } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { databaseBroker, logEntities } from '../../lib/brokers/database/index.ts'
import { transactionLogOf, type TransactionLog } from '../../lib/brokers/transaction-log.ts'
import rohrpost, { memoryBroker } from '../../lib/index.ts'
import { insertWithCommit } from '../../lib/mikro-orm/capture/commit-rows.ts'
import { ChangeSubscriber, notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { Recorder } from '../../lib/testing/recorder.ts'
import { record } from '../support/events.ts'
import { openLine } from '../support/line.ts'
import { changesOf, replaceCommits, type Entities } from './support.ts'
import { makeDatabase, portOf, skips, type After, type DatabaseName, type TestDatabase } from '../brokers/database/support.ts'

const TodoSchema = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.string(), title: p.string() } })
class Todo extends TodoSchema.class {}
TodoSchema.setClass(Todo)
const Child = defineEntity({ name: 'Child', properties: { id: p.integer().primary(), of: () => p.manyToOne(TodoSchema).deferMode('deferred') } })
const rule = notifyOnChange(Todo, { group: 'list-{list}', data: ['title'] })

const DATABASES: DatabaseName[] = ['PostgreSQL', 'MariaDB', 'SQLite']

interface Opened {
  database: TestDatabase
  orm: MikroORM
  /** Runs before the database is dropped. */
  after: After
}

/** Makes a database with the tables. */
async function open (t: TestContext, name: DatabaseName, more: Entities = []): Promise<Opened> {
  const ends: Parameters<After>[0][] = []
  const after: After = (end) => ends.unshift(end)
  t.after(async () => { for (const end of ends) await end() })
  const database = await makeDatabase(name, after, { hasTables: false })
  const orm = await database.connect({ entities: [TodoSchema, ...more, ...logEntities] })
  await orm.schema.create()
  return { database, orm, after }
}

/** Starts an app with the broker on the database. */
async function start ({ orm, after }: Pick<Opened, 'orm' | 'after'>, broker = databaseBroker({ orm }), notify = rule) {
  const app = Fastify()
  after(() => app.close())
  await app.register(rohrpost, { broker })
  await app.register(rohrpostMikroOrm, { orm, notify: [notify] })
  app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data)))
  await app.ready()
  return app
}

async function logged ({ run }: TestDatabase): Promise<string[]> {
  const rows = await run('select group_name, payload from rohrpost_log order by id')
  return rows.flatMap(({ group_name: group, payload }) => {
    const message = JSON.parse(String(payload))
    const changes = message.data === undefined ? [{ type: 'message', object: message }] : changesOf(String(payload))
    return changes.map(({ type, object }) => `${type} ${group} ${JSON.stringify(object)}`)
  })
}

async function lastPayload ({ run }: TestDatabase): Promise<string> {
  const [row] = await run('select payload from rohrpost_log order by id desc')
  return String(row?.payload)
}

const add = (em: EntityManager, title: string, list = 'a') => em.create(Todo, { list, title })

for (const name of DATABASES) {
  describe(`${name}: the messages of a transaction`, { skip: skips[name] }, () => {
    test('are committed with it, in order', async (t) => {
      const { database, orm, after } = await open(t, name)
      const app = await start({ orm, after })

      await orm.em.fork().transactional(async (em) => {
        add(em, 'one')
        await em.flush()
        await app.rohrpost.sendToGroup('chat', { hello: 'you' }, { em })
        add(em, 'two')
        await em.flush()
        await app.rohrpost.sendToGroup('list-a', {}, { em })
        add(em, 'three')
        await em.flush()
        assert.deepEqual(await logged(database), [])
      })

      assert.deepEqual(await logged(database), [
        'create list-a {"title":"one"}', 'create list-a {"title":"two"}', 'message chat {"hello":"you"}', 'message list-a {}',
        'create list-a {"title":"three"}'
      ])
      assert.equal((await database.run('select id from rohrpost_log')).length, 4, 'rows')
    })

    test('reach the members', async (t) => {
      const { orm, after } = await open(t, name)
      const app = await start({ orm, after })
      const socket = await app.injectWS('/ws/rohrpost')
      t.after(() => socket.terminate())
      const next = async () => JSON.parse(String((await once(socket, 'message'))[0]))
      socket.send('{"id":1,"type":"join","data":"list-a"}')
      await next()

      const frame = next()
      const em = orm.em.fork()
      add(em, 'one')
      await em.flush()

      assert.deepEqual((await frame).data, { group: 'list-a', type: 'create', object: { title: 'one' } })
    })

    test('are gone with a rollback, also one to a savepoint', async (t) => {
      const { database, orm, after } = await open(t, name)
      const app = await start({ orm, after })
      const { rohrpost } = app

      await orm.em.fork().transactional(async (em) => {
        await rohrpost.sendToGroup('chat', { n: 1 }, { em })
        await assert.rejects(em.transactional(async (em) => {
          add(em, 'undone')
          await em.flush()
          await rohrpost.sendToGroup('chat', { n: 2 }, { em })
          throw new Error('undo')
        }), /undo/)
        await em.transactional(async (em) => {
          await rohrpost.sendToGroup('chat', { n: 3 }, { em })
          add(em, 'kept')
        })
        await rohrpost.sendToGroup('chat', { n: 4 }, { em: orm.em })
      })
      await assert.rejects(orm.em.fork().transactional(async (em) => {
        await rohrpost.sendToGroup('chat', { n: 5 }, { em })
        throw new Error('undo')
      }), /undo/)

      assert.deepEqual(await logged(database), [
        'message chat {"n":1}', 'message chat {"n":3}', 'create list-a {"title":"kept"}', 'message chat {"n":4}'
      ])
    })

    test('keep all characters', async (t) => {
      const { database, orm, after } = await open(t, name)
      const app = await start({ orm, after })
      const groups = ["list-'", 'list-"', 'list-\\', "list-\\'", 'list-?', 'list-$1', 'list-%s', 'list---', 'list-;']
      const texts = ["'", '"', '\\', "\\'", "\\\\'; drop table todo; --", '?', '$1 $$ $a$', '%s', 'ü', '日本', '😀', '\u2028', '\0', '\ud800', '\n\t', "E'\\047"]

      const em = orm.em.fork()
      await em.begin()
      if (name === 'PostgreSQL') await em.execute('set local standard_conforming_strings = off')
      for (const group of groups) for (const text of texts) await app.rohrpost.sendToGroup(group, { text }, { em })
      await em.commit()

      const expected = groups.flatMap((group) => texts.map((text) => `message ${group} ${JSON.stringify({ text })}`))
      assert.deepEqual(await logged(database), expected)
    })

    test('of 5,000 rows are in order', async (t) => {
      const { database, orm, after } = await open(t, name)
      // some messages are large
      const large = ({ title }: Todo) => ({ title, more: 'x'.repeat(title.includes('000 ') ? 400_000 : 300) })
      await start({ orm, after }, undefined, notifyOnChange(Todo, { group: 'list-{list}', data: large }))
      const em = orm.em.fork()
      for (let n = 0; n < 5000; n++) add(em, `${n} \\'`, `${n % 2500}`)
      await em.flush()

      const all = await logged(database)
      assert.equal(all.length, 5000)
      const numbers = all.map((line) => Number(/"title":"(\d+) /.exec(line)?.[1]))
      assert.deepEqual(numbers, [...Array(2500).keys()].flatMap((n) => [n, n + 2500]))
    })

    for (const how of ['dropped', 'refused by a trigger'] as const) {
      test(`fail it if the log is ${how}`, async (t) => {
        const { database, orm, after } = await open(t, name)
        await start({ orm, after })
        if (how === 'dropped') await database.run('alter table rohrpost_log rename to moved_log')
        else for (const sql of REFUSING[name]) await database.run(sql)
        const expected = how === 'dropped' ? /rohrpost_log/ : /the log is closed/

        const implicit = orm.em.fork()
        add(implicit, 'implicit')
        await assert.rejects(implicit.flush(), expected)
        await assert.rejects(orm.em.fork().transactional(async (em) => { add(em, 'transactional') }), expected)
        const explicit = orm.em.fork()
        await explicit.begin()
        add(explicit, 'explicit')
        await assert.rejects(explicit.commit(), expected)
        await explicit.rollback()
        const repeated = orm.em.fork()
        await repeated.begin()
        for (let n = 0; n < 1001; n++) add(repeated, 'repeated', `${n}`)
        await assert.rejects(repeated.commit(), expected)
        await assert.rejects(repeated.commit())
        await repeated.rollback()

        assert.equal(await orm.em.fork().count(Todo), 0)
        if (how === 'dropped') return
        assert.deepEqual(await logged(database), [])
      })
    }

    test('are counted by diagnostics', async (t) => {
      const { orm, after } = await open(t, name)
      const app = await start({ orm, after })
      const { notify, publish, drop } = record(t, 'notify', 'publish', 'drop')

      await assert.rejects(orm.em.fork().transactional(async (em) => {
        add(em, 'undone')
        await em.flush()
        throw new Error('undo')
      }))
      await orm.em.fork().transactional(async (em) => {
        add(em, 'one')
        em.remove(add(em, 'short'))
        const two = add(em, 'two')
        await em.flush()
        em.remove(two)
        await app.rohrpost.sendToGroup('chat', {}, { em })
      })

      assert.deepEqual(notify.map(({ group, type }) => `${type} ${group}`), ['create list-a'])
      assert.deepEqual(publish.map(({ group, error }) => [group, error]), [['list-a', undefined], ['chat', undefined]])
      assert(publish.every(({ size, duration }) => size > 0 && duration > 0))
      assert.deepEqual(drop.map(({ reason }) => reason), ['rolled_back', 'short_lived'])
    })

    test('that is without a flush are committed as well', async (t) => {
      const { database, orm, after } = await open(t, name)
      const app = await start({ orm, after })
      await orm.em.fork().insertMany(Todo, [{ id: 1, list: 'a', title: 'one' }, { id: 2, list: 'a', title: 'two' }])

      await app.rohrpost.notify(Todo, [1, 2], 'update', { em: orm.em.fork() })
      await orm.em.fork().upsert(Todo, { id: 1, list: 'a', title: 'three' })
      await assert.doesNotReject(app.rohrpost.notify(Todo, 3, 'update', { em: orm.em.fork() }))

      assert.deepEqual(await logged(database), [
        'update list-a {"title":"one"}', 'update list-a {"title":"two"}', 'update list-a {"title":"three"}'
      ])
    })
  })
}

/** Triggers that refuse all rows of the log. */
const REFUSING: Record<DatabaseName, string[]> = {
  PostgreSQL: [
    "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'the log is closed'; end $$",
    'create trigger refuse before insert on rohrpost_log for each row execute function refuse()'
  ],
  MariaDB: ["create trigger refuse before insert on rohrpost_log for each row signal sqlstate '45000' set message_text = 'the log is closed'"],
  SQLite: ["create trigger refuse before insert on rohrpost_log begin select raise(abort, 'the log is closed'); end"]
}

test('PostgreSQL: need the right to insert only', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  await start({ orm, after })
  const role = `rohrpost_${randomUUID().slice(0, 8)}`
  await database.run(`create role "${role}"`)
  after(async () => {
    await database.run(`drop owned by "${role}"`)
    await database.run(`drop role "${role}"`)
  })
  await database.run(`grant all on all tables in schema public to "${role}"`)
  await database.run(`grant usage on all sequences in schema public to "${role}"`)
  await database.run(`revoke all on rohrpost_log, rohrpost_log_state, rohrpost_log_passed from "${role}"`)
  const write = (count: number) => orm.em.fork().transactional(async (em) => {
    await em.execute(`set local role "${role}"`)
    for (let n = 0; n < count; n++) add(em, 'one', `${n}`)
  })

  await assert.rejects(write(1), /permission denied for table rohrpost_log/)
  await database.run(`grant insert on rohrpost_log to "${role}"`)
  await write(1)
  await write(1001)

  assert.equal((await logged(database)).length, 1002)
  assert.equal(await orm.em.fork().count(Todo), 1002)
})

for (const name of ['PostgreSQL', 'MariaDB'] as const) {
  for (const isolationLevel of [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]) {
    test(`${name}: give parallel ${isolationLevel} transactions no errors`, { skip: skips[name] }, async (t) => {
      const { database, orm, after } = await open(t, name)
      const other = await database.connect({ entities: [TodoSchema, ...logEntities] })
      await start({ orm, after })
      await start({ orm: other, after })
      const running: Promise<void>[] = []
      // the rows exist, so that MariaDB has no gaps to lock
      await orm.em.fork().insertMany(Todo, Array.from({ length: 100 }, (_, id) => ({ id: id + 1, list: 'a', title: 'old' })))

      for (let n = 0; n < 10; n++) {
        running.push(...[orm, other].map(async ({ em }, index) => {
          for (let i = 0; i < 5; i++) {
            await em.fork().transactional(async (em) => {
              em.getReference(Todo, 1 + n * 10 + index * 5 + i).title = 'new'
            }, { isolationLevel })
          }
        }))
      }
      await Promise.all(running)

      assert.equal((await logged(database)).length, 100)
    })
  }

  test(`${name}: a lost answer to a COMMIT needs no resync`, { skip: skips[name] }, async (t) => {
    const { database, orm, after } = await open(t, name)
    const line = await openLine(t, portOf(name))
    let isLost = false
    const losing = replaceCommits((commit) => {
      line.losesAnswers = isLost
      return commit()
    })
    const lossy = await MikroORM.init({
      driver: orm.config.get('driver'),
      dbName: String(orm.config.get('dbName')),
      entities: [TodoSchema, ...logEntities],
      subscribers: [losing],
      ...database.through(line)
    } as Options)
    // waits forever for a connection that was lost within a transaction
    after(() => { lossy.close().catch(() => {}) })
    const broker = databaseBroker({ orm })
    const log = transactionLogOf(broker, orm) as TransactionLog
    const recorder = new Recorder()
    await broker.open(recorder)
    after(() => broker.close())
    await broker.subscribe('list-a')
    const warnings: string[] = []
    new ChangeSubscriber({ notify: [rule] }).connect({
      orm: lossy, publish: () => assert.fail('published'), transactionLog: log, log: { error () {}, warn: (_, text) => { warnings.push(text) } }
    })

    const em = lossy.em.fork()
    add(em, 'one')
    isLost = true
    // on MariaDB, the answers to the statements before the COMMIT are awaited
    line.lost().then(() => line.cut())
    await assert.rejects(em.flush())
    await recorder.until('list-a', await lastPayload(database))

    assert.deepEqual(warnings, [])
    assert.equal(await orm.em.fork().count(Todo), 1)
  })
}

test('MariaDB: a swallowed deadlock fails the transaction, which leaves no message', { skip: skips.MariaDB }, async (t) => {
  const { database, orm, after } = await open(t, 'MariaDB')
  const app = await start({ orm, after })

  await assert.rejects(orm.em.fork().transactional(async (em) => {
    await app.rohrpost.sendToGroup('chat', {}, { em })
    // as after a deadlock: the transaction is over
    await em.execute('rollback')
  }), { code: 'RP_ERR_ROLLED_BACK' })

  assert.deepEqual(await logged(database), [])
})

test('MariaDB: a missing turn is created', { skip: skips.MariaDB }, async (t) => {
  const { database, orm } = await open(t, 'MariaDB')
  const log = transactionLogOf(databaseBroker({ orm }), orm) as TransactionLog
  const write = () => orm.em.fork().transactional((em) => {
    return insertWithCommit(em, em.getTransactionContext() as Transaction, log.rowsOf([{ group: 'a', payload: '{}' }]))
  })

  await write()
  await write()

  assert.deepEqual(await database.run("select name, value from rohrpost_log_state where name = 'turn'"), [{ name: 'turn', value: '0' }])
  assert.equal((await logged(database)).length, 2)
})

test('SQLite: a COMMIT that succeeds after it was refused sends each message once', async (t) => {
  const { database, orm, after } = await open(t, 'SQLite', [Child])
  const app = await start({ orm, after })
  const em = orm.em.fork()

  await em.begin()
  add(em, 'one')
  await app.rohrpost.sendToGroup('chat', { n: 1 }, { em })
  em.create(Child, { of: 2 })
  await em.flush()
  await assert.rejects(em.commit(), /FOREIGN KEY/)
  add(em, 'two')
  await app.rohrpost.sendToGroup('chat', { n: 2 }, { em })
  await em.flush()
  await em.commit()

  assert.deepEqual(await logged(database), [
    'message chat {"n":1}', 'create list-a {"title":"one"}', 'create list-a {"title":"two"}', 'message chat {"n":2}'
  ])
})

test('PostgreSQL: are committed with a client of the application', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  const driverOptions = orm.em.getConnection().getClient() as unknown as NonNullable<Options['driverOptions']>
  const other = await database.connect({ entities: [TodoSchema, ...logEntities], driverOptions })
  const log = transactionLogOf(databaseBroker({ orm }), orm) as TransactionLog
  const subscriber = new ChangeSubscriber({ notify: [rule] })
  subscriber.connect({ orm: other, publish: () => assert.fail('published'), transactionLog: log, log: { error () {}, warn () {} } })
  after(() => subscriber.disconnect())

  const em = other.em.fork()
  await em.begin()
  add(em, "\\'one")
  await em.commit()
  await assert.rejects(other.em.fork().transactional(async (em) => {
    add(em, 'two')
    await em.flush()
    await em.execute('select nonsense').catch(() => {})
  }), /aborted/)

  assert.deepEqual(await logged(database), ['create list-a {"title":"\\\\\'one"}'])
})

test('PostgreSQL: contain a resync of groups that a row may have left', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  await start({ orm, after })
  await orm.em.fork().insert(Todo, { id: 1, list: 'a', title: 'one' })
  const todo = await orm.em.fork().findOneOrFail(Todo, 1)
  const { mock } = t.mock.method(Object.getPrototypeOf(orm.em.getConnection()), 'connect', () => Promise.reject(new Error('too many connections')))

  todo.list = 'b'
  await wrap(todo, true).__em?.flush()
  mock.restore()

  assert.deepEqual((await logged(database)).map((line) => line.split(' ').slice(0, 2).join(' ')), [
    'delete list-a', 'create list-b', 'resync list-a', 'resync list-b'
  ])
})

test('PostgreSQL: refuse a text that the database cannot store', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  const app = await start({ orm, after })

  await orm.em.fork().transactional(async (em) => {
    await assert.rejects(app.rohrpost.sendToGroup('chat', 'a\0b', { em }), { code: 'RP_ERR_NOT_PUBLISHED', message: /U\+0000/ })
    await app.rohrpost.sendToGroup('chat', '{}', { em })
  })

  assert.deepEqual(await logged(database), ['message chat {}'])
})

test('SQLite: another instance of the ORM publishes after the COMMIT', async (t) => {
  const { database, orm, after } = await open(t, 'SQLite')
  const other = await database.connect({ entities: [TodoSchema, ...logEntities] })
  const broker = databaseBroker({ orm: other })
  assert.equal(transactionLogOf(broker, orm), undefined)
  assert.equal(transactionLogOf(memoryBroker(), orm), undefined)
  const published = t.mock.method(broker, 'publish')
  const app = await start({ orm, after }, broker)

  const em = orm.em.fork()
  add(em, 'one')
  await em.flush()

  assert.equal(published.mock.callCount(), 1)
  await app.close()
  assert.deepEqual(await logged(database), ['create list-a {"title":"one"}'])
})
