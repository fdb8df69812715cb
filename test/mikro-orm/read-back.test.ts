/** Rows that are read before a COMMIT: the row as it will be committed, and the row before the change. */
import assert from 'node:assert/strict'
import test, { suite, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { defineEntity, p, type Platform } from '@mikro-orm/core'
import { ChangeSubscriber, notifyOnChange, notifyOnUpdate, withoutNotifications, type NotifyOptions } from '../../lib/mikro-orm/index.ts'
import { CommittedRows } from '../../lib/mikro-orm/capture/committed-rows.ts'
import { databaseOf } from '../../lib/util/platforms.ts'
import { listen, openServer, openSqlite } from './support.ts'

const List = defineEntity({ name: 'List', properties: { id: p.integer().primary(), name: p.string(), note: p.string().lazy().nullable() } })
const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
const Todo = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    text: p.string().lazy().nullable(),
    list: () => p.manyToOne(List).nullable(),
    tags: () => p.manyToMany(Tag)
  }
})
const entities = [List, Tag, Todo]
type TodoOptions = NotifyOptions<InstanceType<typeof Todo.class>>

async function open (t: TestContext, options: TodoOptions) {
  const orm = await openSqlite(t, entities)
  const heard = listen(orm, [notifyOnChange(Todo, { group: 'todos', ...options })])
  await orm.em.fork().insert(List, { id: 1, name: 'Kitchen', note: 'n' })
  const add = async (values: object = {}) => {
    const em = orm.em.fork()
    em.create(Todo, { title: 'one', text: 'long', list: 1, ...values })
    await em.flush()
  }
  return { orm, add, ...heard }
}

suite('a property that a function of a rule reads', () => {
  for (const [what, data, property] of [
    ['a relation', ({ list }) => list?.name, 'List.name'],
    ['a lazy property', ({ text }) => text, 'text'],
    ['a collection', ({ tags }) => tags.count(), 'tags']
  ] satisfies Array<[string, TodoOptions['data'] & object, string]>) {
    test(`drops the notification if it is ${what} that is not loaded, with one warning`, async (t) => {
      const { add, take, logged } = await open(t, { data })

      await add()
      await add()

      assert.deepEqual(take(), [])
      assert.deepEqual(logged.map(({ level, property }) => [level, property]), [['warn', property]])
    })
  }

  test('is loaded with the row if populate names it', async (t) => {
    const { add, take, logged } = await open(t, { populate: ['list', 'text', 'tags'], data: ({ list, text, tags }) => [list?.name, text, tags.count()] })

    await add({ tags: [{ id: 3 }, { id: 4 }] })

    assert.deepEqual(logged, [])
    assert.deepEqual(take(), ['create todos ["Kitchen","long",2]'])
  })

  test('can be the key of a relation that is not loaded', async (t) => {
    const { add, take } = await open(t, { data: ({ list }) => list?.id })

    await add()

    assert.deepEqual(take(), ['create todos 1'])
  })
})

test('loads only the properties that data names', async (t) => {
  const { add, take, orm } = await open(t, { data: ['text', 'tags'] })
  const queries: string[] = []
  t.mock.method(orm.config.getLogger(), 'logQuery', ({ query }: { query: string }) => { queries.push(query) })

  await add({ tags: [{ id: 3 }] })

  assert.deepEqual(take(), ['create todos {"text":"long","tags":[3]}'])
  assert.equal(queries.filter((query) => query.startsWith('select')).length, 2)
})

test('reads thousands of rows in portions', async (t) => {
  const { orm, take } = await open(t, { data: ['id'] })

  const em = orm.em.fork()
  for (let id = 1; id <= 4001; id++) em.create(Todo, { id, title: 'x' })
  await em.flush()

  assert.equal(take().length, 4001)
})

test('finds a key that the database stores in another form', async (t) => {
  const Word = defineEntity({ name: 'Word', properties: { text: p.string().primary(), id: p.integer() } })
  const orm = await openServer(t, 'mariadb', [Word])
  if (orm === undefined) return
  const { take } = listen(orm, [notifyOnChange(Word, { group: 'words', data: ['text', 'id'] })])
  await orm.em.fork().insert(Word, { text: 'Street', id: 1 })

  const em = orm.em.fork()
  em.getReference(Word, 'STREET').id = 2
  em.create(Word, { text: 'other', id: 3 })
  await em.flush()

  assert.deepEqual(take().sort(), ['create words {"text":"other","id":3}', 'update words {"text":"Street","id":2,"updated_fields":["id"]}'])
})

suite('the row before a change', () => {
  test('is the row of the database if another EntityManager has moved it since it was loaded', async (t) => {
    const { orm, add, take } = await open(t, { group: 'list-{list}', data: ['title'] })
    await orm.em.fork().insert(List, { id: 2, name: 'Garden' })
    await add()
    const [stale, other] = [orm.em.fork(), orm.em.fork()]
    const [mine, theirs] = [await stale.findOneOrFail(Todo, 1), await other.findOneOrFail(Todo, 1)]
    theirs.list = other.getReference(List, 2)
    await other.flush()
    take()

    mine.title = 'two'
    await stale.flush()
    assert.deepEqual(take(), ['update list-2 {"title":"two","updated_fields":["title"]}'])
    stale.remove(mine)
    await stale.flush()

    assert.deepEqual(take(), ['delete list-2 {"title":"two"}'])
  })

  test('is read on a connection with the driver options, which may be a function', async (t) => {
    const orm = await openServer(t, 'postgresql', entities, { driverOptions: () => ({ application_name: 'todos' }) })
    if (orm === undefined) return
    const { take } = listen(orm, [notifyOnUpdate(Todo, { group: '{title}', data: ['title'] })])
    await orm.em.fork().insert(Todo, { id: 1, title: 'one' })
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1)
    await orm.em.fork().nativeUpdate(Todo, { id: 1 }, { title: 'theirs' })

    todo.title = 'two'
    await em.flush()

    assert.deepEqual(take(), ['delete theirs {"title":"theirs"}', 'create two {"title":"two"}'])
  })

  test('is read before an upsert, with and without a transaction', async (t) => {
    const { orm, add, take } = await open(t, { group: ({ title }) => title, data: ['title'] })
    await add()
    await add({ title: 'two' })
    take()

    await orm.em.fork().upsert(Todo, { id: 1, title: 'moved' })
    await orm.em.fork().transactional((em) => em.upsertMany(Todo, [{ id: 1, title: 'again' }, { id: 3, title: 'new' }]))
    await withoutNotifications(orm.em.fork(), (em) => em.upsert(Todo, { id: 2, title: 'silent' }))

    assert.deepEqual(take(), [
      'delete one {"title":"one"}', 'create moved {"title":"moved"}',
      'delete moved {"title":"moved"}', 'create again {"title":"again"}',
      'create new {"title":"new"}'
    ])
  })

  test('is taken from the EntityManager if reading it fails, and the members load again', async (t) => {
    const orm = await openServer(t, 'postgresql', entities)
    if (orm === undefined) return
    const told: string[] = []
    const warnings: string[] = []
    const subscriber = new ChangeSubscriber()
    subscriber.connect({
      orm,
      notify: [notifyOnUpdate(Todo, { group: '{title}', data: ['title'] })],
      publish: (group, payload) => { told.push(`${JSON.parse(payload).data.type} ${group}`) },
      log: { error () {}, warn: (_, message) => { warnings.push(message) } }
    })
    await orm.em.fork().insert(Todo, { id: 1, title: 'one' })
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1)
    t.mock.method(Object.getPrototypeOf(orm.em.getConnection()), 'connect', () => Promise.reject(new Error('too many connections')))

    todo.title = 'two'
    await em.flush()

    assert.deepEqual(told, ['delete one', 'create two', 'resync one', 'resync two'])
    assert.deepEqual(warnings.map((message) => message.slice(0, 45)), ['the rows before a change could not be read: w'])
  })

  test('is given up if the database does not answer in time, and the next query gets a new connection', async (t) => {
    const orm = await openServer(t, 'postgresql', entities)
    if (orm === undefined) return
    const rows = new CommittedRows(orm, 20)
    t.after(() => rows.close())
    const mock = t.mock.method(Object.getPrototypeOf(orm.em.getConnection()), 'connect', () => new Promise<void>(() => {}))

    await assert.rejects(rows.read(orm.em.fork(), []), /not read within 20 ms/)
    mock.mock.restore()
  })

  for (const event of ['onFlush', 'afterTransactionStart'] as const) {
    test(`rejects the flush if reading it in ${event} fails, and releases the connection`, async (t) => {
      const { orm, add, take } = await open(t, { group: '{title}' })
      await add()
      take()
      const em = orm.em.fork()
      if (event === 'onFlush') await em.begin()
      const todo = await em.findOneOrFail(Todo, 1)
      const connection = orm.em.getConnection()
      const { execute } = connection
      t.mock.method(connection, 'execute', (...args: Parameters<typeof execute>) => {
        return String(args[0]).startsWith('select') ? Promise.reject(new Error('no answer')) : execute.apply(connection, args)
      })

      todo.title = 'two'
      await assert.rejects(async () => {
        await em.flush()
        await em.commit()
      }, /no answer/)
      if (event === 'onFlush') await em.rollback()
      t.mock.restoreAll()

      assert.equal((await orm.em.fork().findOneOrFail(Todo, 1)).title, 'one')
      assert.deepEqual(take(), [])
    })
  }
})

test('treats an unknown database as Database.Other', () => {
  class OtherPlatform {}

  assert.equal(databaseOf(new OtherPlatform() as unknown as Platform), 'other')
})

test('a logger that throws does not fail a flush', async (t) => {
  const orm = await openSqlite(t, entities)
  const told: string[] = []
  const fail = () => { throw new Error('no log') }
  new ChangeSubscriber().connect({
    orm,
    notify: [notifyOnChange(Todo, { group: ({ title }) => title, data ({ title }) { if (title === 'bad') fail() } }), notifyOnChange(Todo)],
    publish: (group) => { told.push(group) },
    log: { level: 'debug', error: fail, warn: fail, debug: fail }
  })

  const em = orm.em.fork()
  em.create(Todo, { title: 'bad' })
  await em.flush()

  assert.deepEqual(told, ['todo-1'])
})

test('refuses a class whose constructor needs arguments and may declare a groupName field', async (t) => {
  const schema = defineEntity({ name: 'Task', properties: { id: p.integer().primary(), title: p.string() } })
  class Task extends schema.class {
    groupName = 'tasks'
    constructor (list: { name: string }) {
      super()
      this.title = list.name.trim()
    }
  }
  schema.setClass(Task as never)
  const orm = await openSqlite(t, [schema])

  assert.throws(() => listen(orm, [notifyOnChange(schema)]), { code: 'RP_ERR_INVALID_OPTION', message: /static property of Task/ })
})

test('{schema} in a template is the schema of the row\'s table', async (t) => {
  const Note = defineEntity({ name: 'Note', schema: '*', properties: { id: p.integer().primary(), text: p.string() } })
  const Plain = defineEntity({ name: 'Plain', properties: { id: p.integer().primary(), text: p.string() } })
  const Odd = defineEntity({ name: 'Odd', properties: { id: p.integer().primary(), schema: p.string() } })
  const orm = await openServer(t, 'postgresql', [Note, Plain, Odd])
  if (orm === undefined) return
  for (const schema of ['one', 'two']) await orm.em.getConnection().execute(`create schema ${schema}; create table ${schema}.note (id int primary key, text text)`)
  const { take } = listen(orm, [Note, Plain, Odd].map((entity) => notifyOnChange(entity as typeof Note, { group: '{schema}/{id}' })))

  for (const schema of ['one', 'two']) {
    const em = orm.em.fork({ schema })
    const note = em.create(Note, { id: 1, text: 'a' })
    await em.flush()
    note.text = 'b'
    await em.upsert(Note, { id: 2, text: 'c' })
    await em.flush()
  }
  const em = orm.em.fork()
  em.create(Plain, { id: 1, text: 'a' })
  em.create(Odd, { id: 1, schema: 'property' })
  await em.flush()

  assert.deepEqual(take().map((line) => line.split(' {')[0]), [
    'create one/1', 'update one/2', 'update one/1', 'create two/1', 'update two/2', 'update two/1', 'create public/1', 'create property/1'
  ])
})

test('{schema} is the schema of the entity, of the ORM or of the database, and empty without schemas', async (t) => {
  const make = (schema?: string) => defineEntity({ name: 'Note', ...(schema && { schema }), properties: { id: p.integer().primary() } })
  for (const [entity, option, group] of [[make('main'), undefined, 'main/1'], [make(), 'main', 'main/1'], [make(), undefined, '/1']] as const) {
    const orm = await openSqlite(t, [entity], option === undefined ? {} : { schema: option })
    const { take } = listen(orm, [notifyOnChange(entity, { group: '{schema}/{id}' })])
    const em = orm.em.fork()

    em.create(entity, {})
    await em.flush()

    assert.deepEqual(take(), [`create ${group} {"id":1}`])
  }
})

suite('withoutNotifications', () => {
  test('suppresses inserts, updates, deletes, collections and upserts of the work, and nothing else', async (t) => {
    const { orm, add, take } = await open(t, {})
    await add({ tags: [{ id: 1 }] })
    take()

    const result = await withoutNotifications(orm.em.fork(), async (em) => {
      const todo = await em.findOneOrFail(Todo, 1, { populate: ['tags'] })
      todo.title = 'two'
      todo.tags.removeAll()
      em.create(Todo, { title: 'new' })
      await em.flush()
      await em.upsert(Todo, { id: 3, title: 'three' })
      await em.transactional((em) => { em.remove(em.getReference(Todo, 2)) })
      return 'done'
    })
    await add()

    assert.equal(result, 'done')
    assert.deepEqual(take(), ['create todos {"id":4}'])
  })

  test('announces the flushes before and after it in the same transaction', async (t) => {
    const { orm, take } = await open(t, {})

    await orm.em.fork().transactional(async (em) => {
      em.create(Todo, { id: 1, title: 'before' })
      await em.flush()
      await withoutNotifications(em, async (em) => {
        em.create(Todo, { id: 2, title: 'silent' })
        await em.flush()
      })
      em.create(Todo, { id: 3, title: 'after' })
    })

    assert.deepEqual(take(), ['create todos {"id":1}', 'create todos {"id":3}'])
  })
})

test('publishes the notifications of a large commit in portions', async (t) => {
  const orm = await openSqlite(t, entities)
  const gates: Array<PromiseWithResolvers<void>> = []
  const subscriber = new ChangeSubscriber()
  subscriber.connect({
    orm,
    notify: [notifyOnChange(Todo)],
    publish () {
      const gate = Promise.withResolvers<void>()
      gates.push(gate)
      return gate.promise
    },
    log: { error () {}, warn () {} }
  })
  t.after(() => subscriber.disconnect())

  const em = orm.em.fork()
  for (let id = 1; id <= 200; id++) em.create(Todo, { id, title: 'x' })
  await em.flush()
  assert.equal(gates.length, 128)
  let isIdle = false
  const idle = subscriber.idle().then(() => { isIdle = true })
  for (const gate of gates) gate.resolve()
  await setImmediate()

  assert.deepEqual([gates.length, isIdle], [200, true])
  await idle
})
