import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, RequestContext, type EntityName } from '@mikro-orm/core'
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost, { memoryBroker } from '../../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm, type ChangeType } from '../../lib/mikro-orm/index.ts'
import { makeNotify } from '../../lib/mikro-orm/notify.ts'
import { record } from '../support/events.ts'
import { listen, openServer, openSqlite } from './support.ts'

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string(), list: p.string() } })
const Seat = defineEntity({ name: 'Seat', properties: { row: p.string().primary(), place: p.integer().primary() } })
const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary() } })

async function open (t: TestContext) {
  const orm = await openSqlite(t, [Todo, Seat])
  const other = await openSqlite(t, [Note], { contextName: 'other' })
  const told: string[] = []
  const warnings: Array<{ msg: string }> = []
  const app = Fastify({ logger: { level: 'warn', stream: { write: (line: string) => { if (!line.includes('ignore this')) warnings.push(readLine(line)) } } } })
  t.after(() => app.close())
  const broker = {
    ...memoryBroker(),
    publish (_group: string, payload: string) {
      const { group, type, object } = JSON.parse(payload).data
      told.push(`${type} ${group} ${JSON.stringify(object)}`)
    }
  }
  app.register(rohrpost, { broker })
  app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'] }), notifyOnChange(Todo), notifyOnChange(Seat)] })
  app.register(rohrpostMikroOrm, { orm: other, notify: [notifyOnChange(Note)] })
  await app.ready()
  const em = orm.em.fork()
  await em.insertMany(Todo, [{ title: 'one', list: 'a' }, { title: 'two', list: 'b' }])
  await em.insert(Seat, { row: 'A', place: 1 })
  return { app, orm, other, em, notify: app.rohrpost.notify, take: () => told.splice(0), warnings }
}

/** Parses a log line, without the fields of every line and without the error. */
function readLine (line: string): { msg: string } {
  const { level: _, time: __, pid: ___, hostname: ____, err: _____, ...rest } = JSON.parse(line)
  return rest
}

test('announces a native query by key, with the row of the database', async (t) => {
  const { em, notify, take } = await open(t)
  await em.find(Todo, {})
  await em.nativeUpdate(Todo, { id: 1 }, { title: 'changed' })

  await notify(Todo, 1, 'create')
  await notify(Todo, 1, 'update', { updatedFields: ['title', 'title'], em })
  await notify(Todo, 1, 'update')
  await notify(Seat, ['A', 1], 'create')
  await notify(Todo, 99, 'update')

  assert.deepEqual(take(), [
    'create list-a {"id":1,"title":"changed"}', 'create todo-1 {"id":1}',
    'update list-a {"id":1,"title":"changed","updated_fields":["title"]}', 'update todo-1 {"id":1,"updated_fields":["title"]}',
    'update list-a {"id":1,"title":"changed"}', 'update todo-1 {"id":1}',
    'create seat-A:1 {"id":{"row":"A","place":1}}'
  ])
})

test('announces a delete by key if the key is enough, and by an entity in memory', async (t) => {
  const { em, notify, take } = await open(t)
  const todo = await em.findOneOrFail(Todo, 1)
  await em.nativeDelete(Todo, { id: [1, 2] })

  await notify(Todo, todo, 'delete')
  await notify(Todo, 2, 'delete')

  assert.deepEqual(take(), ['delete list-a {"id":1,"title":"one"}', 'delete todo-1 {"id":1}', 'delete todo-2 {"id":2}'])
})

test('publishes at the COMMIT of the given EntityManager, and not after its ROLLBACK', async (t) => {
  const { em, notify, take } = await open(t)

  await em.transactional(async (em) => {
    await em.nativeUpdate(Todo, { id: 1 }, { title: 'changed' })
    await notify(Todo, 1, 'update', { em, updatedFields: ['title'] })
    const todo = await em.findOneOrFail(Todo, 1)
    todo.list = 'b'
    await em.flush()
    assert.deepEqual(take(), [])
  })
  await assert.rejects(em.transactional(async (em) => {
    await notify(Todo, 1, 'delete', { em })
    throw new Error('undone')
  }))

  assert.deepEqual(take(), [
    'delete list-a {"id":1,"title":"changed"}', 'create list-b {"id":1,"title":"changed"}',
    'update todo-1 {"id":1,"updated_fields":["title","list"]}'
  ])
})

test('works with several ORMs', async (t) => {
  const { other, notify, take } = await open(t)
  await other.em.fork().insert(Note, {})

  await notify(Note, 1, 'create')

  assert.deepEqual(take(), ['create note-1 {"id":1}'])
})

test('is the same function on all Fastify instances', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = Fastify()
  t.after(() => app.close())
  const instances: FastifyInstance[] = []
  await app.register(rohrpost)
  await app.register(async (instance) => { instances.push(instance) })
  await app.register(rohrpostMikroOrm, { orm })
  await app.register(async (instance) => { instances.push(instance) })

  assert.deepEqual(instances.map(({ rohrpost }) => rohrpost.notify), [app.rohrpost.notify, app.rohrpost.notify])
  assert.equal(typeof app.rohrpost.notify, 'function')
})

test('reads the rows of many keys, or of a condition, with one query', async (t) => {
  const { orm, em, notify, take } = await open(t)
  await em.insert(Seat, { row: 'B', place: 2 })
  const queries: string[] = []
  t.mock.method(orm.config.getLogger(), 'logQuery', ({ query }: { query: string }) => { queries.push(query) })

  await notify(Todo, [1, 2], 'update')
  assert.equal(queries.splice(0).filter((query) => query.startsWith('select')).length, 1)
  await notify(Todo, { title: 'two' }, 'create')
  await notify(Seat, [['A', 1], ['B', 2]] as never, 'create')
  await notify(Seat, { row: 'B' }, 'update')
  await notify(Seat, { row: 'B', place: 2 }, 'update')

  assert.deepEqual(take(), [
    'update list-a {"id":1,"title":"one"}', 'update todo-1 {"id":1}', 'update list-b {"id":2,"title":"two"}', 'update todo-2 {"id":2}',
    'create list-b {"id":2,"title":"two"}', 'create todo-2 {"id":2}',
    'create seat-A:1 {"id":{"row":"A","place":1}}', 'create seat-B:2 {"id":{"row":"B","place":2}}',
    'update seat-B:2 {"id":{"row":"B","place":2}}', 'update seat-B:2 {"id":{"row":"B","place":2}}'
  ])
})

test('warns of a row that does not exist, and does not announce it', async (t) => {
  const { notify, take, warnings } = await open(t)

  await notify(Todo, [99, 1], 'update')
  await notify(Todo, { title: 'nobody' }, 'update')

  assert.deepEqual(take(), ['update list-a {"id":1,"title":"one"}', 'update todo-1 {"id":1}'])
  assert.deepEqual(warnings, [{ entity: 'Todo', key: '99', msg: 'a change is not announced: the row is not there' }])
})

test('rejects if a row cannot be read, and releases the connection', async (t) => {
  const { orm, notify, take } = await open(t)
  await orm.em.getConnection().execute('alter table todo rename to other')

  await assert.rejects(notify(Todo, 1, 'update'), /no such table/)
  await orm.em.getConnection().execute('alter table other rename to todo')
  await notify(Seat, ['A', 1], 'create')

  assert.deepEqual(take(), ['create seat-A:1 {"id":{"row":"A","place":1}}'])
})

test('logs the error if the row of an upsert cannot be read, and the upsert succeeds', async (t) => {
  const { orm, take, em, warnings } = await open(t)
  const begin = t.mock.method(orm.em.getConnection(), 'begin', () => Promise.reject(new Error('no connection')))

  await em.upsert(Seat, { row: 'C', place: 3 })

  assert.equal(begin.mock.callCount(), 1)
  assert.equal(await em.count(Seat), 2)
  assert.deepEqual(take(), [])
  assert.deepEqual(warnings.map(({ msg }) => msg), ['a change is not announced'])
})

test('uses the current transaction of the RequestContext', async (t) => {
  const { orm, notify, take } = await open(t)

  await RequestContext.create(orm.em, () => orm.em.transactional(async () => {
    await orm.em.nativeUpdate(Todo, { id: 1 }, { title: 'new' })
    await notify(Todo, 1, 'update')
    assert.deepEqual(take(), [])
  }))

  assert.deepEqual(take(), ['update list-a {"id":1,"title":"new"}', 'update todo-1 {"id":1}'])
})

for (const server of ['postgresql', 'mariadb'] as const) {
  test(`${server}: reads existing rows by key, and announces only the key of deleted rows`, async (t) => {
    const orm = await openServer(t, server, [Todo])
    if (orm === undefined) return
    const { subscriber, take, logged } = listen(orm, [
      notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'] }),
      notifyOnChange(Todo, { group: 'todo-{id}', data: ['title', 'id'] }),
      notifyOnChange(Todo, { group: 'key-{id}' })
    ])
    const drops = record(t, 'drop')
    const notify = makeNotify(orm, subscriber, undefined)
    await orm.em.fork().insertMany(Todo, [{ id: 1, title: 'one', list: 'a' }, { id: 2, title: 'two', list: 'b' }])
    const two = await orm.em.fork().findOneOrFail(Todo, 2)

    await notify(Todo, [1, 7], 'update')
    assert.deepEqual(take(), ['update list-a {"id":1,"title":"one"}', 'update todo-1 {"title":"one","id":1}', 'update key-1 {"id":1}'])
    await orm.em.fork().transactional(async (em) => {
      await em.nativeDelete(Todo, { id: 1 })
      await notify(Todo, 1, 'delete', { em })
    })
    assert.deepEqual(take(), ['delete list-a {"id":1,"title":"one"}', 'delete todo-1 {"title":"one","id":1}', 'delete key-1 {"id":1}'])
    await orm.em.fork().nativeDelete(Todo, { id: 2 })
    await notify(Todo, two, 'delete')
    assert.deepEqual(take(), ['delete list-b {"id":2,"title":"two"}', 'delete todo-2 {"title":"two","id":2}', 'delete key-2 {"id":2}'])
    await notify(Todo, 2, 'delete')

    assert.deepEqual(take(), ['delete todo-2 {"id":2}', 'delete key-2 {"id":2}'])
    assert.deepEqual(logged.map(({ key, message }) => [key, message]), [7, 2].map((key) => [String(key), 'a change is not announced: the row is not there']))
    assert.deepEqual(new Set(drops.drop.map(({ reason }) => reason)), new Set(['missing']))
  })
}

test('never publishes an older state after a newer one', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  const { subscriber, take } = listen(orm, [notifyOnChange(Todo, { group: 'todos', data: ['title'] })])
  const notify = makeNotify(orm, subscriber, undefined)
  await orm.em.fork().insert(Todo, { id: 1, title: 'old', list: 'a' })
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)

  await em.begin()
  todo.title = 'new'
  await em.flush()
  // `notify` waits for the lock of the row
  const notified = notify(Todo, 1, 'update')
  await em.commit()
  await notified

  assert.deepEqual(take(), ['update todos {"title":"new","updated_fields":["title"]}', 'update todos {"title":"new"}'])
})

test('refuses unknown entities, properties and types', async (t) => {
  const { notify } = await open(t)
  const wrong = notify as (entity: EntityName, key: unknown, type: string, options?: object) => Promise<void>
  class Stranger {}
  const Unknown = defineEntity({ name: 'Unknown', properties: { id: p.integer().primary() } })

  await assert.rejects(wrong(Stranger, 1, 'create'), { code: 'RP_ERR_UNKNOWN_ENTITY', message: /Stranger/ })
  await assert.rejects(wrong(Unknown, 1, 'create'), { code: 'RP_ERR_UNKNOWN_ENTITY', message: /Unknown/ })
  await assert.rejects(wrong(Todo, 1, 'insert' as ChangeType), { code: 'RP_ERR_INVALID_OPTION', message: /insert/ })
  await assert.rejects(wrong(Todo, 1, 'update', { updatedFields: ['nope'] }), { code: 'RP_ERR_UNKNOWN_PROPERTY', message: /nope/ })
})
