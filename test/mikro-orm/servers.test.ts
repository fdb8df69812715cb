import assert from 'node:assert/strict'
import test from 'node:test'
import { defineEntity, p, TransactionPropagation, wrap, type EntityManager } from '@mikro-orm/core'
import type { MikroORM } from '@mikro-orm/sql'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { listen, openServer } from './support.ts'

const Todo = defineEntity({
  name: 'Todo',
  properties: { id: p.integer().primary(), title: p.string(), code: p.integer().nullable().unique() }
})
const rule = notifyOnChange(Todo, { group: 'todos', data: ['title'] })

const add = (em: EntityManager, title: string) => em.create(Todo, { title })
const titles = async (orm: MikroORM) => (await orm.em.fork().find(Todo, {}, { orderBy: { id: 'asc' } })).map(({ title }) => title)

const Room = defineEntity({
  name: 'Room',
  properties: { id: p.integer().primary(), house: p.string(), plan: p.json<{ floor: number }>(), label: p.json<string>().nullable() }
})

for (const server of ['postgresql', 'mariadb'] as const) {
  test(`${server}: parses JSON columns in the view of a row before its change`, async (t) => {
    const orm = await openServer(t, server, [Room])
    if (orm === undefined) return
    const { take, logged } = listen(orm, [
      notifyOnChange(Room, { group: 'house-{house}', data: ['plan', 'label'] }),
      notifyOnChange(Room, { group: ({ plan }) => `floor-${plan.floor}`, data: ({ plan }) => plan })
    ])
    const em = orm.em.fork()
    em.create(Room, { house: 'a', plan: { floor: 1 }, label: '7' })
    await em.flush()
    take()

    const room = await orm.em.fork().findOneOrFail(Room, 1)
    room.house = 'b'
    room.plan.floor = 2
    await wrap(room, true).__em?.flush()

    assert.deepEqual(logged, [])
    assert.deepEqual(take(), [
      'delete house-a {"plan":{"floor":1},"label":"7"}',
      'create house-b {"plan":{"floor":2},"label":"7"}',
      'delete floor-1 {"floor":1}',
      'create floor-2 {"floor":2}'
    ])
  })

  test(`${server}: announces savepoints, rollbacks and parallel savepoints as the database keeps them`, async (t) => {
    const orm = await openServer(t, server, [Todo])
    if (orm === undefined) return
    const { told } = listen(orm, [rule])
    const nested = (em: EntityManager, title: string, fails: boolean) => em.transactional(async (em) => {
      add(em, title)
      await em.flush()
      await em.getConnection().execute('select 1', [], 'all', em.getTransactionContext())
      if (fails) throw new Error(title)
      add(em, `${title}, later`)
    })

    for (const [first, second] of [[true, false], [false, true], [true, true], [false, false]] as const) {
      await orm.em.fork().transactional(async (em) => {
        add(em, 'outer')
        await em.flush()
        await Promise.allSettled([nested(em, 'first', first), nested(em, 'second', second)])
      })
    }
    await assert.rejects(orm.em.fork().transactional(async (em) => {
      await nested(em, 'undone', false)
      throw new Error('outer')
    }))

    assert.deepEqual(told.map(({ object }) => (object as { title: string }).title).sort(), (await titles(orm)).sort())
  })

  test(`${server}: announces REQUIRES_NEW at its COMMIT, independently of the outer transaction`, async (t) => {
    const orm = await openServer(t, server, [Todo])
    if (orm === undefined) return
    const { take } = listen(orm, [rule])

    await assert.rejects(orm.em.fork().transactional(async (em) => {
      add(em, 'outer')
      await em.flush()
      await em.transactional(async (em) => { add(em, 'inner') }, { propagation: TransactionPropagation.REQUIRES_NEW, clear: true })
      assert.deepEqual(take(), ['create todos {"title":"inner"}'])
      throw new Error('outer')
    }))

    assert.deepEqual(take(), [])
    assert.deepEqual(await titles(orm), ['inner'])
  })

  test(`${server}: announces nothing if the connection is lost before the COMMIT`, async (t) => {
    const orm = await openServer(t, server, [Todo])
    if (orm === undefined) return
    const { take } = listen(orm, [rule])

    await assert.rejects(orm.em.fork().transactional(async (em) => {
      add(em, 'lost')
      await em.flush()
      const connection = em.getConnection()
      if (server === 'postgresql') {
        const [row] = await connection.execute<Array<{ pid: number }>>('select pg_backend_pid() as pid', [], 'all', em.getTransactionContext())
        await connection.execute('select pg_terminate_backend(?)', [row?.pid])
      } else {
        const [row] = await connection.execute<Array<{ id: number }>>('select connection_id() as id', [], 'all', em.getTransactionContext())
        await connection.execute(`kill ${row?.id}`)
      }
    }))

    assert.deepEqual(take(), [])
    assert.deepEqual(await titles(orm), [])
  })
}

test('postgresql: does not announce a transaction that a swallowed error aborted', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const { take, logged } = listen(orm, [rule])
  const em = orm.em.fork()

  await em.begin()
  const todo = add(em, 'one')
  await em.flush()
  await em.getConnection().execute('select nonsense', [], 'all', em.getTransactionContext()).catch(() => {})
  await assert.rejects(em.commit(), /current transaction is aborted/)
  await em.rollback()

  assert.deepEqual(await titles(orm), [])
  assert.deepEqual(take(), [])
  assert.deepEqual(logged, [])

  todo.title = 'a ghost'
  await em.flush()
  assert.deepEqual(take(), [])
})

test('postgresql: announces a transaction with a swallowed error in a rolled back savepoint', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const { take } = listen(orm, [rule])

  await orm.em.fork().transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    await em.transactional((em) => em.getConnection().execute('select nonsense', [], 'all', em.getTransactionContext())).catch(() => {})
  })

  assert.deepEqual(take(), ['create todos {"title":"one"}'])
})

test('postgresql: announces nothing if a deferred constraint fails at COMMIT', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  await orm.em.getConnection().execute('alter table todo add constraint late unique (title) deferrable initially deferred')
  await orm.em.fork().insert(Todo, { title: 'taken' })
  const { take } = listen(orm, [rule])

  const em = orm.em.fork()
  add(em, 'taken')
  await assert.rejects(em.flush(), /late/)
  await assert.rejects(orm.em.fork().transactional(async (em) => { add(em, 'taken') }), /late/)
  const begun = orm.em.fork()
  await begun.begin()
  add(begun, 'taken')
  await assert.rejects(begun.commit(), /late/)
  await begun.rollback().catch(() => {})

  assert.deepEqual(take(), [])
})

test('mariadb: does not announce a transaction that a swallowed deadlock rolled back', async (t) => {
  const orm = await openServer(t, 'mariadb', [Todo])
  if (orm === undefined) return
  const { take, logged } = listen(orm, [rule])
  await orm.em.fork().insertMany(Todo, [{ title: 'a' }, { title: 'b' }])
  const lock = (em: EntityManager, id: number) => em.getConnection().execute('update todo set code = code where id = ?', [id], 'run', em.getTransactionContext())
  const one = orm.em.fork()
  const two = orm.em.fork()

  await Promise.all([one.begin(), two.begin()])
  add(one, 'one')
  add(two, 'two')
  await Promise.all([one.flush(), two.flush()])
  await lock(one, 1)
  await lock(two, 2)
  const outcomes = await Promise.allSettled([lock(one, 2), lock(two, 1)])
  const commits = await Promise.allSettled([one.commit(), two.commit()])

  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  assert.deepEqual(commits.map(({ status }) => status), outcomes.map(({ status }) => status))
  for (const commit of commits) {
    if (commit.status === 'rejected') assert.equal(commit.reason.code, 'RP_ERR_ROLLED_BACK')
  }
  assert.deepEqual(take().map((line) => /"title":"(\w+)"/.exec(line)?.[1]), (await titles(orm)).slice(2))
  assert.deepEqual(logged, [])
})

test('mariadb: announces a row with its generated version, whatever is flushed meanwhile', async (t) => {
  const Page = defineEntity({ name: 'Page', properties: { id: p.integer().primary(), title: p.string(), version: p.integer().version() } })
  const orm = await openServer(t, 'mariadb', [Todo, Page])
  if (orm === undefined) return
  const { take } = listen(orm, [notifyOnChange(Page, { group: 'pages', data: ['id', 'version'] })])

  await orm.em.fork().transactional(async (em) => {
    const [pages, todos] = [em.fork({ keepTransactionContext: true }), em.fork({ keepTransactionContext: true })]
    for (let id = 1; id <= 3; id++) pages.create(Page, { id, title: 'new' })
    const state = { isOver: false }
    const flushed = pages.flush().finally(() => { state.isOver = true })
    while (!state.isOver) {
      add(todos, 'meanwhile')
      await todos.flush()
    }
    await flushed
  })

  assert.deepEqual(take(), [1, 2, 3].map((id) => `create pages {"id":${id},"version":1}`))
})

test('postgresql: does not announce a flush that an error aborted which another subscriber swallowed', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo], {
    subscribers: [{
      async afterCreate ({ em }) {
        await em.getConnection().execute('select * from nowhere', [], 'all', em.getTransactionContext()).catch(() => {})
      }
    }]
  })
  if (orm === undefined) return
  const { take } = listen(orm, [rule])

  const em = orm.em.fork()
  add(em, 'one')
  await assert.rejects(em.flush(), /current transaction is aborted/)

  assert.deepEqual(await titles(orm), [])
  assert.deepEqual(take(), [])
})

test('reads rows once before the COMMIT, only of notified entities, and not with readBack: false', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const queries: string[] = []
  t.mock.method(orm.config.getLogger(), 'logQuery', ({ query }: { query: string }) => { queries.push(query) })
  const selects = () => queries.splice(0).filter((query) => query.startsWith('select')).length
  const subscriber = new ChangeSubscriber()
  const connect = (options: object) => subscriber.connect({ orm, notify: [notifyOnChange(Todo, options)], publish () {}, log: { error () {}, warn () {} } })

  connect({ data: ['title'] })
  await orm.em.fork().transactional((em) => em.find(Todo, {}))
  assert.equal(selects(), 1)
  await orm.em.fork().transactional(async (em) => {
    add(em, 'one')
    add(em, 'two')
  })
  assert.equal(selects(), 1)
  await subscriber.disconnect()
  connect({ data: ['title'], readBack: false })
  await orm.em.fork().transactional(async (em) => { add(em, 'three') })
  assert.equal(selects(), 0)
})
