/**
 * Notifications recorded from the original library, compared with those of MikroORM. Intended differences are in the expectations
 * and in docs/migrating-from-rohrpost.md.
 */
import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { notifyOnChange, notifyOnCreate, notifyOnUpdate, type NotifyOptions, type NotifyRule } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const make = () => defineEntity({ name: 'Plain', properties: { id: p.integer().primary(), name: p.string(), note: p.string().default('') } })
type Plain = { id: number, name: string, note: string }

async function open (t: TestContext, rules: (entity: ReturnType<typeof make>) => NotifyRule[]) {
  const entity = make()
  const orm = await openSqlite(t, [entity])
  const { take } = listen(orm, rules(entity))
  const em = orm.em.fork()
  return {
    em,
    take,
    create: async (name: string, manager: EntityManager = em) => {
      const row = manager.create(entity, { name })
      await manager.flush()
      return row
    },
    save: async (row: Plain, values: Partial<Plain>) => {
      Object.assign(row, values)
      await em.flush()
    },
    remove: (row: Plain) => em.remove(row).flush()
  }
}

async function createUpdateDelete (t: TestContext, rules: (entity: ReturnType<typeof make>) => NotifyRule[]): Promise<string[]> {
  const { create, save, remove, take } = await open(t, rules)
  const row = await create('n')
  await save(row, { name: 'm' })
  await remove(row)
  return take()
}

const staticGroup = (options: NotifyOptions<Plain> = {}) => (entity: ReturnType<typeof make>) => [notifyOnChange(entity, { group: 'static-group', ...options })]

test('plain create, update, delete (updated_fields is always there)', async (t) => {
  assert.deepEqual(await createUpdateDelete(t, (entity) => [notifyOnChange(entity)]), [
    'create plain-1 {"id":1}',
    'update plain-1 {"id":1,"updated_fields":["name"]}',
    'delete plain-1 {"id":1}'
  ])
})

test('only update', async (t) => {
  assert.deepEqual(await createUpdateDelete(t, (entity) => [notifyOnUpdate(entity)]), ['update plain-1 {"id":1,"updated_fields":["name"]}'])
})

test('create and update', async (t) => {
  assert.deepEqual(await createUpdateDelete(t, (entity) => [notifyOnCreate(entity), notifyOnUpdate(entity)]), [
    'create plain-1 {"id":1}', 'update plain-1 {"id":1,"updated_fields":["name"]}'
  ])
})

test('a static group, two objects', async (t) => {
  const { create, save, remove, take } = await open(t, staticGroup())

  const row = await create('one')
  await create('two')
  await save(row, { name: 'three' })
  await remove(row)

  assert.deepEqual(take(), [
    'create static-group {"id":1}',
    'create static-group {"id":2}',
    'update static-group {"id":1,"updated_fields":["name"]}',
    'delete static-group {"id":1}'
  ])
})

test('data of other kinds than objects (the original failed with updated fields)', async (t) => {
  assert.deepEqual(await createUpdateDelete(t, staticGroup({ data: ({ name, note }) => [name, note] })), [
    'create static-group ["n",""]', 'update static-group ["m",""]', 'delete static-group ["m",""]'
  ])
  assert.deepEqual(await createUpdateDelete(t, staticGroup({ data: () => null })), [
    'create static-group null', 'update static-group null', 'delete static-group null'
  ])
  assert.deepEqual(await createUpdateDelete(t, staticGroup({ data: () => ({}) })), [
    'create static-group {}', 'update static-group {"updated_fields":["name"]}', 'delete static-group {}'
  ])
})

test('two updated fields', async (t) => {
  const { create, save, take } = await open(t, (entity) => [notifyOnUpdate(entity)])

  await save(await create('n'), { note: 'x', name: 'm' })

  assert.deepEqual(take(), ['update plain-1 {"id":1,"updated_fields":["name","note"]}'])
})

test('an update that touches nothing of the data is not sent with always_send off', async (t) => {
  const { create, save, remove, take } = await open(t, (entity) => [notifyOnChange(entity, { data: ['id', 'name'], alwaysSend: false })])

  const row = await create('n')
  await save(row, { name: 'm' })
  await save(row, { note: 'x' })
  await save(row, { note: 'y', name: 'o' })
  await save(row, {})
  await remove(row)

  assert.deepEqual(take(), [
    'create plain-1 {"id":1,"name":"n"}',
    'update plain-1 {"id":1,"name":"m","updated_fields":["name"]}',
    'update plain-1 {"id":1,"name":"o","updated_fields":["name","note"]}',
    'delete plain-1 {"id":1,"name":"o"}'
  ])
})

test('keys that were there before: 7, 0, a UUID, a slug (the original took all but 0 for updates)', async (t) => {
  const Uuid = defineEntity({ name: 'UuidPk', properties: { id: p.uuid().primary() } })
  const Slug = defineEntity({ name: 'SlugPk', properties: { slug: p.string().primary() } })
  const entity = make()
  const orm = await openSqlite(t, [entity, Uuid, Slug])
  const { take } = listen(orm, [notifyOnCreate(entity), notifyOnChange(Uuid), notifyOnChange(Slug)])
  const em = orm.em.fork()

  for (const id of [7, 0]) {
    em.create(entity, { id, name: 'n' })
    await em.flush()
  }
  em.create(Uuid, { id: '3265e5a9-29bf-4fce-af93-7fc04cdb1e7b' })
  await em.flush()
  em.create(Slug, { slug: 'abc' })
  await em.flush()

  assert.deepEqual(take(), [
    'create plain-7 {"id":7}',
    'create plain-0 {"id":0}',
    'create uuidpk-3265e5a9-29bf-4fce-af93-7fc04cdb1e7b {"id":"3265e5a9-29bf-4fce-af93-7fc04cdb1e7b"}',
    'create slugpk-abc {"id":"abc"}'
  ])
})

test('a delete that the database refuses is not announced', async (t) => {
  const entity = make()
  const Child = defineEntity({ name: 'Child', properties: { id: p.integer().primary(), parent: () => p.manyToOne(entity).deleteRule('restrict') } })
  const orm = await openSqlite(t, [entity, Child])
  const { take } = listen(orm, [notifyOnChange(entity)])
  const em = orm.em.fork()

  em.create(Child, { parent: em.create(entity, { name: 'n' }) })
  await em.flush()
  const other = orm.em.fork()
  other.remove(other.getReference(entity, 1))
  await assert.rejects(other.flush(), /FOREIGN KEY/)

  assert.deepEqual(take(), ['create plain-1 {"id":1}'])
})

test('atomic blocks: nested ones, rolled back inside, in the middle and outside', async (t) => {
  const { em, create, take } = await open(t, staticGroup({ data: ['name'] }))
  const undone = async (work: Promise<unknown>) => { await assert.rejects(work, /rolled back/) }
  const fail = () => { throw new Error('rolled back') }

  await em.transactional(async (em) => {
    await create('outer', em)
    await undone(em.transactional(async (em) => {
      await create('inner', em)
      fail()
    }))
    await create('outer2', em)
  })
  assert.deepEqual(take(), ['create static-group {"name":"outer"}', 'create static-group {"name":"outer2"}'])

  await undone(em.transactional(async (em) => {
    await create('outer', em)
    await em.transactional((em) => create('inner', em))
    fail()
  }))
  assert.deepEqual(take(), [])

  await em.transactional(async (em) => {
    await create('l1', em)
    await undone(em.transactional(async (em) => {
      await create('l2', em)
      await em.transactional((em) => create('l3', em))
      fail()
    }))
    await create('l1b', em)
  })
  assert.deepEqual(take(), ['create static-group {"name":"l1"}', 'create static-group {"name":"l1b"}'])
})
