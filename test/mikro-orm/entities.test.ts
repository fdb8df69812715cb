import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { Cascade, defineEntity, p, wrap } from '@mikro-orm/core'
import { notifyOnChange, notifyOnDelete, notifyOnUpdate } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

test('announces a changed M:N collection as an update of its owner that names the property', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary(), todos: () => p.manyToMany(Todo).mappedBy('tags') } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string(), tags: () => p.manyToMany(Tag).inversedBy('todos') } })
  const orm = await openSqlite(t, [Todo, Tag])
  const { take, logged } = listen(orm, [notifyOnChange(Todo, { data: ['id', 'tags'] })])
  const em = orm.em.fork()

  const tags = [em.create(Tag, {}), em.create(Tag, {})] as const
  const todo = em.create(Todo, { title: 'one', tags: [tags[0]] })
  await em.flush()
  assert.deepEqual(take(), ['create todo-1 {"id":1,"tags":[1]}'])

  todo.tags.add(tags[1])
  await em.flush()
  assert.deepEqual(take(), ['update todo-1 {"id":1,"tags":[1,2],"updated_fields":["tags"]}'])

  await em.transactional(async () => {
    todo.title = 'two'
    todo.tags.remove(tags[0])
  })
  assert.deepEqual(take(), ['update todo-1 {"id":1,"tags":[2],"updated_fields":["title","tags"]}'])

  await assert.rejects(em.transactional(async (em) => {
    todo.tags.removeAll()
    await em.flush()
    throw new Error('undone')
  }))
  assert.deepEqual(take(), [])

  const other = orm.em.fork()
  const tag = await other.findOneOrFail(Tag, 2, { populate: ['todos'] })
  tag.todos.removeAll()
  await other.flush()
  assert.deepEqual(take(), ['update todo-1 {"id":1,"tags":[],"updated_fields":["tags"]}'])
  assert.deepEqual(logged, [])
})

test('announces a collection changed from its inverse side as an update of its owners', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary(), todos: () => p.manyToMany(Todo).mappedBy('tags') } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), tags: () => p.manyToMany(Tag).inversedBy('todos') } })
  const orm = await openSqlite(t, [Todo, Tag])
  const setup = orm.em.fork()
  const todos = [setup.create(Todo, {}), setup.create(Todo, {}), setup.create(Todo, {})]
  setup.create(Tag, { todos: todos.slice(0, 2) })
  await setup.flush()
  const { take } = listen(orm, [notifyOnChange(Todo), notifyOnChange(Tag)])

  const em = orm.em.fork()
  const tag = await em.findOneOrFail(Tag, 1, { populate: ['todos'] })
  tag.todos.set([em.getReference(Todo, 2), em.getReference(Todo, 3)])
  await em.flush()

  assert.deepEqual(take().sort(), ['update todo-1 {"id":1,"updated_fields":["tags"]}', 'update todo-3 {"id":3,"updated_fields":["tags"]}'])
})

test('sends the old collections to the group that a row leaves, and lets group functions read them', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.string(), tags: () => p.manyToMany(Tag) } })
  const orm = await openSqlite(t, [Todo, Tag])
  const setup = orm.em.fork()
  setup.create(Todo, { list: 'a', tags: [setup.create(Tag, {}), setup.create(Tag, {})] })
  await setup.flush()
  const { take, logged } = listen(orm, [
    notifyOnChange(Todo, { group: '{list}', data: ['tags'] }),
    notifyOnChange(Todo, { group: ({ tags }) => tags.getIdentifiers().map((id) => `tag-${id}`), data: ['id'] })
  ])
  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1, { populate: ['tags'] })

  todo.list = 'b'
  await em.flush()
  assert.deepEqual(take(), ['delete a {"tags":[1,2]}', 'create b {"tags":[1,2]}', 'update tag-1 {"id":1,"updated_fields":["list"]}', 'update tag-2 {"id":1,"updated_fields":["list"]}'])

  await em.transactional(async (em) => {
    todo.list = 'c'
    await em.flush()
    todo.tags.remove(em.getReference(Tag, 1))
  })
  assert.deepEqual(take(), ['delete b {"tags":[1,2]}', 'create c {"tags":[2]}', 'delete tag-1 {"id":1}', 'update tag-2 {"id":1,"updated_fields":["list","tags"]}'])

  todo.tags.set([em.getReference(Tag, 1)])
  await em.flush()
  assert.deepEqual(take(), ['update c {"tags":[1],"updated_fields":["tags"]}', 'delete tag-2 {"id":1}', 'create tag-1 {"id":1}'])

  todo.tags.removeAll()
  em.remove(todo)
  await em.flush()
  assert.deepEqual(take(), ['delete c {"tags":[1]}', 'delete tag-1 {"id":1}'])
  assert.deepEqual(logged, [])
})

test('sends a collection that is not loaded, also of the row before its change', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.string(), tags: () => p.manyToMany(Tag) } })
  const orm = await openSqlite(t, [Todo, Tag])
  const setup = orm.em.fork()
  setup.create(Todo, { list: 'a', tags: [setup.create(Tag, {}), setup.create(Tag, {})] })
  await setup.flush()
  const { take, logged } = listen(orm, [notifyOnChange(Todo, { group: '{list}', data: ['tags'] })])

  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  todo.list = 'b'
  todo.tags.set([em.getReference(Tag, 2)])
  await em.flush()

  assert.deepEqual(take(), ['delete a {"tags":[1,2]}', 'create b {"tags":[2]}'])
  assert.deepEqual(logged, [])
})

test('announces collections without transactions, but not of a deleted owner', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), tags: () => p.manyToMany(Tag) } })
  const orm = await openSqlite(t, [Todo, Tag], { implicitTransactions: false })
  const { take } = listen(orm, [notifyOnChange(Todo)])
  const em = orm.em.fork()

  const tag = em.create(Tag, {})
  const todo = em.create(Todo, {})
  await em.flush()
  todo.tags.add(tag)
  await em.flush()
  todo.tags.remove(tag)
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), ['create todo-1 {"id":1}', 'update todo-1 {"id":1,"updated_fields":["tags"]}', 'delete todo-1 {"id":1}'])
})

test('sends embeddables whole, and names them by their property', async (t) => {
  const Geo = defineEntity({ name: 'Geo', embeddable: true, properties: { lat: p.integer() } })
  const Address = defineEntity({
    name: 'Address',
    embeddable: true,
    properties: { city: p.string(), door: p.string().hidden().nullable(), geo: () => p.embedded(Geo).nullable() }
  })
  const User = defineEntity({
    name: 'User',
    properties: {
      id: p.integer().primary(),
      home: () => p.embedded(Address).nullable(),
      office: () => p.embedded(Address).object().nullable()
    }
  })
  const orm = await openSqlite(t, [User, Address, Geo])
  const { take } = listen(orm, [notifyOnChange(User, {
    group: (user) => `city-${user.home?.city}-${user.office?.city}`,
    data: ['home', 'office']
  })])
  const em = orm.em.fork()

  const user = em.create(User, { home: { city: 'Rom', door: '1', geo: { lat: 1 } }, office: { city: 'Bari' } })
  await em.flush()
  assert.deepEqual(take(), ['create city-Rom-Bari {"home":{"city":"Rom","geo":{"lat":1}},"office":{"city":"Bari"}}'])

  if (user.home?.geo) user.home.geo.lat = 2
  await em.flush()
  assert.deepEqual(take(), ['update city-Rom-Bari {"home":{"city":"Rom","geo":{"lat":2}},"office":{"city":"Bari"},"updated_fields":["home"]}'])

  if (user.home) user.home.door = '2'
  await em.flush()
  assert.deepEqual(take(), ['update city-Rom-Bari {"home":{"city":"Rom","geo":{"lat":2}},"office":{"city":"Bari"},"updated_fields":[]}'])

  if (user.home) user.home.city = 'Pisa'
  if (user.office) user.office.city = 'Lecce'
  await em.flush()
  assert.deepEqual(take(), [
    'delete city-Rom-Bari {"home":{"city":"Rom","geo":{"lat":2}},"office":{"city":"Bari"}}',
    'create city-Pisa-Lecce {"home":{"city":"Pisa","geo":{"lat":2}},"office":{"city":"Lecce"}}'
  ])

  em.clear()
  const loaded = await em.findOneOrFail(User, 1)
  if (loaded.home?.geo) loaded.home.geo.lat = 3
  await em.flush()
  assert.deepEqual(take(), ['update city-Pisa-Lecce {"home":{"city":"Pisa","geo":{"lat":3}},"office":{"city":"Lecce"},"updated_fields":["home"]}'])

  loaded.home = null
  loaded.office = null
  await em.flush()
  assert.deepEqual(take(), [
    'delete city-Pisa-Lecce {"home":{"city":"Pisa","geo":{"lat":3}},"office":{"city":"Lecce"}}',
    'create city-undefined-undefined {"home":null,"office":null}'
  ])
})

test('joins composite keys in group names and sends them as an object', async (t) => {
  const User = defineEntity({ name: 'User', properties: { name: p.string().primary() } })
  const Seat = defineEntity({ name: 'Seat', properties: { row: p.string().primary(), place: p.integer().primary(), by: () => p.manyToOne(User).nullable() } })
  const Ticket = defineEntity({ name: 'Ticket', properties: { seat: () => p.manyToOne(Seat).primary(), user: () => p.manyToOne(User).primary(), price: p.integer() } })
  const orm = await openSqlite(t, [User, Seat, Ticket])
  const { take } = listen(orm, [notifyOnChange(Seat), notifyOnChange(Ticket), notifyOnUpdate(Ticket, { group: 'seat-{seat}', data: ['seat', 'user'] })])
  const em = orm.em.fork()

  const user = em.create(User, { name: 'a:b' })
  const seat = em.create(Seat, { row: 'A:1', place: 2 })
  const ticket = em.create(Ticket, { seat, user, price: 1 })
  await em.flush()
  seat.by = user
  ticket.price = 2
  await em.flush()
  em.remove(ticket)
  await em.flush()

  assert.deepEqual(take(), [
    'create seat-A%3A1:2 {"id":{"row":"A:1","place":2}}',
    'create ticket-A%3A1:2:a%3Ab {"id":{"seat":{"row":"A:1","place":2},"user":"a:b"}}',
    'update seat-A%3A1:2 {"id":{"row":"A:1","place":2},"updated_fields":["by"]}',
    'update seat-A%3A1:2 {"seat":{"row":"A:1","place":2},"user":"a:b","updated_fields":["price"]}',
    'update ticket-A%3A1:2:a%3Ab {"id":{"seat":{"row":"A:1","place":2},"user":"a:b"},"updated_fields":["price"]}',
    'delete ticket-A%3A1:2:a%3Ab {"id":{"seat":{"row":"A:1","place":2},"user":"a:b"}}'
  ])
})

test('sends UUID, bigint and date keys in their JSON form', async (t) => {
  const Event = defineEntity({ name: 'Event', properties: { uuid: p.uuid().primary(), title: p.string() } })
  const Big = defineEntity({ name: 'Big', properties: { id: p.bigint().primary(), title: p.string() } })
  const Day = defineEntity({ name: 'Day', properties: { at: p.datetime().primary(), title: p.string() } })
  const orm = await openSqlite(t, [Event, Big, Day])
  const { take } = listen(orm, [notifyOnChange(Event), notifyOnChange(Big), notifyOnChange(Day)])
  const em = orm.em.fork()
  const uuid = '0b9b8e9e-6f0a-4e3b-8a55-0d3c1f4a7a10'

  const rows = [
    em.create(Event, { uuid, title: 'one' }),
    em.create(Big, { id: 9007199254740991n, title: 'one' }),
    em.create(Day, { at: new Date('2030-01-01T00:00:00Z'), title: 'one' })
  ]
  await em.flush()
  for (const row of rows) row.title = 'two'
  await em.flush()

  assert.deepEqual(new Set(take()), new Set([
    `create event-${uuid} {"id":"${uuid}"}`,
    'create big-9007199254740991 {"id":"9007199254740991"}',
    'create day-2030-01-01T00%3A00%3A00.000Z {"id":"2030-01-01T00:00:00.000Z"}',
    `update event-${uuid} {"id":"${uuid}","updated_fields":["title"]}`,
    'update big-9007199254740991 {"id":"9007199254740991","updated_fields":["title"]}',
    'update day-2030-01-01T00%3A00%3A00.000Z {"id":"2030-01-01T00:00:00.000Z","updated_fields":["title"]}'
  ]))
})

for (const inheritance of ['single-table', 'table-per-type']) {
  test(`${inheritance} inheritance: child classes follow the rules of their parents and are announced once`, async (t) => {
    const Animal = defineEntity({
      name: 'Animal',
      ...(inheritance === 'single-table' ? { discriminatorColumn: 'type' as const } : { inheritance: 'tpt' as const }),
      properties: { id: p.integer().primary(), name: p.string() }
    })
    const Dog = defineEntity({ name: 'Dog', extends: Animal, properties: { bark: p.string() } })
    for (const implicitTransactions of [true, false]) {
      const orm = await openSqlite(t, [Animal, Dog], { implicitTransactions })
      const { take } = listen(orm, [notifyOnChange(Animal, { data: ['id', 'name'] }), notifyOnChange(Dog, { group: 'dogs', data: ['name', 'bark'] })])
      const em = orm.em.fork()

      const dog = em.create(Dog, { name: 'Rex', bark: 'woof' })
      const animal = em.create(Animal, { name: 'Tom' })
      await em.flush()
      assert.deepEqual(take().sort(), ['create animal-2 {"id":2,"name":"Tom"}', 'create dog-1 {"id":1,"name":"Rex"}', 'create dogs {"name":"Rex","bark":"woof"}'])

      dog.name = 'Max'
      dog.bark = 'wuff'
      if (implicitTransactions) {
        await em.flush()
        assert.deepEqual(take(), ['update dog-1 {"id":1,"name":"Max","updated_fields":["name","bark"]}', 'update dogs {"name":"Max","bark":"wuff","updated_fields":["name","bark"]}'])
      } else {
        await em.flush()
        assert.ok(take().length >= 2)
      }

      em.remove(dog)
      em.remove(animal)
      await em.flush()
      assert.deepEqual(take().sort(), ['delete animal-2 {"id":2,"name":"Tom"}', 'delete dog-1 {"id":1,"name":"Max"}', 'delete dogs {"name":"Max","bark":"wuff"}'])
    }
  })
}

test('announces cascades and orphan removal of MikroORM, but not cascades of the database', async (t) => {
  const List = defineEntity({
    name: 'List',
    properties: {
      id: p.integer().primary(),
      todos: () => p.oneToMany(Todo).mappedBy('list').orphanRemoval().cascade(Cascade.PERSIST, Cascade.REMOVE),
      notes: () => p.oneToMany(Note).mappedBy('list')
    }
  })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: () => p.manyToOne(List) } })
  const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), list: () => p.manyToOne(List).deleteRule('cascade') } })
  const orm = await openSqlite(t, [List, Todo, Note])
  const { take } = listen(orm, [notifyOnChange(Todo, { group: 'list-{list}' }), notifyOnChange(Note)])
  const em = orm.em.fork()

  const list = em.create(List, { todos: [{}, {}] })
  em.create(Note, { list })
  await em.flush()
  take()
  const orphan = list.todos[0]
  if (orphan) list.todos.remove(orphan)
  await em.flush()
  assert.deepEqual(take(), ['delete list-1 {"id":1}'])

  em.clear()
  em.remove(await em.findOneOrFail(List, 1, { populate: ['todos'] }))
  await em.flush()
  assert.equal(await em.count(Note), 0)
  assert.deepEqual(take(), ['delete list-1 {"id":2}'])
})

test('announces an upsert as an update without updated_fields, or merges it into a create', async (t) => {
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm, [notifyOnChange(Todo, { data: ['title'] })])

  await orm.em.fork().upsert(Todo, { id: 1, title: 'one' })
  await orm.em.fork().upsertMany(Todo, [{ id: 1, title: 'two' }, { id: 2, title: 'new' }])
  assert.deepEqual(take(), ['update todo-1 {"title":"one"}', 'update todo-1 {"title":"two"}', 'update todo-2 {"title":"new"}'])

  await assert.rejects(orm.em.fork().transactional(async (em) => {
    await em.upsert(Todo, { id: 1, title: 'undone' })
    throw new Error('undone')
  }))
  await orm.em.fork().transactional(async (em) => {
    const todo = await em.upsert(Todo, { id: 1, title: 'three' })
    todo.title = 'four'
    await em.flush()
    await em.upsert(Todo, { id: 2, title: 'five' })
    em.remove(em.getReference(Todo, 2))
  })
  assert.deepEqual(take(), ['update todo-1 {"title":"four"}', 'delete todo-2 {"title":"five"}'])
})

test('does not announce changes without an event', async (t) => {
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm, [notifyOnChange(Todo)])

  const em = orm.em.fork()
  await em.insert(Todo, { title: 'one' })
  await em.insertMany(Todo, [{ title: 'two' }])
  await em.nativeUpdate(Todo, { id: 1 }, { title: 'three' })
  await em.nativeDelete(Todo, { id: 2 })
  await orm.em.fork().createQueryBuilder(Todo).update({ title: 'four' })

  assert.deepEqual(take(), [])
})

test('populate loads a relation that the EntityManager holds as a reference', async (t) => {
  const List = defineEntity({ name: 'List', properties: { id: p.integer().primary(), name: p.string() } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: () => p.manyToOne(List).ref(), key: () => p.manyToOne(List).mapToPk().nullable() } })
  const orm = await openSqlite(t, [List, Todo])
  const { take } = listen(orm, [notifyOnChange(Todo, {
    group: ({ list }) => `list-${list.id}`,
    populate: ['list'],
    data: ({ list, key }) => ({ name: wrap(list).isInitialized() ? list.unwrap().name : null, key })
  })])
  const em = orm.em.fork()

  const todo = em.create(Todo, { list: em.create(List, { name: 'a' }) })
  await em.flush()
  todo.list = wrap(em.create(List, { name: 'b' })).toReference()
  await em.flush()
  todo.key = 1
  await em.flush()

  assert.deepEqual(take(), [
    'create list-1 {"name":"a","key":null}',
    'delete list-1 {"name":"a","key":null}', 'create list-2 {"name":"b","key":null}',
    'update list-2 {"name":"b","key":1,"updated_fields":["key"]}'
  ])
})

test('sends versions and generated columns as the database has them', async (t) => {
  const Todo = defineEntity({
    name: 'Todo',
    properties: {
      id: p.integer().primary(),
      title: p.string(),
      version: p.integer().version(),
      shout: p.string().generated('(upper(title)) stored').nullable()
    }
  })
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm, [notifyOnChange(Todo, { data: ['title', 'version', 'shout'] })])

  const creating = orm.em.fork()
  creating.create(Todo, { title: 'one' })
  await creating.flush()
  const em = orm.em.fork()
  const loaded = await em.findOneOrFail(Todo, 1)
  loaded.title = 'three'
  await em.flush()

  assert.deepEqual(take(), [
    'create todo-1 {"title":"one","version":1,"shout":"ONE"}',
    'update todo-1 {"title":"three","version":2,"shout":"THREE","updated_fields":["title","version","shout"]}'
  ])
})

test('sends the old version and the old generated columns to the group that a row leaves', async (t) => {
  const Todo = defineEntity({
    name: 'Todo',
    properties: {
      id: p.integer().primary(),
      title: p.string(),
      version: p.integer().version(),
      shout: p.string().generated('(upper(title)) stored').nullable(),
      quiet: p.string().generated('(lower(title)) stored').nullable().lazy()
    }
  })
  const orm = await openSqlite(t, [Todo])
  const group = '{title}'
  const { take, logged } = listen(orm, [
    notifyOnChange(Todo, { group, data: ['version', 'shout'] }),
    notifyOnChange(Todo, { group, data: ({ version, shout }) => [version, shout] }),
    notifyOnDelete(Todo, { group, data: ['quiet'] })
  ])
  await orm.em.fork().insert(Todo, { title: 'one' })

  const em = orm.em.fork()
  const todo = await em.findOneOrFail(Todo, 1)
  for (const title of ['two', 'three']) {
    todo.title = title
    await em.flush()
  }
  const other = orm.em.fork()
  other.remove(await other.findOneOrFail(Todo, 1))
  await other.flush()

  assert.deepEqual(take(), [
    'delete one {"version":1,"shout":"ONE"}', 'delete one [1,"ONE"]',
    'create two {"version":2,"shout":"TWO"}', 'create two [2,"TWO"]',
    'delete two {"version":2,"shout":"TWO"}', 'delete two [2,"TWO"]',
    'create three {"version":3,"shout":"THREE"}', 'create three [3,"THREE"]',
    'delete three {"version":3,"shout":"THREE"}', 'delete three [3,"THREE"]', 'delete three {"quiet":"three"}'
  ])
  assert.deepEqual(logged, [])
})

test('publishes nothing for entities without a rule', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary(), name: p.string() } })
  const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), text: p.string(), tags: () => p.manyToMany(Tag) } })
  const orm = await openSqlite(t, [Tag, Note])
  const { take } = listen(orm, [notifyOnChange(Tag)])

  const em = orm.em.fork()
  const note = em.create(Note, { text: 'one' })
  await em.flush()
  note.text = 'two'
  note.tags.add(em.create(Tag, { name: 'red' }))
  await em.flush()
  await em.upsert(Note, { id: 2, text: 'three' })

  assert.deepEqual(take(), ['create tag-1 {"id":1}'])
})

suite('rows that MikroORM writes in two steps', () => {
  const Person = defineEntity({
    name: 'Person',
    properties: {
      id: p.integer().primary(),
      name: p.string(),
      seat: p.integer().nullable().unique(),
      phone: p.string().nullable().unique(),
      boss: () => p.manyToOne(Person).nullable(),
      friends: () => p.manyToMany(Person)
    }
  })
  const Badge = defineEntity({ name: 'Badge', properties: { id: p.integer().primary(), of: () => p.manyToOne(Person) } })

  async function open (t: TestContext, options = {}) {
    const orm = await openSqlite(t, [Person, Badge], options)
    const heard = listen(orm, [notifyOnChange(Person, { group: 'boss-{boss}', data: ['id', 'seat'] })])
    await orm.em.fork().insert(Person, { id: 9, name: 'eve' })
    const em = orm.em.fork()
    const boss = em.getReference(Person, 9)
    const ann = em.create(Person, { id: 1, name: 'ann', seat: 1, boss })
    const bob = em.create(Person, { id: 2, name: 'bob', seat: 2, boss })
    const moveUp = () => { [ann.seat, bob.seat] = [null, 1] }
    return { orm, em, boss, ann, bob, moveUp, ...heard }
  }
  const created = ['create boss-9 {"id":1,"seat":1}', 'create boss-9 {"id":2,"seat":2}']
  const moved = ['update boss-9 {"id":1,"seat":null,"updated_fields":["seat"]}', 'update boss-9 {"id":2,"seat":1,"updated_fields":["seat"]}']

  for (const implicitTransactions of [true, false]) {
    const when = implicitTransactions ? '' : ' without transactions'

    test(`new rows that refer to each other are announced to their final groups${when}`, async (t) => {
      const { em, ann, bob, take } = await open(t, { implicitTransactions })

      ann.boss = bob
      bob.boss = ann
      await em.flush()

      assert.deepEqual(take().sort(), ['create boss-1 {"id":2,"seat":2}', 'create boss-2 {"id":1,"seat":1}'])
    })

    test(`two rows that swap a unique value are announced once each${when}`, async (t) => {
      const { em, moveUp, take } = await open(t, { implicitTransactions })
      await em.flush()
      take()

      moveUp()
      await em.flush()

      assert.deepEqual(take().sort(), moved)
    })
  }

  test('are not announced again by a flush that was queued behind theirs', async (t) => {
    const { em, moveUp, bob, take } = await open(t)
    await em.flush()
    take()

    moveUp()
    em.getEventManager().registerSubscriber({ afterFlush () { bob.name = 'robert' } })
    await Promise.all([em.flush(), em.flush()])

    assert.deepEqual(take().sort(), [moved[0], 'update boss-9 {"id":2,"seat":1,"updated_fields":["name"]}', moved[1]])
  })

  test('are announced once if the flush fails after them and the transaction continues', async (t) => {
    const { em, orm, boss, moveUp, take } = await open(t)
    await em.flush()
    await orm.em.fork().insert(Badge, { id: 1, of: 9 })
    take()

    await em.begin()
    moveUp()
    em.remove(boss)
    await assert.rejects(em.flush(), /FOREIGN KEY/)
    em.clear()
    await em.transactional(async (em) => { em.create(Person, { id: 3, name: 'dan', boss: em.getReference(Person, 9) }) })
    await em.commit()

    assert.deepEqual(take().sort(), ['create boss-9 {"id":3,"seat":null}', ...moved])
  })

  test('new rows in collections of each other are announced once each', async (t) => {
    const { em, ann, bob, take } = await open(t)

    ann.friends.add(bob)
    bob.friends.add(ann)
    await em.flush()

    assert.deepEqual(take().sort(), created)
  })
})

suite('an update that another subscriber adds to a flush', () => {
  const Todo = defineEntity({
    name: 'Todo',
    properties: { id: p.integer().primary(), title: p.string(), version: p.integer().version() }
  })
  const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), text: p.string() } })

  async function open (t: TestContext) {
    const orm = await openSqlite(t, [Todo, Note])
    const heard = listen(orm, [
      notifyOnChange(Todo, { group: '{title}', data: ['id'] }),
      notifyOnChange(Todo, { group: '{title}', data: ['version'] })
    ])
    await orm.em.fork().insert(Todo, { title: 'one' })
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1)
    orm.em.getEventManager().registerSubscriber({
      onFlush ({ uow }) {
        todo.title = 'two'
        uow.computeChangeSet(todo)
      }
    })
    em.create(Note, { text: 'begins the flush' })
    return { em, todo, ...heard }
  }

  test('is announced like any other', async (t) => {
    const { em, take } = await open(t)

    await em.flush()

    assert.deepEqual(take(), ['delete one {"id":1}', 'delete one {"version":1}', 'create two {"id":1}', 'create two {"version":2}'])
  })

  test('to a row that the application changed too is announced with the row before both changes', async (t) => {
    const { em, todo, take } = await open(t)

    await em.begin()
    todo.title = 'changed by the app'
    await em.flush()
    await em.commit()

    assert.deepEqual(take(), ['delete one {"id":1}', 'delete one {"version":1}', 'create two {"id":1}', 'create two {"version":2}'])
  })

  test('in a transaction of the application sends only the key to the group that the row leaves: the old version is not known', async (t) => {
    const { em, take, logged } = await open(t)

    await em.begin()
    await em.flush()
    await em.commit()

    assert.deepEqual(take(), ['delete one {"id":1}', 'delete one {"id":1}', 'create two {"id":1}', 'create two {"version":2}'])
    assert.deepEqual(logged, [])
  })
})

test('a polymorphic relation has its old value in the view of a row before its change', async (t) => {
  const Post = defineEntity({ name: 'Post', properties: { id: p.integer().primary(), title: p.string() } })
  const Photo = defineEntity({ name: 'Photo', properties: { id: p.integer().primary(), url: p.string() } })
  const Like = defineEntity({ name: 'Like', properties: { id: p.integer().primary(), of: () => p.manyToOne([Post, Photo]) } })
  const orm = await openSqlite(t, [Post, Photo, Like])
  const { take, logged } = listen(orm, [notifyOnChange(Like, { group: ({ of }) => `${of.constructor.name.toLowerCase()}-${of.id}` })])
  const em = orm.em.fork()

  const like = em.create(Like, { of: em.create(Post, { title: 'one' }) })
  await em.flush()
  like.of = em.create(Photo, { url: 'two' })
  await em.flush()
  em.remove(like)
  await em.flush()

  assert.deepEqual(logged, [])
  assert.deepEqual(take(), ['create post-1 {"id":1}', 'delete post-1 {"id":1}', 'create photo-1 {"id":1}', 'delete photo-1 {"id":1}'])
})
