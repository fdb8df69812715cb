/** The stamps that messages carry: where they come from, and that they follow the order of commits. */
import assert from 'node:assert/strict'
import test, { suite, type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM } from '@mikro-orm/sql'
import type { Stamp } from '../../lib/index.ts'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { makeNotify } from '../../lib/mikro-orm/notify.ts'
import type { NotifyRule } from '../../lib/mikro-orm/declare/rules.ts'
import { changesOf, holdCommit, openServer, openSqlite } from './support.ts'

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string(), list: p.string().default('a') } })
const rule = notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'] })
const unread = notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'], readBack: false })

interface Published {
  type: string
  title: string
  stamp: Stamp | undefined
}

/** Keeps the published messages. */
function listen (orm: MikroORM, notify: NotifyRule[] = [rule], usesStamps = true) {
  const subscriber = new ChangeSubscriber()
  const published: Published[] = []
  subscriber.connect({
    orm,
    notify,
    usesStamps,
    publish (_group, payload, { stamps } = {}) {
      for (const [index, { type, object }] of changesOf(payload).entries()) {
        published.push({ type, title: String(object['title']), stamp: stamps?.[index] })
      }
      assert.equal(stamps?.length, usesStamps ? changesOf(payload).length : undefined)
    },
    log: { error () {}, warn () {} }
  })
  return { subscriber, take: () => published.splice(0) }
}

async function add (orm: MikroORM, ...titles: string[]): Promise<void> {
  const em = orm.em.fork()
  for (const title of titles) em.create(Todo, { title })
  await em.flush()
}

async function save (orm: MikroORM, title: string, id = 1): Promise<void> {
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, id)
  todo.title = title
  await em.flush()
}

const execute = (em: EntityManager, sql: string) => em.getConnection().execute(sql, [], 'all', em.getTransactionContext())

for (const server of ['postgresql', 'mariadb'] as const) {
  suite(`stamps on ${server}`, () => {
    for (const [name, notify] of [['rows that are read back', rule], ['readBack: false', unread]] as const) {
      test(`rise from transaction to transaction and are equal in one, with ${name}`, async (t) => {
        const orm = await openServer(t, server, [Todo])
        if (orm === undefined) return
        const { take } = listen(orm, [notify])

        await add(orm, 'one', 'two')
        await save(orm, 'three')
        await orm.em.fork().transactional(async (em) => { em.remove(await em.findOneOrFail(Todo, 1)) })
        const stamps = take().map(({ stamp }) => stamp)

        assert.equal(stamps.length, 4)
        const [one, two, three, four] = stamps as [Stamp, Stamp, Stamp, Stamp]
        assert.equal(one.value, two.value)
        assert.ok(one.value < three.value && three.value < four.value, JSON.stringify(stamps))
        for (const { clock, value } of [two, three, four]) {
          assert.equal(clock, one.clock)
          assert.match(value, /^\d{20}$/)
        }
        assert.match(one.clock, /^\S+$/)
        assert.ok(one.clock.includes(orm.config.get('dbName')), one.clock)
        assert.equal(one.key, three.key)
        assert.equal(one.key, four.key)
        assert.notEqual(one.key, two.key)
        assert.deepEqual([two.part, three.part, four.part], [one.part, one.part, 'all'])
      })
    }

    test('of a later commit are larger, though its process publishes first', async (t) => {
      const late = holdCommit()
      const first = await openServer(t, server, [Todo])
      if (first === undefined) return
      await add(first, 'zero')
      const second = await openServer(t, server, [Todo], { subscribers: [late.subscriber] }, first.config.get('dbName'))
      assert(second !== undefined)
      const [one, two] = [listen(second), listen(first)]

      late.holdNext()
      const saved = save(second, 'one')
      await late.answered
      await save(first, 'two')
      const [later] = two.take()
      late.release()
      await saved
      const [earlier] = one.take()

      assert.deepEqual([earlier?.title, later?.title], ['one', 'two'])
      assert.deepEqual([earlier?.stamp?.key, earlier?.stamp?.part, earlier?.stamp?.clock], [later?.stamp?.key, later?.stamp?.part, later?.stamp?.clock])
      assert.ok(String(earlier?.stamp?.value) < String(later?.stamp?.value), JSON.stringify([earlier, later]))
    })

    test('are not read for a broker that does not use them', async (t) => {
      const orm = await openServer(t, server, [Todo])
      if (orm === undefined) return
      const { take } = listen(orm, [rule], false)

      await add(orm, 'one')

      assert.deepEqual(take(), [{ type: 'create', title: 'one', stamp: undefined }])
    })

    test('go with changes that `notify` announces', async (t) => {
      const orm = await openServer(t, server, [Todo])
      if (orm === undefined) return
      const { take, subscriber } = listen(orm)
      await add(orm, 'one')
      const [created] = take()

      await makeNotify(orm, subscriber, undefined)(Todo, 1, 'update')
      const [notified] = take()

      assert.equal(notified?.stamp?.key, created?.stamp?.key)
      assert.ok(String(created?.stamp?.value) < String(notified?.stamp?.value))
    })
  })
}

test('SQLite gives no stamps', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm)

  await add(orm, 'one')

  assert.deepEqual(take(), [{ type: 'create', title: 'one', stamp: undefined }])
})

test('`notify` rejects and publishes nothing if its COMMIT fails', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const { take, subscriber } = listen(orm)
  await add(orm, 'one')
  take()
  const notify = makeNotify(orm, subscriber, undefined)

  const commit = t.mock.method(orm.em.getConnection('write'), 'commit', () => Promise.reject(new Error('no commit')))
  await assert.rejects(notify(Todo, 1, 'update'), /no commit/)
  commit.mock.restore()
  await notify(Todo, 1, 'update')

  assert.deepEqual(take().map(({ type }) => type), ['update'])
})

/** An ORM with the rights of an application and no more, and a function that revokes rights on functions of the server. */
async function openLimited (t: TestContext) {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const dbName = orm.config.get('dbName')
  const role = `${dbName}_role`
  const run = (sql: string) => orm.em.getConnection().execute(sql)
  await run(`create role ${role} login`)
  await run(`grant all on all tables in schema public to ${role}`)
  await run(`grant all on all sequences in schema public to ${role}`)
  t.after(async () => {
    // its rights are gone with the database
    const server = await MikroORM.init({ driver: PostgreSqlDriver, clientUrl: String(orm.config.get('clientUrl')), entities: [], discovery: { warnWhenNoEntities: false } })
    await server.em.getConnection().execute(`drop role ${role}`)
    await server.close()
  })
  const url = new URL(String(orm.config.get('clientUrl')))
  url.username = role
  const limited = await openServer(t, 'postgresql', [Todo], { clientUrl: url.href, pool: { max: 1 } }, dbName)
  assert(limited !== undefined)
  const revoke = (functions: string) => run(`revoke execute on function ${functions} from public`)
  return { orm: limited, revoke, take: listen(limited).take }
}

suite('stamps on PostgreSQL for a role', () => {
  test('are the time of the server if the role may not read the position of the WAL', async (t) => {
    const limited = await openLimited(t)
    if (limited === undefined) return
    const { orm, revoke, take } = limited
    await revoke('pg_current_wal_insert_lsn()')

    await add(orm, 'one')
    await save(orm, 'two')
    const [one, two] = take()

    assert.match(String(one?.stamp?.clock), /^time%20/)
    assert.equal(one?.stamp?.clock, two?.stamp?.clock)
    assert.ok(String(one?.stamp?.value) < String(two?.stamp?.value))
  })

  test('are left out if the role may read neither, and the commits succeed', async (t) => {
    const limited = await openLimited(t)
    if (limited === undefined) return
    const { orm, revoke, take } = limited
    await revoke('pg_current_wal_insert_lsn(), clock_timestamp()')

    await add(orm, 'one')
    await save(orm, 'two')

    assert.deepEqual(take().map(({ title, stamp }) => [title, stamp]), [['one', undefined], ['two', undefined]])
  })

  test('are read in another way after a flush that failed since the role lost the right', async (t) => {
    const limited = await openLimited(t)
    if (limited === undefined) return
    const { orm, revoke, take } = limited
    await add(orm, 'one')
    await revoke('pg_current_wal_insert_lsn()')
    take()

    await assert.rejects(add(orm, 'two'), /permission denied/)
    await add(orm, 'three')

    assert.equal(await orm.em.fork().count(Todo), 2)
    assert.deepEqual(take().map(({ title, stamp }) => [title, stamp?.clock.startsWith('time')]), [['three', true]])
  })
})

test('postgresql: a client of the application gives stamps too', async (t) => {
  const first = await openServer(t, 'postgresql', [Todo])
  if (first === undefined) return
  const driverOptions = first.em.getConnection().getClient() as never
  const orm = await openServer(t, 'postgresql', [Todo], { driverOptions }, first.config.get('dbName'))
  assert(orm !== undefined)
  const { take } = listen(orm)

  await add(orm, 'one')

  assert.match(String(take()[0]?.stamp?.value), /^\d{20}$/)
})

for (const isFirst of [true, false]) {
  test(`postgresql: ${isFirst ? 'the first' : 'a later'} transaction that was aborted in silence rejects, and its connection is in order`, async (t) => {
    const orm = await openServer(t, 'postgresql', [Todo], { pool: { max: 1 } })
    if (orm === undefined) return
    const { take } = listen(orm, [unread])
    if (!isFirst) await add(orm, 'zero')
    take()

    const em = orm.em.fork()
    await em.begin()
    em.create(Todo, { title: 'one' })
    await em.flush()
    await execute(em, 'select nonsense').catch(() => {})
    await assert.rejects(em.commit(), { code: 'RP_ERR_ROLLED_BACK' })
    await add(orm, 'two')

    assert.deepEqual(take().map(({ title }) => title), ['two'])
  })
}

test('postgresql: a connection that is lost before the first stamp is read rejects the flush', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const { take } = listen(orm, [unread])

  await assert.rejects(orm.em.fork().transactional(async (em) => {
    em.create(Todo, { title: 'one' })
    await em.flush()
    const [row] = await execute(em, 'select pg_backend_pid() as pid') as Array<{ pid: number }>
    await em.getConnection().execute('select pg_terminate_backend(?)', [row?.pid])
  }))
  await add(orm, 'two')

  assert.deepEqual(take().map(({ title }) => title), ['two'])
})

test('postgresql: the part of a message is that of its rule, and `some` where the data function reads what the change was', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const { take } = listen(orm, [
    notifyOnChange(Todo, { group: 'todos', data: ({ id, title }) => ({ id, title }) }),
    notifyOnChange(Todo, { group: 'todos', data: ({ id }, { type }) => ({ id, type }) }),
    notifyOnChange(Todo, { group: 'todos', data: ({ id }, { updatedFields }) => ({ id, updatedFields }) })
  ])

  await add(orm, 'one')
  await save(orm, 'two')
  const parts = take().map(({ stamp }) => stamp?.part)

  assert.match(String(parts[0]), /^s[0-9a-f]{12}$/)
  assert.deepEqual(parts, [parts[0], 'some', 'some', parts[0], 'some', 'some'])
})
