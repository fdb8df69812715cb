/** Rules and subscriptions must write the same row with the same group name. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { Type } from '@sinclair/typebox'
import { defineEntity, p } from '@mikro-orm/core'
import { RohrpostClient } from '../../lib/client/index.ts'
import rohrpost from '../../lib/index.ts'
import { notifyOnChange, notifyOnCreate, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { createApp, listen, start, type LogLine } from '../support/server.ts'
import { openSqlite } from './support.ts'

const UUID = '3F2504E0-4F89-41D3-9A0C-0305E82C3301'
const lower = UUID.toLowerCase()

test('a client receives the changes of the row whose key it sends, in the form in which it reads the key', async (t) => {
  const Doc = defineEntity({ name: 'Doc', properties: { id: p.uuid().primary() } })
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.string().primary() } })
  const Big = defineEntity({ name: 'Big', properties: { id: p.bigint().primary() } })
  const Seat = defineEntity({ name: 'Seat', properties: { doc: () => p.manyToOne(Doc).primary(), row: p.string().primary() } })
  const orm = await openSqlite(t, [Doc, Tag, Big, Seat])
  const server = await start(t, {
    with: async (app) => {
      await app.register(rohrpostMikroOrm, {
        orm,
        // node:sqlite cannot read integers beyond 2^53
        notify: [Doc, Tag, Big, Seat].map((entity) => notifyOnChange(entity as typeof Doc, { readBack: entity as unknown !== Big }))
      })
      app.rohrpost
        .group('doc', { id: Type.String(), authorize: () => true })
        .group('tag', { id: Type.String(), authorize: () => true })
        .group('big', { authorize: () => true })
        .group('seat', { id: Type.Tuple([Type.String(), Type.String()]), authorize: () => true })
    }
  })
  const client = await server.connect()
  const names = []
  for (const [type, id] of [['doc', UUID], ['tag', UUID], ['tag', lower], ['tag', 'info@example.org'], ['big', '9007199254740993'], ['big', 7], ['big', '7'], ['seat', [UUID, 'a:b']]]) {
    names.push((await client.call('subscribe', { type, id })).data)
  }
  assert.deepEqual(names.map((data) => (data as { group: string }).group), [
    `doc-${lower}`, `tag-${UUID}`, `tag-${lower}`, 'tag-info%40example.org', 'big-9007199254740993', 'big-7', 'big-7', `seat-${lower}:a%3Ab`
  ])

  const em = orm.em.fork()
  const doc = em.create(Doc, { id: UUID })
  for (const id of [UUID, lower, 'info@example.org']) em.create(Tag, { id })
  for (const id of [9007199254740993n, 7n]) em.create(Big, { id })
  em.create(Seat, { doc, row: 'a:b' })
  await em.flush()

  const heard = (await client.untilPong()).map(({ data }) => (data as { group: string }).group)
  assert.deepEqual(heard.sort(), [...new Set(names.map((data) => (data as { group: string }).group))].sort())
})

test('a group type keeps the case of a UUID if the rule names a text column', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.string().primary(), other: p.uuid() } })
  const orm = await openSqlite(t, [Tag])
  const server = await start(t, {
    with: async (app) => {
      await app.register(rohrpostMikroOrm, {
        orm,
        notify: [notifyOnCreate(Tag), notifyOnCreate(Tag, { group: 'both-{id}' }), notifyOnCreate(Tag, { group: 'both-{other}' }), notifyOnCreate(Tag, { group: 'long-{id}-{other}' })]
      })
      for (const type of ['tag', 'both', 'long']) app.rohrpost.group(type, { authorize: () => true })
    }
  })
  const client = await server.connect()

  for (const [type, id] of [['tag', UUID], ['both', lower], ['long', lower]]) {
    assert.deepEqual((await client.call('subscribe', { type, id: UUID })).data, { group: `${type}-${id}` })
  }
})

test('warns once, when the app is ready, of a rule whose groups no client can subscribe to', async (t) => {
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: p.integer(), text: p.string() } })
  const orm = await openSqlite(t, [Todo])
  const logs: LogLine[] = []
  const app = createApp(logs)
  t.after(() => app.close())
  await app.register(rohrpost)
  await app.register(rohrpostMikroOrm, {
    orm,
    notify: [
      notifyOnCreate(Todo), notifyOnChange(Todo, { group: 'todo-{id}' }),
      notifyOnChange(Todo, { group: 'list-{list}' }), notifyOnChange(Todo, { group: 'todos' }), notifyOnChange(Todo, { group: 'all' }),
      // clients cannot subscribe to these names
      notifyOnChange(Todo, { group: 'user:{list}' }), notifyOnChange(Todo, { group: 'user{id}' }), notifyOnChange(Todo, { group: '{text}' }),
      notifyOnChange(Todo, { group: (todo) => `own-${todo.id}` })
    ]
  })
  app.rohrpost.group('list', { authorize: () => true }).group('all', { id: false, authorize: () => true })
  await listen(t, app)

  const warnings = logs.filter(({ level }) => level === 40)
  assert.deepEqual(warnings.map(({ type, entity }) => [type, entity]), [['todo', 'Todo'], ['todos', 'Todo']])
  assert.match(String(warnings[0]?.msg), /declare them with app\.rohrpost\.group\('todo', …\), or ignore this if/)
})

test('logs no warning if the app has its own handler for subscribe', async (t) => {
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary() } })
  const orm = await openSqlite(t, [Todo])
  const server = await start(t, {
    with: async (app) => {
      await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo)] })
      app.rohrpost.handle('subscribe', (message, connection) => connection.join('todo-1'))
    }
  })

  assert.deepEqual(server.logs.filter(({ level }) => level === 40), [])
})

test('RohrpostClient receives the changes of a row by its key, however the group name is encoded', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { name: p.string().primary() } })
  const Seat = defineEntity({ name: 'Seat', properties: { row: p.string().primary(), place: p.integer().primary() } })
  const orm = await openSqlite(t, [Tag, Seat])
  const server = await start(t, {
    with: async (app) => {
      await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Tag), notifyOnChange(Seat)] })
      app.rohrpost
        .group('tag', { id: Type.String(), authorize: () => true })
        .group('seat', { id: Type.Tuple([Type.String(), Type.Integer()]), authorize: () => true })
    }
  })
  const client = new RohrpostClient(`${server.http.replace('http', 'ws')}/ws/rohrpost`)
  t.after(() => client.close())
  const [tags, seats] = [client.changes({ type: 'tag', id: '50% c++' }), client.changes({ type: 'seat', id: ['A:1', 2] })]
  const known = await client.subscribe({ type: 'tag', id: 'info@example.org' })
  const listened = Promise.withResolvers<unknown>()
  client.on(known.group, (_error, change) => listened.resolve(change.object))
  await client.subscribe({ type: 'seat', id: ['A:1', 2] })

  const em = orm.em.fork()
  for (const name of ['50% c++', 'info@example.org']) em.create(Tag, { name })
  em.create(Seat, { row: 'A:1', place: 2 })
  await em.flush()

  assert.deepEqual((await tags.next()).value, { group: 'tag-50%25%20c%2B%2B', type: 'create', object: { id: '50% c++' } })
  assert.deepEqual((await seats.next()).value, { group: 'seat-A%3A1:2', type: 'create', object: { id: { row: 'A:1', place: 2 } } })
  assert.deepEqual(await listened.promise, { id: 'info@example.org' })
})

test('accepts a composite key as text if the rule of the group type has as many parts', async (t) => {
  const Seat = defineEntity({ name: 'Seat', properties: { row: p.string().primary(), place: p.integer().primary() } })
  const orm = await openSqlite(t, [Seat])
  const asked: unknown[] = []
  const server = await start(t, {
    with: async (app) => {
      await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Seat)] })
      app.rohrpost.group('seat', { id: Type.String(), authorize: ({ data }) => asked.push(data.id) > 0 })
    }
  })
  const client = await server.connect()

  const names = []
  for (const id of ['A%3A1:2', 'B:3', 'A:1:2', 'A%:2', 'A']) {
    names.push(((await client.call('subscribe', { type: 'seat', id })).data as { group: string }).group)
  }
  const em = orm.em.fork()
  em.create(Seat, { row: 'A:1', place: 2 })
  em.create(Seat, { row: 'B', place: 3 })
  await em.flush()

  // a text of another form must not name another row
  assert.deepEqual(names, ['seat-A%3A1:2', 'seat-B:3', 'seat-A%3A1%3A2', 'seat-A%25%3A2', 'seat-A'])
  assert.deepEqual(asked, ['A%3A1:2', 'B:3', 'A:1:2', 'A%:2', 'A'])
  assert.deepEqual((await client.untilPong()).map(({ data }) => (data as { group: string }).group), ['seat-A%3A1:2', 'seat-B:3'])
})
