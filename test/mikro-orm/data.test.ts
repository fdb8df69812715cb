import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, wrap, type EntityName } from '@mikro-orm/core'
import { notifyOnChange, notifyOnUpdate, type NotifyOptions } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const User = defineEntity({
  name: 'User',
  properties: {
    id: p.integer().primary(),
    name: p.string(),
    password: p.string().hidden().nullable()
  }
})

const TodoSchema = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    done: p.boolean().default(false),
    secret: p.string().hidden().nullable(),
    note: p.text().nullable(),
    due: p.datetime().nullable(),
    size: p.bigint().nullable(),
    price: p.decimal().nullable(),
    labels: p.json<string[]>().nullable(),
    changed: p.integer().onUpdate(() => 42).nullable(),
    owner: () => p.manyToOne(User).nullable()
  }
})
class Todo extends TodoSchema.class {}
TodoSchema.setClass(Todo)

async function open (t: TestContext, options: NotifyOptions<Todo>) {
  const orm = await openSqlite(t, [User, TodoSchema])
  const heard = listen(orm, [notifyOnChange(Todo, options)])
  const em = orm.em.fork()
  const todo = em.create(Todo, { title: 'one' })
  await em.flush()
  return { orm, em, todo, ...heard }
}

test('sends the primary key by default', async (t) => {
  const { em, todo, take } = await open(t, {})

  todo.title = 'two'
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), [
    'create todo-1 {"id":1}',
    'update todo-1 {"id":1,"updated_fields":["title","changed"]}',
    'delete todo-1 {"id":1}'
  ])
})

test('sends named properties as MikroORM serializes them: relations as keys, null as null', async (t) => {
  const { em, todo, take } = await open(t, { data: ['id', 'done', 'note', 'due', 'size', 'price', 'labels', 'owner'] })

  todo.owner = em.create(User, { name: 'Ada' })
  todo.due = new Date('2030-01-01T12:00:00Z')
  todo.size = 9007199254740991n
  todo.price = '12.30'
  todo.labels = ['x']
  todo.done = true
  await em.flush()
  em.remove(todo)
  await em.flush()

  const last = '{"id":1,"done":true,"note":null,"due":"2030-01-01T12:00:00.000Z","size":"9007199254740991","price":"12.3","labels":["x"],"owner":1'
  assert.deepEqual(take(), [
    'create todo-1 {"id":1,"done":false,"note":null,"due":null,"size":null,"price":null,"labels":null,"owner":null}',
    `update todo-1 ${last},"updated_fields":["done","due","size","price","labels","owner","changed"]}`,
    `delete todo-1 ${last}}`
  ])
})

test('never sends or names a hidden property, even if a rule names it', async (t) => {
  const { em, todo, take } = await open(t, { data: ['title', 'secret'] })

  todo.secret = 'hush'
  await em.flush()

  assert.deepEqual(take(), ['create todo-1 {"title":"one"}', 'update todo-1 {"title":"one","updated_fields":["changed"]}'])
})

test('passes the entity, the type and the changed properties to a data function', async (t) => {
  const seen: unknown[] = []
  const { em, todo, take } = await open(t, {
    data: (todo, context) => {
      seen.push([todo instanceof Todo, context])
      return { text: todo.title }
    }
  })

  todo.title = 'two'
  todo.secret = 'hush'
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['create todo-1 {"text":"one"}', 'update todo-1 {"text":"two","updated_fields":["title","changed"]}', 'delete todo-1 {"text":"two"}'])
  assert.deepEqual(seen, [
    [true, { type: 'create', updatedFields: [] }],
    [true, { type: 'update', updatedFields: ['title', 'changed'] }],
    [true, { type: 'delete', updatedFields: [] }]
  ])
})

test('sends JSON values of any kind, and adds updated_fields to objects that lack it', async (t) => {
  const values = [[1], null, 'text', 7, {}, { updated_fields: 'mine' }, new Map([['a', 1]]), new Date(0)]
  let value: unknown
  const { em, todo, take } = await open(t, { data: () => value ?? null })
  take()

  for (value of values) {
    todo.title += '.'
    await em.flush()
  }

  assert.deepEqual(take(), [
    'update todo-1 [1]',
    'update todo-1 null',
    'update todo-1 "text"',
    'update todo-1 7',
    'update todo-1 {"updated_fields":["title"]}',
    'update todo-1 {"updated_fields":"mine"}',
    'update todo-1 {"a":1,"updated_fields":["title"]}',
    'update todo-1 "1970-01-01T00:00:00.000Z"'
  ])
})

test('reports data that cannot be encoded with entity and key, and the flush succeeds', async (t) => {
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  const values: unknown[] = [
    cycle, undefined, () => {}, Promise.resolve({}), Promise.reject(new Error('late')), { toJSON () { throw new Error('no JSON') } }
  ]
  const { orm, em, todo, take, logged } = await open(t, { data: () => values[0] })
  take()
  logged.splice(0)

  for (let i = 0; values.length > 0; i++) {
    todo.title = `title ${i}`
    await em.flush()
    assert.deepEqual(logged.splice(0).map(({ level, entity, key }) => [level, entity, key]), [['error', 'Todo', '1']])
    values.shift()
  }

  assert.deepEqual(take(), [])
  assert.equal((await orm.em.fork().findOneOrFail(Todo, 1)).title, 'title 5')
})

test('a data function that throws affects neither the other rules nor the flush', async (t) => {
  const orm = await openSqlite(t, [User, TodoSchema])
  const { take, logged } = listen(orm, [
    notifyOnChange(Todo, { data: () => { throw new Error('broken') } }),
    notifyOnChange(Todo)
  ])

  const em = orm.em.fork()
  em.create(Todo, { title: 'one' })
  await em.flush()

  assert.deepEqual(take(), ['create todo-1 {"id":1}'])
  assert.deepEqual(logged.map(({ err, entity, key }) => [err?.message, entity, key]), [['broken', 'Todo', '1']])
})

test('alwaysSend: false drops an update that changes no sent property', async (t) => {
  const { em, todo, take } = await open(t, { data: ['id', 'title'], alwaysSend: false })
  take()

  todo.done = true
  await em.flush()
  todo.title = 'two'
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), [
    'update todo-1 {"id":1,"title":"two","updated_fields":["title"]}',
    'delete todo-1 {"id":1,"title":"two"}'
  ])
})

test('alwaysSend: false compares with the keys of the object that a data function returns', async (t) => {
  const { em, todo, take } = await open(t, { data: ({ id, title }) => ({ id, title }), alwaysSend: false })
  take()

  todo.done = true
  await em.flush()
  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update todo-1 {"id":1,"title":"two","updated_fields":["title"]}'])
})

test('sends a property once that data names twice', async (t) => {
  const { em, todo, take } = await open(t, { data: ['title', 'id', 'title'] })
  take()

  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update todo-1 {"title":"two","id":1,"updated_fields":["title","changed"]}'])
})

test('sends updated_fields alone if data names no property', async (t) => {
  const { em, todo, take } = await open(t, { data: [] })
  take()

  todo.title = 'two'
  await em.flush()

  assert.deepEqual(take(), ['update todo-1 {"updated_fields":["title","changed"]}'])
})

test('sends a move despite alwaysSend: false', async (t) => {
  const { em, todo, take } = await open(t, { group: ({ done }) => done ? 'done' : 'open', data: ['id'], alwaysSend: false })
  take()

  todo.done = true
  await em.flush()

  assert.deepEqual(take(), ['delete open {"id":1}', 'create done {"id":1}'])
})

test('sends the flushed values, not later changes of the same object', async (t) => {
  const orm = await openSqlite(t, [User, TodoSchema], {
    subscribers: [{
      afterCreate ({ entity }) { entity.title = 'leaked' },
      afterUpdate ({ entity }) { entity.title = 'leaked' },
      beforeTransactionCommit ({ em }) {
        for (const todo of em.getUnitOfWork().getIdentityMap()) Object.assign(todo, { title: 'leaked', done: true })
      }
    }]
  })
  const { take } = listen(orm, [
    notifyOnChange(Todo, { group: ({ title }) => `fn-${title}`, data: ({ title, done }) => ({ title, done }) }),
    notifyOnChange(Todo, { group: 'tpl-{title}', data: ['title', 'done'] })
  ])

  const em = orm.em.fork()
  em.create(Todo, { title: 'one' })
  await em.flush()
  const todo = await orm.em.fork().findOneOrFail(Todo, 1)
  todo.title = 'two'
  await wrap(todo, true).__em?.flush()

  assert.deepEqual(take(), [
    'create fn-one {"title":"one","done":false}',
    'create tpl-one {"title":"one","done":false}',
    'delete fn-one {"title":"one","done":false}',
    'create fn-two {"title":"two","done":false}',
    'delete tpl-one {"title":"one","done":false}',
    'create tpl-two {"title":"two","done":false}'
  ])
})

test('serializes the view of a row before its change with the old values, in every way', async (t) => {
  const { em, todo, take } = await open(t, {
    group: ({ done }) => done ? 'done' : 'open',
    data: (todo) => ({ wrapped: wrap(todo).serialize({ fields: ['title', 'owner'] }), plain: wrap(todo).toObject(['note', 'due', 'size', 'price', 'labels', 'changed']) })
  })
  take()

  todo.done = true
  todo.title = 'two'
  todo.owner = em.create(User, { name: 'Ada', password: 'hush' })
  await em.flush()

  assert.deepEqual(take(), [
    'delete open {"wrapped":{"title":"one","owner":null},"plain":{"id":1,"title":"one","done":false,"owner":null}}',
    'create done {"wrapped":{"title":"two","owner":1},"plain":{"id":1,"title":"two","done":true,"owner":1}}'
  ])
})

test('readBack: false logs one warning that names a sent property that is not loaded', async (t) => {
  const { orm, take, logged } = await open(t, { data: ['title', 'note'], readBack: false })
  take()

  for (const title of ['two', 'three']) {
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1, { fields: ['title'] })
    todo.title = title
    await em.flush()
  }

  assert.deepEqual(take(), [])
  assert.deepEqual(logged.map(({ level, property }) => [level, property]), [['warn', 'note']])
})

test('readBack: false sends neither a partly loaded embeddable nor a formula that is not loaded', async (t) => {
  const Address = defineEntity({ name: 'Address', embeddable: true, properties: { street: p.string(), city: p.string(), label: p.string().persist(false).nullable() } })
  const Person = defineEntity({
    name: 'Person',
    properties: {
      id: p.integer().primary(),
      name: p.string(),
      home: () => p.embedded(Address),
      initial: p.string().formula('substr(name, 1, 1)').lazy().nullable(),
      hint: p.string().persist(false).nullable()
    }
  })
  const orm = await openSqlite(t, [Person, Address])
  const { take, logged } = listen(orm, [
    notifyOnUpdate(Person, { data: ['home'], readBack: false }),
    notifyOnUpdate(Person, { group: '{name}', data: ['initial'], readBack: false }),
    notifyOnUpdate(Person, { group: 'fn-{name}', data: ({ initial, hint }) => ({ initial, hint }), readBack: false })
  ])
  const setup = orm.em.fork()
  setup.create(Person, { name: 'Ada', home: { street: 'Via', city: 'Rom' } })
  await setup.flush()

  const em = orm.em.fork()
  const partial = await em.findOneOrFail(Person, 1, { fields: ['name', 'home.street'] })
  partial.name = 'Bea'
  await em.flush()
  // the groups that the row leaves get the key only
  assert.deepEqual(take(), ['delete Ada {"id":1}', 'delete fn-Ada {"id":1}'])
  assert.deepEqual(logged.map(({ property }) => property), ['home', 'initial', 'initial'])

  em.clear()
  const person = await em.findOneOrFail(Person, 1, { populate: ['initial'] })
  person.name = 'Cid'
  await em.flush()
  assert.deepEqual(take(), [
    'update person-1 {"home":{"street":"Via","city":"Rom"},"updated_fields":["name"]}',
    'delete Bea {"initial":"B"}', 'create Cid {"initial":"B"}',
    'delete fn-Bea {"initial":"B"}', 'create fn-Cid {"initial":"B"}'
  ])
})

test('treats a property that is null in the database as loaded', async (t) => {
  const orm = await openSqlite(t, [User, TodoSchema], { forceUndefined: true })
  const { take } = listen(orm, [notifyOnUpdate(Todo, { data: ['title', 'note'] })])
  await orm.em.fork().insert(Todo, { title: 'one' })

  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  for (const title of ['two', 'three']) {
    todo.title = title
    await em.flush()
  }

  assert.deepEqual(take(), ['update todo-1 {"title":"two","note":null,"updated_fields":["title","changed"]}', 'update todo-1 {"title":"three","note":null,"updated_fields":["title"]}'])
})

test('calls getGroupName and getPushNotificationData of an entity', async (t) => {
  const NoteSchema = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), text: p.string() } })
  class Note extends NoteSchema.class {
    getGroupName (type: string) { return `notes-${type}-${this.id}` }
    getPushNotificationData (updatedFields: string[], type: string) { return { text: this.text, updatedFields, type } }
  }
  NoteSchema.setClass(Note)
  const orm = await openSqlite(t, [NoteSchema])
  const { take } = listen(orm, [notifyOnChange(Note), notifyOnUpdate(Note, { group: 'mine', data: ['id'] })])

  const em = orm.em.fork()
  const note = em.create(Note, { text: 'a' })
  await em.flush()
  note.text = 'b'
  await em.flush()
  em.remove(note)
  await em.flush()

  assert.deepEqual(take(), [
    'create notes-create-1 {"text":"a","updatedFields":[],"type":"create"}',
    'update notes-update-1 {"text":"b","updatedFields":["text"],"type":"update","updated_fields":["text"]}',
    'update mine {"id":1,"updated_fields":["text"]}',
    'delete notes-delete-1 {"text":"b","updatedFields":[],"type":"delete"}'
  ])
})

test('rejects promises of getGroupName and getPushNotificationData', async (t) => {
  const NoteSchema = defineEntity({ name: 'Note', properties: { id: p.integer().primary() } })
  class Note extends NoteSchema.class {
    async getGroupName () { return 'note' }
  }
  NoteSchema.setClass(Note)
  const orm = await openSqlite(t, [NoteSchema])
  const { logged, take } = listen(orm, [notifyOnChange(Note)])

  const em = orm.em.fork()
  em.create(Note, {})
  await em.flush()

  assert.deepEqual(take(), [])
  assert.match(String(logged[0]?.err), /'getGroupName' returned a promise: it must be synchronous/)
})

test('reads groupName from a static property, a getter, a field or a column', async (t) => {
  const make = (name: string) => defineEntity({ name, properties: { id: p.integer().primary(), kind: p.string().nullable() } })
  const Schemas = { Static: make('Static'), Getter: make('Getter'), Field: make('Field'), Demanding: make('Demanding') }
  class Static extends Schemas.Static.class { static groupName = 'static/{id}' }
  class Getter extends Schemas.Getter.class { get groupName () { return `getter/${this.kind}/{id}` } }
  class Field extends Schemas.Field.class { groupName = 'field/{id}' }
  class Demanding extends Schemas.Demanding.class {
    constructor (given: { kind: string }) {
      super()
      this.kind = given.kind
    }
  }
  Schemas.Static.setClass(Static)
  Schemas.Getter.setClass(Getter)
  Schemas.Field.setClass(Field)
  Schemas.Demanding.setClass(Demanding)
  const Column = defineEntity({ name: 'Column', properties: { id: p.integer().primary(), kind: p.string().nullable(), groupName: p.string() } })
  const entities: EntityName[] = [Static, Getter, Field, Demanding, Column]
  const orm = await openSqlite(t, [...Object.values(Schemas), Column])
  const { take } = listen(orm, entities.map((entity) => notifyOnChange(entity)))
  const em = orm.em.fork()
  for (const entity of [Static, Getter, Field, Demanding]) await em.insert(entity, { kind: 'k' })
  await em.insert(Column, { kind: 'k', groupName: 'column/{id}' })

  for (const entity of entities) Object.assign(await em.findOneOrFail(entity, 1), { kind: 'l' })
  await em.flush()

  assert.deepEqual(take().map((line) => line.split(' ', 2).join(' ')).sort(), [
    'create getter/l/1', 'delete getter/k/1', 'update column/1', 'update demanding-1', 'update field/1', 'update static/1'
  ])
})

test('readBack: false sends a property that is not persisted as the entity has it', async (t) => {
  const Todo = defineEntity({
    name: 'Todo',
    properties: { id: p.integer().primary(), title: p.string(), mood: p.string().persist(false).nullable() }
  })
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm, [notifyOnChange(Todo, { data: ['title', 'mood'], readBack: false })])
  await orm.em.fork().insert(Todo, { title: 'one' })

  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  todo.title = 'two'
  todo.mood = 'merry'
  await em.flush()

  assert.deepEqual(take(), ['update todo-1 {"title":"two","mood":"merry","updated_fields":["title"]}'])
})
