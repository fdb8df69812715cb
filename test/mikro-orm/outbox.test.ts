/** The outbox: notifications are rows of their transaction until the broker has confirmed them. */
import assert from 'node:assert/strict'
import test, { suite, type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import Fastify from 'fastify'
import rohrpost, { memoryBroker, type Broker, type PublishOptions } from '../../lib/index.ts'
import { databaseBroker, logEntities } from '../../lib/brokers/database/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { Outbox, type OutboxOptions } from '../../lib/mikro-orm/outbox/outbox.ts'
import { makeDatabase, skips, type After, type DatabaseName, type TestDatabase } from '../brokers/database/support.ts'
import { replaceCommits } from './support.ts'

const TodoSchema = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.string(), title: p.string() } })
class Todo extends TodoSchema.class {}
TodoSchema.setClass(Todo)
const rule = notifyOnChange(Todo, { group: 'list-{list}', data: ['title'] })

const DATABASES: DatabaseName[] = ['PostgreSQL', 'MariaDB', 'SQLite']

/** A message that a broker was given. */
interface Given {
  readonly group: string
  readonly text: string
  readonly options: PublishOptions | undefined
  readonly taken: PromiseWithResolvers<void>
}

/** A broker whose messages the test takes or refuses. */
class ManualBroker {
  readonly given: Given[] = []
  readonly #waiting: Array<() => void> = []
  /** Takes messages at once. */
  isOpen = false
  readonly broker: Broker

  constructor (usesStamps = true) {
    this.broker = { ...memoryBroker(), usesStamps, publish: (...message) => this.publish(...message) }
  }

  publish (group: string, payload: string, options?: PublishOptions): Promise<void> {
    const { data, ...rest } = JSON.parse(payload)
    const text = data === undefined ? JSON.stringify(rest) : `${data.type} ${data.object?.title ?? data.changes?.length ?? ''}`.trim()
    const taken = Promise.withResolvers<void>()
    if (this.isOpen) taken.resolve()
    this.given.push({ group, text, options, taken })
    for (const wake of this.#waiting.splice(0)) wake()
    return taken.promise
  }

  /** Resolves when the broker has been given so many messages. */
  async until (count: number): Promise<Given[]> {
    while (this.given.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    return this.given
  }

  get texts (): string[] {
    return this.given.map(({ group, text }) => `${group}: ${text}`)
  }
}

interface Opened {
  database: TestDatabase
  orm: MikroORM
  /** Runs before the database is dropped. */
  after: After
  /** Replaces the COMMIT of the next transaction. */
  held: { commit: ((commit: () => Promise<void>) => Promise<void>) | undefined }
}

/** Makes a database with the tables. */
async function open (t: TestContext, name: DatabaseName): Promise<Opened> {
  const ends: Parameters<After>[0][] = []
  const after: After = (end) => ends.unshift(end)
  t.after(async () => { for (const end of ends) await end() })
  const database = await makeDatabase(name, after, { hasTables: false })
  const held: Opened['held'] = { commit: undefined }
  const holding = replaceCommits((commit) => {
    const { commit: replaced } = held
    held.commit = undefined
    return replaced === undefined ? commit() : replaced(commit)
  })
  const orm = await database.connect({ entities: [TodoSchema, ...logEntities], subscribers: [holding] })
  await orm.schema.create()
  return { database, orm, after, held }
}

/** A warning that was logged. */
interface Warning {
  msg: string
  err?: { message: string }
}

/** Starts an app with an outbox. */
async function start ({ orm, after }: Pick<Opened, 'orm' | 'after'>, broker: Broker) {
  const warnings: Warning[] = []
  const stream = { write (line: string) { warnings.push(JSON.parse(line)) } }
  const app = Fastify({ logger: { level: 'warn', stream } })
  after(() => app.close())
  await app.register(rohrpost, { broker, drainTimeout: 1000 })
  await app.register(rohrpostMikroOrm, { orm, notify: [rule], outbox: true })
  await app.ready()
  return { app, warnings }
}

/** A sweeper as another process has it. */
function other (orm: MikroORM, broker: ManualBroker, options: Partial<OutboxOptions> = {}) {
  const warnings: string[] = []
  const log = { warn: (_: object, message: string) => { warnings.push(message) } }
  const publish: OutboxOptions['publish'] = (...message) => broker.publish(...message)
  // rows of this moment count as old
  const outbox = new Outbox({ orm, publish, usesStamps: true, log, age: -1000, ...options })
  return { outbox, warnings }
}

const count = async ({ run }: TestDatabase, table = 'rohrpost_outbox') => Number((await run(`select count(*) as number from ${table}`))[0]?.['number'])

async function add (em: EntityManager, ...titles: string[]): Promise<void> {
  for (const title of titles) em.create(Todo, { list: 'a', title })
  await em.flush()
}

/** Resolves when a condition holds, which the database decides. */
async function until (condition: () => Promise<boolean>): Promise<void> {
  while (!await condition()) await new Promise(setImmediate)
}

for (const name of DATABASES) {
  const hasStamps = name !== 'SQLite'
  suite(`the outbox on ${name}`, { skip: skips[name] }, () => {
    test('keeps the messages of a transaction until the broker has taken them', async (t) => {
      const { database, orm, after } = await open(t, name)
      const manual = new ManualBroker()
      const { app } = await start({ orm, after }, manual.broker)

      await orm.em.fork().transactional(async (em) => {
        await add(em, 'one', 'two')
        await app.rohrpost.sendToGroup('chat', { hello: 'you' }, { em })
      })
      const given = await manual.until(2)

      assert.deepEqual(manual.texts, ['list-a: batch 2', 'chat: {"hello":"you"}'])
      assert.equal(await count(database), 1)
      assert.equal(new Set(given.map(({ options }) => options?.id)).size, 2)
      assert.deepEqual(given.map(({ options }) => options?.stamps?.length), hasStamps ? [2, 1] : [undefined, undefined])
      for (const { taken } of given) taken.resolve()
      await until(async () => await count(database) === 0)
    })

    test('fails a transaction whose row can not be inserted', async (t) => {
      const { database, orm, after } = await open(t, name)
      const manual = new ManualBroker()
      await start({ orm, after }, manual.broker)
      await database.run('drop table rohrpost_outbox')

      await assert.rejects(add(orm.em.fork(), 'one'), /rohrpost_outbox/)

      assert.equal(await count(database, 'todo'), 0)
      assert.deepEqual(manual.texts, [])
    })

    test('publishes what another process has left, with its stamp and id, or as a resync', async (t) => {
      const { database, orm, after } = await open(t, name)
      const dead = new ManualBroker()
      const { app } = await start({ orm, after }, dead.broker)
      await orm.em.fork().transactional(async (em) => {
        await add(em, 'one', 'two')
        await app.rohrpost.sendToGroup('chat', { hello: 'you' }, { em })
      })
      await dead.until(2)
      const living = new ManualBroker()
      living.isOpen = true
      const { outbox } = other(orm, living)

      await outbox.sweep()

      await outbox.close()
      assert.equal(await count(database), 0)
      if (hasStamps) {
        assert.deepEqual(living.texts, dead.texts)
        // MariaDB reads the clock twice, while the transaction holds the locks of its rows
        const known = (given: Given[]) => given.map(({ options }) => [options?.id, options?.stamps?.map(({ key, part, clock }) => [key, part, clock])])
        assert.deepEqual(known(living.given), known(dead.given))
        for (const [index, { options }] of living.given.entries()) {
          assert.ok(String(options?.stamps?.[0]?.value) >= String(dead.given[index]?.options?.stamps?.[0]?.value))
        }
      } else {
        assert.deepEqual(living.texts, ['chat: {"hello":"you"}', 'list-a: resync'])
      }
    })

    test('lets only one of several processes publish a row', async (t) => {
      const { database, orm, after } = await open(t, name)
      const dead = new ManualBroker()
      await start({ orm, after }, dead.broker)
      for (let n = 0; n < 5; n++) await add(orm.em.fork(), `${n}`)
      const living = new ManualBroker()
      living.isOpen = true
      const sweepers = [other(orm, living), other(await database.connect({ entities: [TodoSchema, ...logEntities] }), living, { age: 0 })]
      await until(async () => (await database.run('select 1 as one from rohrpost_outbox where claimed_at < (select max(claimed_at) from rohrpost_outbox)')).length > 0)

      // another process has taken the rows over a moment ago
      await sweepers[0]?.outbox.sweep()
      await Promise.all(sweepers.map(({ outbox }) => outbox.sweep()))

      for (const { outbox } of sweepers) await outbox.close()
      assert.equal(living.given.length, 5)
      assert.equal(await count(database), 0)
    })

    test('publishes nothing of a transaction that is rolled back', async (t) => {
      const { database, orm, after } = await open(t, name)
      const manual = new ManualBroker()
      await start({ orm, after }, manual.broker)

      await assert.rejects(orm.em.fork().transactional(async (em) => {
        await add(em, 'one')
        throw new Error('no')
      }), /no/)

      assert.equal(await count(database), 0)
    })
  })
}

// SQLite has one writer
for (const name of ['PostgreSQL', 'MariaDB'] satisfies DatabaseName[]) {
  test(`publishes rows on ${name} while the transaction of an older one is open`, { skip: skips[name] }, async (t) => {
    const { database, orm, after } = await open(t, name)
    const dead = new ManualBroker()
    await start({ orm, after }, dead.broker)
    await add(orm.em.fork(), 'one')
    await dead.until(1)
    const living = new ManualBroker()
    living.isOpen = true
    const { outbox } = other(orm, living)
    const em = orm.em.fork()
    await em.begin()
    const insert = "insert into rohrpost_outbox (id, messages, created_at, claimed_at) values ('open', '[]', 0, 0)"
    await em.getConnection().execute(insert, [], 'run', em.getTransactionContext())

    await outbox.sweep()

    assert.deepEqual(living.texts, ['list-a: create one'])
    await em.rollback()
    await outbox.close()
    assert.equal(await count(database), 0)
  })
}

const entities = [TodoSchema, ...logEntities]

test('keeps what the broker refuses, and publishes it when the broker takes it', async (t) => {
  const { database, orm } = await open(t, 'SQLite')
  const manual = new ManualBroker(false)
  const { outbox, warnings } = other(orm, manual, { usesStamps: false })
  const publish = await insert(orm, outbox, ['{"n":1}', '{"n":2}'])

  const publishing = [publish(0), publish(1)]
  manual.given[0]?.taken.resolve()
  manual.given[1]?.taken.reject(new Error('away'))
  await Promise.all(publishing)
  const sweeping = outbox.sweep()
  for (const { taken } of (await manual.until(4)).slice(2)) taken.reject(new Error('still away'))
  await sweeping
  assert.equal(await count(database), 1)
  manual.isOpen = true
  await outbox.sweep()
  await outbox.close()

  assert.equal(await count(database), 0)
  assert.deepEqual(manual.texts, ['a: {"n":1}', 'a: {"n":2}', 'a: {"n":1}', 'a: {"n":2}', 'a: {"n":1}', 'a: {"n":2}'])
  assert.deepEqual(warnings, ['the broker does not take changes: they stay in the outbox until it does', 'the broker takes the changes in the outbox again'])
})

test('keeps what a synchronous broker refuses, and deletes what it takes', async (t) => {
  const { database, orm } = await open(t, 'SQLite')
  let isAway = true
  const publish = () => { if (isAway) throw new Error('away') }
  const { outbox } = other(orm, new ManualBroker(), { publish })

  ;(await insert(orm, outbox, ['{"n":1}']))(0)
  await outbox.sweep()
  assert.equal(await count(database), 1)
  isAway = false
  await outbox.sweep()
  await outbox.close()

  assert.equal(await count(database), 0)
})

test('does not publish a row that this process publishes already', async (t) => {
  const { database, orm } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  const { outbox } = other(orm, manual)
  const publish = await insert(orm, outbox, ['{"n":1}'])

  publish(0)
  await outbox.sweep()
  const closed = outbox.close()
  manual.given[0]?.taken.resolve()
  await closed

  assert.deepEqual(manual.texts, ['a: {"n":1}'])
  assert.equal(await count(database), 0)
})

test('publishes all rows that stayed, also if they are more than one statement takes', async (t) => {
  const { database, orm } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  manual.isOpen = true
  const { outbox } = other(orm, manual)
  for (let n = 0; n < 130; n++) await insert(orm, outbox, [`{"n":${n}}`])

  await outbox.sweep()
  await outbox.close()

  assert.deepEqual(manual.texts, Array.from({ length: 130 }, (_, n) => `a: {"n":${n}}`))
  assert.equal(await count(database), 0)
})

test('divides the messages of a transaction into rows of limited size', async (t) => {
  const { orm } = await open(t, 'SQLite')
  const { outbox } = other(orm, new ManualBroker())
  const sizes = (payloads: string[]) => outbox.store(payloads.map(message), undefined).rows.rows.map(([, text]) => JSON.parse(String(text)).length)

  assert.deepEqual(sizes(Array.from({ length: 1001 }, () => '{}')), [1000, 1])
  assert.deepEqual(sizes([' '.repeat(600_000), ' '.repeat(600_000), ' '.repeat(2_000_000), '{}']), [1, 1, 1, 1])
})

test('reports once that the table can not be used, and deletes later what the broker has taken', async (t) => {
  const { database, orm } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  manual.isOpen = true
  const { outbox, warnings } = other(orm, manual)
  const publish = await insert(orm, outbox, ['{"n":1}'])
  await database.run("create trigger frozen before delete on rohrpost_outbox begin select raise(abort, 'frozen'); end")

  await publish(0)
  await outbox.sweep()
  await outbox.sweep()
  await database.run('drop trigger frozen')
  await database.run('alter table rohrpost_outbox rename to away')
  await outbox.sweep()
  await database.run('alter table away rename to rohrpost_outbox')
  await outbox.sweep()
  await outbox.close()

  assert.deepEqual(manual.texts, ['a: {"n":1}'])
  assert.equal(await count(database), 0)
  assert.deepEqual(warnings, ['the outbox can not be read or cleaned: its messages stay until it can', 'the outbox can be read and cleaned again'])
})

test('is quiet about a database that is closed before it', async (t) => {
  const { orm } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  const { outbox, warnings } = other(orm, manual)
  const publish = await insert(orm, outbox, ['{"n":1}'])

  publish(0)
  const closed = outbox.close()
  await orm.close(true)
  manual.given[0]?.taken.resolve()
  await closed

  assert.deepEqual(warnings, [])
})

test('looks for rows at the start and again and again, until it is closed', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { orm } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  manual.isOpen = true
  const { outbox } = other(orm, manual)

  await insert(orm, outbox, ['{"n":1}'])
  await outbox.open()
  await manual.until(1)
  await outbox.sweep()
  await insert(orm, outbox, ['{"n":2}'])
  t.mock.timers.tick(6250)
  await manual.until(2)
  await outbox.sweep()
  await insert(orm, outbox, ['{"n":3}'])
  // the last search ends with the outbox, and plans no further one
  t.mock.timers.tick(6250)
  await outbox.close()
  t.mock.timers.tick(6250)

  assert.ok(manual.given.length <= 3)
})

test('leaves the messages of a transaction that a later one has overtaken to the next search', async (t) => {
  const { database, orm, after, held } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  manual.isOpen = true
  await start({ orm, after }, manual.broker)
  await add(orm.em.fork(), 'one')
  await until(async () => await count(database) === 0)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const answer = Promise.withResolvers<void>()
  const answered = Promise.withResolvers<void>()
  held.commit = async (commit) => {
    await commit()
    answered.resolve()
    await answer.promise
  }

  const first = change(orm, 'two')
  await answered.promise
  await change(orm, 'three')
  t.mock.timers.tick(5000)
  answer.resolve()
  await first

  await manual.until(2)
  assert.deepEqual(manual.texts, ['list-a: create one', 'list-a: update three'])
  await until(async () => await count(database) === 1)
})

test('publishes nothing at once if the answer to a COMMIT is lost', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after, held } = await open(t, 'PostgreSQL')
  const manual = new ManualBroker()
  manual.isOpen = true
  await start({ orm, after }, manual.broker)
  await add(orm.em.fork(), 'one')
  await until(async () => await count(database) === 0)
  held.commit = async (commit) => {
    await commit()
    throw new Error('the connection was lost')
  }

  await assert.rejects(change(orm, 'two'), /lost/)

  assert.deepEqual(manual.texts, ['list-a: create one'])
  assert.equal(await count(database), 1)
})

test('publishes resyncs with the messages if a former row can not be read', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  const manual = new ManualBroker()
  manual.isOpen = true
  await start({ orm, after }, manual.broker)
  await add(orm.em.fork(), 'one')
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  const connect = t.mock.method(Object.getPrototypeOf(orm.em.getConnection()), 'connect', () => Promise.reject(new Error('too many connections')))

  todo.list = 'b'
  await em.flush()
  await until(async () => await count(database) === 0)

  assert.deepEqual(manual.texts.slice(1), ['list-a: delete one', 'list-b: create one', 'list-a: resync', 'list-b: resync'])
  connect.mock.restore()
})

test('fails a transaction that PostgreSQL has aborted in silence', { skip: skips.PostgreSQL }, async (t) => {
  const { database, orm, after } = await open(t, 'PostgreSQL')
  await start({ orm, after }, new ManualBroker().broker)

  await assert.rejects(orm.em.fork().transactional(async (em) => {
    await add(em, 'one')
    await em.getConnection().execute('select nonsense', [], 'all', em.getTransactionContext()).catch(() => {})
  }), /aborted/)

  assert.equal(await count(database), 0)
})

test('commits as before what notifies nobody', async (t) => {
  const { database, orm, after } = await open(t, 'SQLite')
  const manual = new ManualBroker()
  await start({ orm, after }, manual.broker)
  const em = orm.em.fork()
  em.remove(em.create(Todo, { list: 'a', title: 'one' }))
  const todo = em.create(Todo, { list: 'a', title: 'two' })

  await em.transactional(async (inner) => {
    await inner.flush()
    inner.remove(todo)
  })

  assert.deepEqual([await count(database), await count(database, 'todo')], [0, 0])
  assert.deepEqual(manual.texts, [])
})

suite('the option outbox', () => {
  const refused = async (t: TestContext, orm: unknown, options: object, expected: object, broker = memoryBroker()) => {
    const app = Fastify()
    t.after(() => app.close())
    await app.register(rohrpost, { broker })
    await assert.rejects(async () => app.register(rohrpostMikroOrm, { orm: orm as MikroORM, ...options }), expected)
  }
  const sqlite = async (t: TestContext, change: object = {}) => {
    const orm = await MikroORM.init({ driver: SqliteDriver, dbName: ':memory:', driverOptions: new NodeSqliteDialect(':memory:'), entities, ...change })
    t.after(() => orm.close(true))
    return orm
  }

  test('must be true or false', async (t) => {
    await refused(t, await sqlite(t), { outbox: 1 }, { code: 'RP_ERR_INVALID_OPTION', message: "Invalid option 'outbox': expected true or false, got 1" })
  })

  test('needs the entity, and the table', async (t) => {
    const expected = { code: 'RP_ERR_INVALID_OPTION', message: /^Invalid option 'orm': expected a MikroORM with 'entities: \[..., ...logEntities\]', which 'outbox' needs, got one without 'RohrpostOutbox'$/ }
    await refused(t, await sqlite(t, { entities: [TodoSchema] }), { outbox: true }, expected)
    await refused(t, await sqlite(t), { outbox: true }, { code: 'RP_ERR_TABLE_MISSING', message: /^The table `rohrpost_outbox` is missing/ })
  })

  test('passes on another error of the database', async (t) => {
    const orm = await sqlite(t)
    t.mock.method(orm.em.getConnection('write'), 'execute', () => Promise.reject(new Error('no disk')))

    await refused(t, orm, { outbox: true }, /no disk/)
  })

  test('is refused with databaseBroker on the same ORM, which needs none', async (t) => {
    const { orm, after } = await open(t, 'SQLite')
    const app = Fastify()
    after(() => app.close())
    await app.register(rohrpost, { broker: databaseBroker({ orm }) })

    const message = "Invalid option 'outbox': expected no 'outbox' with 'databaseBroker' on the same ORM, whose transactions write to its log, got true"
    await assert.rejects(async () => app.register(rohrpostMikroOrm, { orm, outbox: true }), { code: 'RP_ERR_INVALID_OPTION', message })
  })

  test('needs a database that the package knows', async (t) => {
    class OtherPlatform {}
    const orm = { em: { getPlatform: () => new OtherPlatform(), getEventManager: () => ({ getSubscribers: () => [] }) } }

    await refused(t, orm, { outbox: true }, { code: 'RP_ERR_INVALID_OPTION', message: /expected a MikroORM for PostgreSQL, MariaDB, MySQL or SQLite, got OtherPlatform$/ })
  })

  test('uses the schema of the ORM', async (t) => {
    const orm = await sqlite(t, { schema: 'other' })
    const { outbox } = other(orm, new ManualBroker())

    assert.match(outbox.store([message('{}')], undefined).rows.table, /^`other`\.`rohrpost_outbox`$/)
  })
})

const message = (payload: string) => ({ group: 'a', payload, notifications: [] })

/** Stores messages as a transaction does. @returns the function that publishes them, as after the COMMIT */
async function insert (orm: MikroORM, outbox: Outbox, payloads: string[]) {
  const stored = outbox.store(payloads.map(message), undefined)
  const { table, columns, rows, computed = {} } = stored.rows
  const names = [...columns, ...Object.keys(computed)].join(', ')
  const places = [...columns.map(() => '?'), ...Object.values(computed)].join(', ')
  for (const row of rows) await orm.em.getConnection().execute(`insert into ${table} (${names}) values (${places})`, [...row])
  let publish: ReturnType<typeof stored.begin> | undefined
  return (index: number) => {
    publish ??= stored.begin(undefined)
    return publish(index)
  }
}

/** Changes the first row. */
async function change (orm: MikroORM, title: string): Promise<void> {
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  todo.title = title
  await em.flush()
}
