/** Rules with `readBack: false`: the flushed values are sent, and the snapshot of the EntityManager is the row before a change. */
import assert from 'node:assert/strict'
import test, { suite } from 'node:test'
import { defineEntity, p } from '@mikro-orm/core'
import { notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { listen, openServer, openSqlite } from './support.ts'

const readBack = false

suite('readBack: false', () => {
  test('parses JSON columns in the row before a change', async (t) => {
    const Room = defineEntity({ name: 'Room', properties: { id: p.integer().primary(), house: p.string(), plan: p.json<{ floor: number }>() } })
    const orm = await openServer(t, 'postgresql', [Room])
    if (orm === undefined) return
    const { take } = listen(orm, [notifyOnChange(Room, { group: ({ plan }) => `floor-${plan.floor}`, data: ({ house, plan }) => [house, plan], readBack })])
    const em = orm.em.fork()
    const room = em.create(Room, { house: 'a', plan: { floor: 1 } })
    await em.flush()

    room.plan = { floor: 2 }
    room.house = 'b'
    await em.flush()
    em.remove(room)
    await em.flush()

    assert.deepEqual(take(), [
      'create floor-1 ["a",{"floor":1}]',
      'delete floor-1 ["a",{"floor":1}]', 'create floor-2 ["b",{"floor":2}]',
      'delete floor-2 ["b",{"floor":2}]'
    ])
  })

  test('gives to-one relations of each kind their old values in the row before a change', async (t) => {
    const List = defineEntity({ name: 'List', properties: { id: p.integer().primary(), name: p.string() } })
    const Photo = defineEntity({ name: 'Photo', properties: { id: p.integer().primary(), url: p.string() } })
    const Todo = defineEntity({
      name: 'Todo',
      properties: {
        id: p.integer().primary(),
        list: () => p.manyToOne(List).ref(),
        key: () => p.manyToOne(List).mapToPk().nullable(),
        of: () => p.manyToOne([List, Photo]).nullable()
      }
    })
    const orm = await openSqlite(t, [List, Photo, Todo])
    const { take, logged } = listen(orm, [notifyOnChange(Todo, {
      group: ({ list }) => `list-${list.id}`,
      data: ({ list, key, of }) => [list.unwrap().name, key, of && [of.constructor.name, of.id]],
      readBack
    })])
    const em = orm.em.fork()
    const [a, b] = [em.create(List, { name: 'a' }), em.create(List, { name: 'b' })]
    const todo = em.create(Todo, { list: a, of: em.create(Photo, { url: 'x' }) })
    await em.flush()

    Object.assign(todo, { list: em.getReference(List, b.id, { wrapped: true }), key: 1, of: a })
    await em.flush()
    todo.of = null
    await em.flush()

    assert.deepEqual(logged, [])
    assert.deepEqual(take(), [
      'create list-1 ["a",null,["Photo",1]]',
      'delete list-1 ["a",null,["Photo",1]]', 'create list-2 ["b",1,["List",1]]',
      'update list-2 ["b",1,null]'
    ])
  })

  test('sends collections and generated values of the row after a change, but not of the row before', async (t) => {
    const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
    const Todo = defineEntity({
      name: 'Todo',
      properties: { id: p.integer().primary(), list: p.string(), note: p.string().nullable(), version: p.integer().version(), tags: () => p.manyToMany(Tag) }
    })
    const orm = await openSqlite(t, [Todo, Tag])
    const { take, logged } = listen(orm, [notifyOnChange(Todo, { group: '{list}', data: ['version', 'tags', 'note'], readBack })])
    const em = orm.em.fork()
    const todo = em.create(Todo, { list: 'a', tags: [em.create(Tag, {})] })
    await em.flush()

    todo.list = 'b'
    await em.flush()
    for (const populate of [[], ['tags']] as const) {
      const em = orm.em.fork()
      const loaded = await em.findOneOrFail(Todo, 1, { populate })
      loaded.note = String(populate)
      await em.flush()
    }
    assert.deepEqual(logged.splice(0).map(({ property }) => property), ['tags'])
    todo.tags.removeAll()
    await em.flush()

    assert.deepEqual(take(), [
      'create a {"version":1,"tags":[1],"note":null}',
      'delete a {"id":1}', 'create b {"version":2,"tags":[1],"note":null}',
      'update b {"version":4,"tags":[1],"note":"tags","updated_fields":["note","version"]}',
      'update b {"version":4,"tags":[],"note":"tags","updated_fields":["tags"]}'
    ])
    assert.deepEqual(logged, [])
  })

  test('reads upserted rows anyway', async (t) => {
    const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
    const orm = await openSqlite(t, [Todo])
    const { take } = listen(orm, [notifyOnChange(Todo, { group: '{title}', data: ['title'], readBack })])

    await orm.em.fork().upsert(Todo, { id: 1, title: 'one' })
    await orm.em.fork().transactional((em) => em.upsert(Todo, { id: 1, title: 'two' }))

    assert.deepEqual(take(), ['create one {"title":"one"}', 'delete one {"title":"one"}', 'create two {"title":"two"}'])
  })

  test('does not announce a rolled back savepoint, also with another rule for its rows', async (t) => {
    const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
    const orm = await openSqlite(t, [Todo])
    const { take } = listen(orm, [notifyOnChange(Todo, { group: 'unread', readBack }), notifyOnChange(Todo, { group: 'read' })])

    await orm.em.fork().transactional(async (em) => {
      em.create(Todo, { title: 'kept' })
      await em.flush()
      await em.transactional(async (em) => {
        em.create(Todo, { title: 'undone' })
        await em.flush()
        throw new Error('inner')
      }).catch(() => {})
    })

    assert.deepEqual(take(), ['create unread {"id":1}', 'create read {"id":1}'])
  })
})
