import assert from 'node:assert/strict'
import test from 'node:test'
import { defineEntity, p } from '@mikro-orm/core'
import {
  ChangeSubscriber,
  notifyOnChange,
  notifyOnCreate,
  notifyOnDelete,
  notifyOnUpdate,
  type NotifyOptions,
  type NotifyRule
} from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
const Address = defineEntity({ name: 'Address', embeddable: true, properties: { city: p.string() } })
const Todo = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    address: () => p.embedded(Address).nullable(),
    tags: () => p.manyToMany(Tag)
  }
})
const Stranger = defineEntity({ name: 'Stranger', properties: { id: p.integer().primary() } })

/** Options that do not compile. */
const wrong = (options: unknown) => options as NotifyOptions<object>

for (const [options, code, mention] of [
  [{ groups: 'x' }, 'RP_ERR_UNKNOWN_OPTION', 'groups'],
  [{ group: 7 }, 'RP_ERR_INVALID_OPTION', '7'],
  [{ group: null }, 'RP_ERR_INVALID_OPTION', 'null'],
  [{ data: 'id' }, 'RP_ERR_INVALID_OPTION', 'id'],
  [{ data: ['id', 7] }, 'RP_ERR_INVALID_OPTION', '["id",7]'],
  [{ alwaysSend: 'no' }, 'RP_ERR_INVALID_OPTION', 'no'],
  [{ populate: 'list' }, 'RP_ERR_INVALID_OPTION', 'list'],
  [{ readBack: 'no' }, 'RP_ERR_INVALID_OPTION', 'no'],
  [{ readBack: false, populate: ['list'] }, 'RP_ERR_INVALID_OPTION', 'readBack: false']
] as const) {
  test(`refuses the options ${JSON.stringify(options)}`, () => {
    for (const declare of [notifyOnChange, notifyOnCreate, notifyOnUpdate, notifyOnDelete]) {
      assert.throws(() => declare(Todo, wrong(options)), (error: Error & { code: string }) => {
        return error.code === code && error.message.includes(mention)
      })
    }
  })
}

for (const [options, code, mentions] of [
  [{ group: 'todo-{nope}' }, 'RP_ERR_UNKNOWN_PROPERTY', ['nope', 'Todo', 'todo-{nope}']],
  [{ group: 'todo-{}' }, 'RP_ERR_UNKNOWN_PROPERTY', ['todo-{}']],
  [{ group: 'todo-{toString}' }, 'RP_ERR_UNKNOWN_PROPERTY', ['toString']],
  [{ group: 'todo-{id' }, 'RP_ERR_INVALID_TEMPLATE', ['todo-{id']],
  // eslint-disable-next-line no-template-curly-in-string
  [{ group: 'todo-${id}' }, 'RP_ERR_INVALID_TEMPLATE', ['without a $']],
  [{ group: 'todo-id}' }, 'RP_ERR_INVALID_TEMPLATE', ['todo-id}']],
  [{ group: 'to do-{id}' }, 'RP_ERR_INVALID_TEMPLATE', ['to do-{id}']],
  [{ group: '' }, 'RP_ERR_INVALID_TEMPLATE', ["''"]],
  [{ group: 'todo-{tags}' }, 'RP_ERR_INVALID_TEMPLATE', ['tags']],
  [{ group: 'todo-{address}' }, 'RP_ERR_INVALID_TEMPLATE', ['address']],
  [{ data: ['id', 'nope'] }, 'RP_ERR_UNKNOWN_PROPERTY', ['nope', 'Todo', 'data']],
  [{ data: ['address_city'] }, 'RP_ERR_UNKNOWN_PROPERTY', ['address_city']],
  [{ data: ['constructor'] }, 'RP_ERR_UNKNOWN_PROPERTY', ['constructor']]
] as const) {
  test(`refuses the options ${JSON.stringify(options)} for the entity`, async (t) => {
    const orm = await openSqlite(t, [Todo, Tag, Address])

    assert.throws(() => listen(orm, [notifyOnChange(Todo, wrong(options))]), (error: Error & { code: string }) => {
      return error.code === code && mentions.every((mention) => error.message.includes(mention))
    })
  })
}

test('refuses an unknown entity', async (t) => {
  const orm = await openSqlite(t, [Tag])

  for (const rule of [notifyOnChange(Stranger), notifyOnChange(class Unknown {})]) {
    assert.throws(() => listen(orm, [rule]), { code: 'RP_ERR_UNKNOWN_ENTITY', message: /'(Stranger|Unknown)'/ })
  }
})

test('refuses values that are not rules', () => {
  for (const notify of [{}, [Todo], [null], [{ types: 'create' }]]) {
    assert.throws(() => new ChangeSubscriber({ notify: notify as unknown as NotifyRule[] }), { code: 'RP_ERR_INVALID_OPTION', message: /notify/ })
  }
})

test('applies all rules of an entity, in their order', async (t) => {
  const orm = await openSqlite(t, [Todo, Tag, Address])
  const { take } = listen(orm, [
    notifyOnCreate(Todo, { group: 'new' }),
    notifyOnUpdate(Todo, { group: 'changed', data: ['title'] }),
    notifyOnDelete(Todo, { group: 'gone' }),
    notifyOnChange(Todo)
  ])
  const em = orm.em.fork()

  const todo = em.create(Todo, { title: 'one' })
  await em.flush()
  todo.title = 'two'
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), [
    'create new {"id":1}',
    'create todo-1 {"id":1}',
    'update changed {"title":"two","updated_fields":["title"]}',
    'update todo-1 {"id":1,"updated_fields":["title"]}',
    'delete gone {"id":1}',
    'delete todo-1 {"id":1}'
  ])
})

test('does not announce entities without a rule', async (t) => {
  const orm = await openSqlite(t, [Todo, Tag, Address])
  const { take } = listen(orm, [notifyOnChange(Todo)])
  const em = orm.em.fork()

  const tag = em.create(Tag, {})
  await em.flush()
  em.remove(tag)
  await em.flush()

  assert.deepEqual(take(), [])
})

test('applies the rules of the subscriber and those of connect()', async (t) => {
  const orm = await openSqlite(t, [Tag])
  const { take } = listen(orm, [notifyOnCreate(Tag, { group: 'second' })], new ChangeSubscriber({ notify: [notifyOnCreate(Tag, { group: 'first' })] }))

  const em = orm.em.fork()
  em.create(Tag, {})
  await em.flush()

  assert.deepEqual(take(), ['create first {"id":1}', 'create second {"id":1}'])
})

test('refuses a value that is not an entity, and names it', () => {
  for (const entity of ['Todo', undefined, { name: 'Todo' }]) {
    assert.throws(() => notifyOnChange(entity as never), { code: 'RP_ERR_INVALID_OPTION', message: /'entity': expected an entity class or a result of defineEntity/ })
  }
})
