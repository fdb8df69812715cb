import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager, type InferEntity } from '@mikro-orm/sql'
import type { ChangeDropEvent } from '../../lib/index.ts'
import { notifyOnChange, notifyOnCreate, notifyOnUpdate } from '../../lib/mikro-orm/index.ts'
import { ChangeSubscriber } from '../../lib/mikro-orm/change-subscriber.ts'
import type { NotifyRule } from '../../lib/mikro-orm/declare/rules.ts'
import { record } from '../support/events.ts'
import { openSqlite } from './support.ts'

const Todo = defineEntity({
  name: 'Todo',
  properties: { id: p.integer().primary(), title: p.string(), note: p.string().default('').lazy() }
})
type Todo = InferEntity<typeof Todo>

interface Line {
  message: string
  [field: string]: unknown
}

/** Opens an ORM with a connected subscriber, whose debug lines are collected. */
async function open (t: TestContext, notify: NotifyRule[], level = 'debug', publish = (_group: string) => {}) {
  const orm = await openSqlite(t, [Todo])
  const lines: Line[] = []
  const log = {
    level,
    debug: (context: object, message: string) => { lines.push({ ...context, message }) },
    warn: () => {},
    error: () => {}
  }
  new ChangeSubscriber().connect({ orm, notify, publish, log })
  return { orm, em: orm.em.fork(), lines, log }
}

interface Case {
  what: string
  rule: NotifyRule
  work (em: EntityManager, todo: Todo): Promise<unknown>
  told: object
  words: RegExp
}

const failure = new Error('on purpose')
const rename = (em: EntityManager, todo: Todo) => {
  todo.title = 'b'
  return em.flush()
}

const cases: Case[] = [
  {
    what: 'the rule is for another kind of change',
    rule: notifyOnCreate(Todo),
    work: rename,
    told: { reason: 'kind', entity: 'Todo', key: '1', type: 'update' },
    words: /rule is for changes of another kind/
  },
  {
    what: 'alwaysSend is false and no sent property changed',
    rule: notifyOnUpdate(Todo, { data: ['id'], alwaysSend: false }),
    work: rename,
    told: { reason: 'unchanged', entity: 'Todo', key: '1', type: 'update' },
    words: /'alwaysSend' is false/
  },
  {
    what: 'the group function returns null',
    rule: notifyOnUpdate(Todo, { group: () => null }),
    work: rename,
    told: { reason: 'no_group', entity: 'Todo', key: '1', type: 'update' },
    words: /in no group/
  },
  {
    what: 'the row was created and deleted in one transaction',
    rule: notifyOnChange(Todo),
    work: (em) => em.transactional(async (em) => {
      const todo = em.create(Todo, { id: 2, title: 'a' })
      await em.flush()
      await em.remove(todo).flush()
    }),
    told: { reason: 'short_lived', entity: 'Todo', key: undefined, type: 'delete' },
    words: /created and deleted/
  },
  {
    what: 'it was rolled back',
    rule: notifyOnUpdate(Todo, { data: ['id', 'title'] }),
    async work (em, todo) {
      await em.begin()
      await rename(em, todo)
      await em.rollback()
    },
    told: { reason: 'rolled_back', entity: 'Todo', type: 'update', group: 'todo-1' },
    words: /rolled back/
  },
  {
    what: 'a property is not loaded',
    rule: notifyOnUpdate(Todo, { data: ['id', 'note'], readBack: false }),
    work: rename,
    told: { reason: 'not_loaded', entity: 'Todo', key: '1' },
    words: /not loaded/
  },
  {
    what: 'the row is not there',
    rule: notifyOnUpdate(Todo),
    async work (em, todo) {
      await em.nativeDelete(Todo, 1)
      await rename(em, todo)
    },
    told: { reason: 'missing', entity: 'Todo', key: '1', type: 'update' },
    words: /the row is not there/
  },
  {
    what: 'a function throws',
    rule: notifyOnUpdate(Todo, { data () { throw failure } }),
    work: rename,
    told: { reason: 'failed', entity: 'Todo', key: '1' },
    words: /an error occurred/
  }
]

suite('dropped changes', () => {
  for (const { what, rule, work, told, words } of cases) {
    test(`${what}: is published on the channel`, async (t) => {
      const events = record(t, 'drop')
      const { em } = await open(t, [rule], 'info')
      await em.insert(Todo, { id: 1, title: 'a' })

      await work(em, await em.findOneOrFail(Todo, 1))

      const [{ error: _, ...event } = { error: undefined }, ...more] = events.drop as ChangeDropEvent[]
      assert.deepEqual(event, told)
      assert.deepEqual(more, [])
    })

    test(`${what}: is logged at level debug`, async (t) => {
      const { em, lines } = await open(t, [rule])
      await em.insert(Todo, { id: 1, title: 'a' })

      await work(em, await em.findOneOrFail(Todo, 1))

      assert.deepEqual(lines.map(({ message: _, err: __, ...line }) => line), [told])
      assert.match(String(lines[0]?.message), words)
    })

    test(`${what}: is not logged at level info`, async (t) => {
      const { em, lines } = await open(t, [rule], 'info')
      await em.insert(Todo, { id: 1, title: 'a' })

      await work(em, await em.findOneOrFail(Todo, 1))

      assert.deepEqual(lines, [])
    })
  }

  test('follows changes of the log level, and logs at trace too', async (t) => {
    const { em, lines, log } = await open(t, [notifyOnUpdate(Todo)], 'info')
    const create = (id: number) => {
      em.create(Todo, { id, title: 'a' })
      return em.flush()
    }

    await create(1)
    log.level = 'trace'
    await create(2)
    log.level = 'warn'
    await create(3)

    assert.deepEqual(lines.map(({ key }) => key), ['2'])
  })

  test('decides about a drop at the end of the transaction, by its merged changes', async (t) => {
    const events = record(t, 'drop', 'notify')
    const { em } = await open(t, [notifyOnUpdate(Todo, { data: ['title'], alwaysSend: false })], 'info')
    await em.insert(Todo, { id: 1, title: 'a' })
    const todo = await em.findOneOrFail(Todo, 1, { populate: ['note'] })

    await em.begin()
    todo.note = 'b'
    await em.flush()
    assert.deepEqual(events.order, [])
    todo.title = 'b'
    await em.flush()
    await em.commit()

    assert.deepEqual(events.order, ['notify'])
  })

  test('reports the changes of a rolled back savepoint, and publishes the others', async (t) => {
    const events = record(t, 'drop', 'notify')
    const { em } = await open(t, [notifyOnCreate(Todo), notifyOnUpdate(Todo)], 'info')

    await em.transactional(async (em) => {
      em.create(Todo, { id: 1, title: 'a' })
      await em.flush()
      await em.transactional(async (em) => {
        em.create(Todo, { id: 2, title: 'a' })
        await em.flush()
        throw failure
      }).catch(() => {})
    })

    const dropped = events.drop.filter(({ reason }) => reason === 'rolled_back')
    assert.deepEqual(dropped, [{ reason: 'rolled_back', entity: 'Todo', type: 'create', group: 'todo-2' }])
    assert.deepEqual(events.notify.map(({ group }) => group), ['todo-1'])
  })

  test('reports an error with the thrown value', async (t) => {
    const events = record(t, 'drop')
    const { em, lines } = await open(t, [notifyOnCreate(Todo, { group () { throw failure } })])

    em.create(Todo, { id: 1, title: 'a' })
    await em.flush()

    assert.deepEqual(events.drop, [{ reason: 'failed', entity: 'Todo', key: '1', error: failure }])
    assert.equal(lines[0]?.err, failure)
  })

  test('reports a change in an unknown transaction', async (t) => {
    const events = record(t, 'drop')
    const { orm } = await open(t, [notifyOnCreate(Todo)], 'info')

    await orm.em.fork().getConnection().transactional(async (trx) => {
      const em = orm.em.fork()
      em.setTransactionContext(trx)
      em.create(Todo, { id: 1, title: 'a' })
      await em.flush()
    })

    const [event] = events.drop as ChangeDropEvent[]
    assert.deepEqual([event?.reason, event?.entity, event?.key], ['failed', 'Todo', '1'])
    assert.match(String(event?.error), /not begun through the EntityManager/)
  })

  test('reports a change that the broker refuses', async (t) => {
    const events = record(t, 'drop', 'notify')
    const { em } = await open(t, [notifyOnCreate(Todo)], 'info', () => { throw failure })

    em.create(Todo, { id: 1, title: 'a' })
    await em.flush()

    assert.deepEqual(events.drop, [{ reason: 'failed', entity: 'Todo', type: 'create', group: 'todo-1', error: failure }])
    assert.deepEqual(events.notify, [])
  })
})

test('the channel rohrpost:notify has entity, type, group and size', async (t) => {
  const events = record(t, 'notify', 'drop')
  const { em } = await open(t, [notifyOnChange(Todo, { group: ({ id }) => ['all', `todo-${id}`], data: ['title'] })])

  em.create(Todo, { id: 1, title: 'é' })
  await em.flush()

  assert.deepEqual(events.notify.map(({ size: _, ...event }) => event), [
    { entity: 'Todo', type: 'create', group: 'all' }, { entity: 'Todo', type: 'create', group: 'todo-1' }
  ])
  const rest = '{"id":,"type":"subscription-update","data":{"group":"all","type":"create","object":{"title":"é"}}}'
  const digits = Number(events.notify[0]?.size) - Buffer.byteLength(rest)
  assert.ok(digits >= 1 && digits <= 10)
  assert.deepEqual(events.drop, [])
})

test('accepts a logger without the level debug', async (t) => {
  const orm = await openSqlite(t, [Todo])
  new ChangeSubscriber().connect({ orm, notify: [notifyOnUpdate(Todo)], publish () {}, log: { warn () {}, error () {} } })
  const em = orm.em.fork()

  em.create(Todo, { id: 1, title: 'a' })

  await assert.doesNotReject(em.flush())
})
