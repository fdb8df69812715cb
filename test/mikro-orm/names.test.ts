import assert from 'node:assert/strict'
import test from 'node:test'
import { defineEntity, p } from '@mikro-orm/core'
import { notifyOnChange, notifyOnCreate } from '../../lib/mikro-orm/index.ts'
import { listen, openServer, openSqlite } from './support.ts'

const UUID = '3F2504E0-4F89-41D3-9A0C-0305E82C3301'
const lower = UUID.toLowerCase()

test('gives different groups to rows whose joined values are the same text', async (t) => {
  const Doc = defineEntity({ name: 'Doc', properties: { id: p.integer().primary(), tenant: p.string(), name: p.string() } })
  const orm = await openSqlite(t, [Doc])
  const { take } = listen(orm, [
    notifyOnCreate(Doc, { group: 'doc-{tenant}-{name}' }),
    notifyOnCreate(Doc, { group: 'doc:{tenant}:{name}' }),
    notifyOnCreate(Doc, { group: 'doc.{tenant}x{name}.all' })
  ])
  const em = orm.em.fork()

  em.create(Doc, { tenant: '1-2:x', name: '3' })
  em.create(Doc, { tenant: '1', name: '2:x-3x' })
  await em.flush()

  assert.deepEqual(take(), [
    'create doc-1%2D2%3Ax-3 {"id":1}', 'create doc:1-2%3Ax:3 {"id":1}', 'create doc.1-2%3A%78x3.all {"id":1}',
    'create doc-1-2%3Ax-3x {"id":2}', 'create doc:1:2%3Ax-3x {"id":2}', 'create doc.1x2%3Ax-3x.all {"id":2}'
  ])
})

test('refuses a template whose values cannot be told apart', async (t) => {
  const Doc = defineEntity({ name: 'Doc', properties: { id: p.integer().primary(), a: p.string(), json: p.json<unknown>() } })
  const orm = await openSqlite(t, [Doc])

  for (const [group, message] of [
    ['doc-{a}{id}', /'doc-\{a\}\{id\}': expected a text between two placeholders/],
    ['doc-{a}%{id}', /expected a text between two placeholders/],
    ['doc-{json}', /not for JSON 'json'/]
  ] as const) {
    assert.throws(() => listen(orm, [notifyOnCreate(Doc, { group })]), { code: 'RP_ERR_INVALID_TEMPLATE', message })
  }
})

test('writes a polymorphic relation with its discriminator', async (t) => {
  const Post = defineEntity({ name: 'Post', properties: { id: p.integer().primary() } })
  const Photo = defineEntity({ name: 'Photo', properties: { id: p.integer().primary() } })
  const Note = defineEntity({ name: 'Note', properties: { id: p.integer().primary(), on: () => p.manyToOne([Post, Photo]).nullable() } })
  const orm = await openSqlite(t, [Post, Photo, Note])
  const { take } = listen(orm, [notifyOnCreate(Note, { group: 'note-{on}' })])
  const em = orm.em.fork()

  em.create(Note, { on: em.create(Post, { id: 5 }) })
  em.create(Note, { on: em.create(Photo, { id: 5 }) })
  em.create(Note, { on: null })
  await em.flush()

  assert.deepEqual(take(), ['create note-post:5 {"id":1}', 'create note-photo:5 {"id":2}'])
})

test('writes the parts of a composite key in the same way in each template', async (t) => {
  const Seat = defineEntity({ name: 'Seat', properties: { row: p.string().primary(), place: p.integer().primary() } })
  const Ticket = defineEntity({
    name: 'Ticket',
    properties: { seat: () => p.manyToOne(Seat).primary(), day: p.string().primary(), by: () => p.manyToOne(Seat).nullable() }
  })
  const Bag = defineEntity({ name: 'Bag', properties: { id: p.integer().primary(), ticket: () => p.manyToOne(Ticket).nullable() } })
  const orm = await openSqlite(t, [Seat, Ticket, Bag])
  const { take } = listen(orm, [notifyOnCreate(Ticket), notifyOnCreate(Bag, { group: 'bag-{ticket}-{id}' }), notifyOnCreate(Ticket, { group: 'by-{by}' })])
  const em = orm.em.fork()

  const seat = em.create(Seat, { row: 'A:-1', place: 2 })
  const ticket = em.create(Ticket, { seat, day: 'mon-tue', by: null })
  em.create(Bag, { ticket })
  em.create(Bag, { ticket: null })
  await em.flush()

  assert.deepEqual(take(), [
    'create ticket-A%3A-1:2:mon-tue {"id":{"seat":{"row":"A:-1","place":2},"day":"mon-tue"}}',
    'create bag-A%3A%2D1:2:mon%2Dtue-1 {"id":1}'
  ])
})

test('names the same groups for relations that are serialized as objects', async (t) => {
  const List = defineEntity({ name: 'List', properties: { id: p.integer().primary(), name: p.string() } })
  const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), list: () => p.manyToOne(List) } })
  const orm = await openSqlite(t, [List, Todo], { serialization: { forceObject: true } })
  const { take } = listen(orm, [notifyOnCreate(Todo, { group: 'list-{list}' })])
  const em = orm.em.fork()

  em.create(Todo, { list: em.create(List, { id: 7, name: 'seven' }) })
  await em.flush()

  assert.deepEqual(take(), ['create list-7 {"id":1}'])
})

test('writes a UUID column in lower case, and a text column unchanged', async (t) => {
  const Doc = defineEntity({ name: 'Doc', properties: { id: p.uuid().primary(), text: p.string() } })
  const Page = defineEntity({ name: 'Page', properties: { id: p.integer().primary(), doc: () => p.manyToOne(Doc) } })
  const Other = defineEntity({ name: 'Other', properties: { id: p.string().columnType('uuid').primary() } })
  const orm = await openSqlite(t, [Doc, Page, Other])
  const { take } = listen(orm, [
    notifyOnCreate(Doc), notifyOnCreate(Doc, { group: 'text-{text}' }), notifyOnCreate(Page, { group: 'doc-{doc}-{id}' }), notifyOnCreate(Other)
  ])
  const em = orm.em.fork()

  const doc = em.create(Doc, { id: UUID, text: UUID })
  em.create(Page, { doc })
  em.create(Page, { doc: em.create(Doc, { id: 'Fa-12', text: '' }) })
  em.create(Other, { id: UUID })
  await em.flush()

  assert.deepEqual(new Set(take().map((told) => told.split(' ')[1])), new Set([
    `doc-${lower}`, `text-${UUID}`, 'doc-Fa-12', 'text-', `doc-${lower}-1`, 'doc-%46%61%2D%31%32-2', `other-${lower}`
  ]))
})

test('writes keys that are not strings in their JSON form', async (t) => {
  const File = defineEntity({ name: 'File', properties: { hash: p.blob().primary(), tags: p.array() } })
  const Copy = defineEntity({ name: 'Copy', properties: { id: p.integer().primary(), of: () => p.manyToOne(File) } })
  const orm = await openSqlite(t, [File, Copy])
  const { take } = listen(orm, [notifyOnCreate(File, { group: 'file-{hash}' }), notifyOnCreate(File, { group: 'tags-{tags}' })])
  const em = orm.em.fork()

  em.create(File, { hash: Buffer.from([1, 2, 255]), tags: ['a', 'b'] })
  await em.flush()

  assert.deepEqual(take().map((told) => told.split(' ')[1]), ['file-AQL%2F', 'tags-%5B%22a%22%2C%22b%22%5D'])
})

test('reports a name that is too long or cannot be encoded, and never cuts it', async (t) => {
  const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary(), name: p.string() } })
  const orm = await openSqlite(t, [Tag])
  const { take, logged } = listen(orm, [notifyOnChange(Tag, { group: 'tag-{name}', readBack: false })])
  const em = orm.em.fork()

  em.create(Tag, { name: 'x'.repeat(196) })
  em.create(Tag, { name: 'x'.repeat(197) })
  em.create(Tag, { name: 'half \ud800' })
  await em.flush()

  assert.deepEqual(take(), [`create tag-${'x'.repeat(196)} {"id":1}`])
  assert.deepEqual(logged.map(({ entity, key, err }) => [entity, key, (err as { code?: string }).code]), [
    ['Tag', '2', 'RP_ERR_INVALID_GROUP'], ['Tag', '3', 'RP_ERR_INVALID_GROUP']
  ])
})

for (const server of ['postgresql', 'mariadb'] as const) {
  test(`${server}: announces a row to the group of its stored key, whatever the case of the given key`, async (t) => {
    const Doc = defineEntity({ name: 'Doc', properties: { id: p.uuid().primary(), title: p.string() } })
    const Big = defineEntity({ name: 'Big', properties: { id: p.bigint().primary(), title: p.string() } })
    const orm = await openServer(t, server, [Doc, Big])
    if (orm === undefined) return
    const { take } = listen(orm, [notifyOnChange(Doc), notifyOnChange(Big)])
    const em = orm.em.fork()
    em.create(Doc, { id: UUID, title: 'one' })
    em.create(Big, { id: 5n, title: 'one' })
    await em.flush()

    const other = orm.em.fork()
    const doc = await other.findOneOrFail(Doc, UUID)
    const big = await other.findOneOrFail(Big, 5n)
    doc.title = 'two'
    big.title = 'two'
    await other.flush()

    assert.deepEqual(new Set(take().map((told) => told.split(' ').slice(0, 2).join(' '))), new Set([
      `create doc-${lower}`, 'create big-5', `update doc-${lower}`, 'update big-5'
    ]))
  })
}
