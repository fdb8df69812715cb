import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { notifyOnChange, notifyOnCreate, notifyOnDelete, notifyOnUpdate, type NotifyRule } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const List = defineEntity({
  name: 'List',
  properties: { id: p.integer().primary(), name: p.string() }
})

const Todo = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    slug: p.string().nullable().unique(),
    list: () => p.manyToOne(List).nullable()
  }
})

const byList = { group: 'list-{list}', data: ['id', 'title'] } as const

/** Opens an ORM with two lists, and todo 1 in the first list. */
async function open (t: TestContext, rules: NotifyRule[] = [notifyOnChange(Todo, byList)]) {
  const orm = await openSqlite(t, [List, Todo])
  const heard = listen(orm, rules)
  const em = orm.em.fork()
  const a = em.create(List, { name: 'a' })
  const b = em.create(List, { name: 'b' })
  const todo = em.create(Todo, { title: 'one', list: a })
  await em.flush()
  heard.take()
  return { orm, em, a, b, todo, ...heard }
}

test('announces a move as a delete with the old values in the old group, and a create in the new group', async (t) => {
  const { em, b, todo, take } = await open(t)

  todo.list = b
  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-2 {"id":1,"title":"two"}'])
})

test('announces a create for a row that enters its groups, and a delete for a row that leaves all groups', async (t) => {
  const { em, a, todo, take } = await open(t)

  todo.list = null
  await em.flush()
  todo.list = a
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-1 {"id":1,"title":"one"}'])
})

test('announces nothing of a row that is created and deleted in one transaction', async (t) => {
  const { em, take } = await open(t)

  await em.transactional(async (em) => {
    const todo = em.create(Todo, { title: 'short', list: 1 })
    await em.flush()
    todo.title = 'shorter'
    await em.flush()
    em.remove(todo)
  })

  assert.deepEqual(take(), [])
})

test('announces the delete of a row that moved in the same transaction to the group before the move', async (t) => {
  const { em, b, todo, take } = await open(t)

  await em.transactional(async (em) => {
    todo.list = b
    todo.title = 'two'
    await em.flush()
    em.remove(todo)
  })

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
})

test('announces an update for a row that moves there and back in one transaction', async (t) => {
  const { em, a, b, todo, take } = await open(t)

  await em.transactional(async (em) => {
    todo.list = b
    await em.flush()
    todo.list = a
    todo.title = 'two'
    await em.flush()
  })

  assert.deepEqual(take(), ['update list-1 {"id":1,"title":"two","updated_fields":["list","title"]}'])
})

test('announces the delete of a row that moved in memory only to its group in the database', async (t) => {
  const { em, b, todo, take } = await open(t)

  todo.list = b
  todo.title = 'never flushed'
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
})

test('announces a delete and a create for a row that is deleted and created again with its key', async (t) => {
  const { em, b, todo, take } = await open(t)

  await em.transactional(async (em) => {
    em.remove(todo)
    await em.flush()
    em.create(Todo, { id: 1, title: 'new', list: b.id })
    await em.flush()
  })
  const again = await em.fork().findOneOrFail(Todo, 1)

  assert.equal(again.title, 'new')
  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-2 {"id":1,"title":"new"}'])
})

test('announces a row that takes the unique value of a deleted row after the delete', async (t) => {
  const { em, a, todo, take } = await open(t)
  todo.slug = 'unique'
  await em.flush()
  take()

  em.remove(todo)
  em.create(Todo, { title: 'new', slug: 'unique', list: a })
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-1 {"id":2,"title":"new"}'])
})

test('announces both rows that pass on a unique value, in any order of the statements', async (t) => {
  const { em, a, todo, take } = await open(t, [notifyOnUpdate(Todo, { data: ['slug'] })])
  const other = em.create(Todo, { title: 'other', slug: 'other', list: a })
  todo.slug = 'one'
  await em.flush()
  take()

  other.slug = 'one'
  todo.slug = null
  await em.flush()

  assert.deepEqual(take().sort(), [
    'update todo-1 {"slug":null,"updated_fields":["slug"]}',
    'update todo-2 {"slug":"one","updated_fields":["slug"]}'
  ])
})

test('announces the last state of a row that is replaced twice in one transaction', async (t) => {
  const { em, a, todo, take } = await open(t)

  await em.transactional(async (em) => {
    em.remove(todo)
    await em.flush()
    const second = em.create(Todo, { id: 1, title: 'second', list: a.id })
    await em.flush()
    em.remove(second)
    await em.flush()
    em.create(Todo, { id: 1, title: 'third', list: a.id })
  })

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-1 {"id":1,"title":"third"}'])
})

test('announces a changed key as a delete of the old key and a create of the new key', async (t) => {
  const { em, todo, take } = await open(t, [notifyOnChange(Todo)])

  todo.id = 7
  await em.flush()
  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['delete todo-1 {"id":1}', 'create todo-7 {"id":7}', 'update todo-7 {"id":7,"updated_fields":["title"]}'])
})

test('orders creates and updates by the first change of their row, deletes by the last', async (t) => {
  const { em, a, todo, take } = await open(t)

  await em.transactional(async (em) => {
    todo.title = 'changed, then deleted'
    const second = em.create(Todo, { title: 'second', list: a.id })
    await em.flush()
    em.create(Todo, { title: 'third', list: a.id })
    await em.flush()
    second.title = 'second again'
    em.remove(todo)
  })

  assert.deepEqual(take(), [
    'create list-1 {"id":2,"title":"second again"}',
    'create list-1 {"id":3,"title":"third"}',
    'delete list-1 {"id":1,"title":"one"}'
  ])
})

test('matches the type of a rule with the change of the row, not with the type of each notification', async (t) => {
  const { em, b, todo, take } = await open(t, [notifyOnUpdate(Todo, byList)])

  todo.list = b
  await em.flush()
  em.create(Todo, { title: 'new', list: b })
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-2 {"id":1,"title":"one"}'])
})

test('notifyOnCreate announces the last state of a row that is created and updated in one transaction', async (t) => {
  const { em, b, take } = await open(t, [notifyOnCreate(Todo, byList)])

  await em.transactional(async (em) => {
    const todo = em.create(Todo, { title: 'first', list: 1 })
    await em.flush()
    todo.title = 'last'
    todo.list = em.getReference(List, b.id)
    await em.flush()
  })

  assert.deepEqual(take(), ['create list-2 {"id":2,"title":"last"}'])
})

test('notifyOnDelete announces the delete of a moved row to the group before the move', async (t) => {
  const { em, b, todo, take } = await open(t, [notifyOnDelete(Todo, byList)])

  await em.transactional(async (em) => {
    todo.list = b
    await em.flush()
    em.remove(todo)
  })

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
})

test('accepts several groups, none, or the same group twice from a group function', async (t) => {
  const groups: Record<string, string[] | string | null> = { one: ['x', 'y', 'x'], two: 'y', three: null, four: [] }
  const { em, todo, take } = await open(t, [notifyOnChange(Todo, { group: (todo) => groups[todo.title] ?? null })])

  for (const title of ['two', 'three', 'one', 'four']) {
    todo.title = title
    await em.flush()
  }

  assert.deepEqual(take(), [
    'delete x {"id":1}', 'update y {"id":1,"updated_fields":["title"]}',
    'delete y {"id":1}',
    'create x {"id":1}', 'create y {"id":1}',
    'delete x {"id":1}', 'delete y {"id":1}'
  ])
})

test('calls a group function with a view of the row before its change', async (t) => {
  const seen: unknown[] = []
  const { em, b, todo } = await open(t, [notifyOnUpdate(Todo, {
    populate: ['list'],
    group: (todo, type) => {
      seen.push([type, todo.title, todo.list?.id, todo.list?.name, todo instanceof Todo.class])
      return 'all'
    }
  })])

  todo.list = b
  todo.title = 'two'
  await em.flush()

  assert.deepEqual(seen, [['update', 'two', 2, 'b', true], ['update', 'one', 1, 'a', true]])
})

test('encodes keys, values and keys of relations in a template', async (t) => {
  const group = 'todo-{pk}/{id}/{slug}/{list}'
  const { em, todo, take } = await open(t, [notifyOnChange(Todo, { group })])

  todo.slug = 'ä b:c/{d}'
  await em.flush()
  todo.slug = ''
  await em.flush()

  assert.deepEqual(take(), [
    'create todo-1/1/%C3%A4%20b%3Ac%2F%7Bd%7D/1 {"id":1}',
    'delete todo-1/1/%C3%A4%20b%3Ac%2F%7Bd%7D/1 {"id":1}',
    'create todo-1/1//1 {"id":1}'
  ])
})

test('reports an invalid group with entity and key, and publishes to the valid groups', async (t) => {
  const given = ['fine', '', 'a b', 'ü', 'x'.repeat(201), 7, null]
  const { em, todo, take, logged } = await open(t, [notifyOnUpdate(Todo, { group: () => given as string[] })])

  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update fine {"id":1,"updated_fields":["title"]}'])
  assert.ok(logged.every(({ level, entity, key }) => level === 'error' && entity === 'Todo' && key === '1'))
  assert.deepEqual(new Set(logged.map(({ err }) => err && 'code' in err && err.code)), new Set(['RP_ERR_INVALID_GROUP']))
  assert.match(String(logged[0]?.err), /""/)
})

test('reports invalid results of a group function, and the flush succeeds', async (t) => {
  const rubbish: unknown[] = [7, true, {}, Promise.resolve('x'), Promise.reject(new Error('late')), () => 'x', Symbol('x')]
  const { orm, em, todo, take, logged } = await open(t, [notifyOnUpdate(Todo, { group: () => rubbish[0] as string })])

  for (let i = 0; rubbish.length > 0; i++) {
    todo.title = `title ${i}`
    await em.flush()
    assert.ok(logged.splice(0).length > 0, `nothing was logged of ${String(rubbish[0])}`)
    rubbish.shift()
  }

  assert.deepEqual(take(), [])
  assert.equal((await orm.em.fork().findOneOrFail(Todo, 1)).title, 'title 6')
})

test('reports a group function that throws with entity and key, and the flush succeeds', async (t) => {
  const { em, todo, take, logged } = await open(t, [
    notifyOnUpdate(Todo, { group: () => { throw new Error('no idea') } }),
    notifyOnUpdate(Todo)
  ])

  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update todo-1 {"id":1,"updated_fields":["title"]}'])
  assert.deepEqual(logged.map(({ level, entity, key, err }) => [level, entity, key, err?.message]), [['error', 'Todo', '1', 'no idea']])
})

test('announces an update to the new groups if the old groups are not known', async (t) => {
  const { em, todo, take, logged } = await open(t, [notifyOnUpdate(Todo, {
    group: ({ title }) => {
      if (title === 'one') throw new Error('no idea')
      return 'all'
    }
  })])

  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update all {"id":1,"updated_fields":["title"]}'])
  assert.equal(logged.length, 1)
})

test('readBack: false drops a row whose group is not loaded, with one warning that names the property', async (t) => {
  const { orm, take, logged } = await open(t, [notifyOnChange(Todo, { ...byList, readBack: false })])
  const change = async (em: EntityManager, title: string) => {
    const todo = await em.findOneOrFail(Todo, 1, { fields: ['title'] })
    todo.title = title
    await em.flush()
  }

  await change(orm.em.fork(), 'two')
  await change(orm.em.fork(), 'three')

  assert.deepEqual(take(), [])
  assert.deepEqual(logged.map(({ level, property, entity, key }) => ({ level, property, entity, key })), [
    { level: 'warn', property: 'list', entity: 'Todo', key: '1' }
  ])
  assert.match(logged[0]?.message ?? '', /'list' is not loaded/)
})

test('announces the removal of an unloaded reference with the row of the database', async (t) => {
  const { orm, take, logged } = await open(t, [notifyOnChange(Todo, byList), notifyOnChange(Todo)])

  const em = orm.em.fork()
  em.remove(em.getReference(Todo, 1))
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'delete todo-1 {"id":1}'])
  assert.deepEqual(logged, [])
})

test('announces the update of an unloaded reference with the row of the database', async (t) => {
  const { orm, take, logged } = await open(t, [notifyOnChange(Todo, { group: ({ list }) => `list-${list?.id}` }), notifyOnChange(Todo)])

  const em = orm.em.fork()
  em.getReference(Todo, 1).title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update list-1 {"id":1,"updated_fields":["title"]}', 'update todo-1 {"id":1,"updated_fields":["title"]}'])
  assert.deepEqual(logged, [])
})

test('announces the delete of a row that never existed', async (t) => {
  const { orm, take } = await open(t, [notifyOnChange(Todo)])

  const em = orm.em.fork()
  em.remove(em.getReference(Todo, 99))
  em.remove(em.create(Todo, { id: 98, title: 'never persisted' }, { persist: false }))
  await em.flush()

  assert.deepEqual(take(), ['delete todo-99 {"id":99}', 'delete todo-98 {"id":98}'])
})

test('announces an entity that is used after a rollback with the row of the database', async (t) => {
  const { em, b, todo, take } = await open(t)

  await em.transactional(async (em) => {
    await em.transactional(async (em) => {
      todo.list = b
      todo.title = 'undone'
      await em.flush()
      throw new Error('inner')
    }).catch(() => {})
    todo.slug = 'kept'
  })
  assert.deepEqual(take(), ['update list-1 {"id":1,"title":"one","updated_fields":["slug"]}'])

  todo.slug = 'kept again'
  await em.flush()
  assert.deepEqual(take(), ['update list-1 {"id":1,"title":"one","updated_fields":["slug"]}'])

  await em.refresh(todo)
  todo.title = 'two'
  await em.flush()
  assert.deepEqual(take(), ['update list-1 {"id":1,"title":"two","updated_fields":["title"]}'])
})

test('announces an entity that is used after two nested rollbacks with the row of the database', async (t) => {
  const { em, a, b, todo, take } = await open(t)

  await em.begin()
  todo.list = b
  await em.flush()
  await em.transactional(async (em) => {
    todo.list = a
    await em.flush()
    throw new Error('inner')
  }).catch(() => {})
  todo.title = 'undone'
  await em.flush()
  todo.slug = 'undone too'
  await em.flush()
  await em.rollback()
  todo.list = b
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}', 'create list-2 {"id":1,"title":"one"}'])
})

test('does not announce an entity whose INSERT was rolled back', async (t) => {
  const { em, a, take } = await open(t)

  await em.begin()
  const ghost = em.create(Todo, { title: 'ghost', list: a })
  await em.flush()
  ghost.title = 'ghost, changed'
  await em.flush()
  await em.rollback()
  ghost.title = 'ghost, changed again'
  await em.flush()
  assert.deepEqual(take(), [])

  em.remove(ghost)
  await em.flush()
  assert.deepEqual(take(), [])
})

test('announces a delete that is repeated after a rollback', async (t) => {
  const { orm, take } = await open(t)
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  const remove = (em: EntityManager, fails: boolean) => em.transactional(async (em) => {
    em.remove(todo)
    await em.flush()
    if (fails) throw new Error('deadlock')
  })

  await assert.rejects(remove(em, true), /deadlock/)
  await assert.rejects(remove(em, true), /deadlock/)
  await em.transactional(async (em) => {
    await assert.rejects(remove(em, true), /deadlock/)
    await remove(em, false)
  })

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
})

test('announces a repeated move and delete to the group before the move, after both were rolled back once', async (t) => {
  const { em, b, todo, take } = await open(t)

  await em.begin()
  todo.list = b
  await em.flush()
  em.remove(todo)
  await em.flush()
  await em.rollback()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
})

test('does not announce a second delete of a row', async (t) => {
  const { orm, take, logged } = await open(t)
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)

  em.remove(todo)
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['delete list-1 {"id":1,"title":"one"}'])
  assert.deepEqual(logged, [])
})

for (const how of ['refresh', 'find'] as const) {
  test(`takes an entity that is loaded after a rollback (${how}) as the new state of its row`, async (t) => {
    const { orm, a, b, take } = await open(t)
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1)
    const c = await orm.em.fork().insert(List, { name: 'c' })

    await em.begin()
    todo.list = em.getReference(List, b.id)
    await em.flush()
    await em.rollback()
    const other = orm.em.fork()
    const moved = await other.findOneOrFail(Todo, 1)
    moved.list = other.getReference(List, c)
    moved.slug = 'theirs'
    await other.flush()
    take()
    if (how === 'refresh') await em.refresh(todo)
    else await em.find(Todo, {})
    todo.title = 'two'
    await em.flush()
    assert.deepEqual(take(), ['update list-3 {"id":1,"title":"two","updated_fields":["title"]}'])

    todo.list = em.getReference(List, a.id)
    await em.flush()
    assert.deepEqual(take(), ['delete list-3 {"id":1,"title":"two"}', 'create list-1 {"id":1,"title":"two"}'])
  })
}

test('sends a property that is loaded for the first time after a rollback', async (t) => {
  const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), title: p.string(), text: p.text().lazy() } })
  const orm = await openSqlite(t, [Note])
  await orm.em.fork().insert(Note, { title: 'one', text: 'long' })
  const { take } = listen(orm, [notifyOnChange(Note, { data: ['title', 'text'] })])
  const em = orm.em.fork()
  const note = await em.findOneOrFail(Note, 1)

  await em.begin()
  note.title = 'undone'
  await em.flush()
  await em.rollback()
  await em.populate(note, ['text'])
  note.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update note-1 {"title":"two","text":"long","updated_fields":["title"]}'])
})
