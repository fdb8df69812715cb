import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { defineEntity, p, TransactionPropagation, type EntityManager } from '@mikro-orm/core'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const Todo = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    list: p.string().nullable(),
    code: p.string().nullable().unique()
  }
})

const rule = notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'] })

async function open (t: TestContext) {
  const orm = await openSqlite(t, [Todo])
  const heard = listen(orm, [rule])
  return { orm, em: orm.em.fork(), ...heard }
}

const add = (em: EntityManager, title: string, list = 'a') => em.create(Todo, { title, list })

test('an implicit flush is announced once it is committed, in the order of its rows', async (t) => {
  const { em, take } = await open(t)

  const todo = add(em, 'one')
  add(em, 'two')
  await em.flush()
  todo.title = 'three'
  await em.flush()
  em.remove(todo)
  await em.flush()

  assert.deepEqual(take(), [
    'create list-a {"id":1,"title":"one"}',
    'create list-a {"id":2,"title":"two"}',
    'update list-a {"id":1,"title":"three","updated_fields":["title"]}',
    'delete list-a {"id":1,"title":"three"}'
  ])
})

test('the rows of one flush are announced in the order of its statements', async (t) => {
  const { em, take } = await open(t)
  const [one, two] = [em.create(Todo, { title: 'one', list: 'a', code: 'x' }), add(em, 'two')]
  await em.flush()
  take()

  two.title = 'updated after that'
  one.code = null
  em.create(Todo, { title: 'three', list: 'a', code: 'x' })
  await em.flush()

  assert.deepEqual(take(), [
    'update list-a {"id":1,"title":"one","updated_fields":["code"]}',
    'create list-a {"id":3,"title":"three"}',
    'update list-a {"id":2,"title":"updated after that","updated_fields":["title"]}'
  ])
})

test('several flushes of one transaction are announced together, after its commit', async (t) => {
  const { em, take, told } = await open(t)

  await em.transactional(async (em) => {
    const todo = add(em, 'one')
    await em.flush()
    todo.title = 'two'
    await em.flush()
    add(em, 'other')
    await em.flush()
    assert.equal(told.length, 0)
  })

  assert.deepEqual(take(), ['create list-a {"id":1,"title":"two"}', 'create list-a {"id":2,"title":"other"}'])
})

test('begin, commit and rollback decide what is announced', async (t) => {
  const { em, take } = await open(t)

  await em.begin()
  add(em, 'undone')
  await em.flush()
  await em.rollback()
  em.clear()
  await em.begin()
  add(em, 'done')
  await em.commit()

  assert.deepEqual(take(), ['create list-a {"id":1,"title":"done"}'])
})

test('nothing of a failed transaction is announced', async (t) => {
  const { em, take } = await open(t)

  await assert.rejects(em.transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    throw new Error('changed my mind')
  }), /changed my mind/)

  assert.deepEqual(take(), [])
})

test('nothing of a flush that fails half-way is announced', async (t) => {
  const { orm, em, take } = await open(t)
  await orm.em.fork().insert(Todo, { title: 'first', code: 'taken' })

  add(em, 'one')
  em.create(Todo, { title: 'two', list: 'a', code: 'taken' })
  await assert.rejects(em.flush(), /UNIQUE/)

  assert.deepEqual(take(), [])
})

test('a rolled back savepoint takes back its own changes only', async (t) => {
  const { em, take } = await open(t)

  await em.transactional(async (em) => {
    const todo = add(em, 'before')
    await em.flush()
    await em.transactional(async (em) => {
      todo.title = 'inside'
      add(em, 'inner')
      await em.flush()
      throw new Error('inner')
    }).catch(() => {})
    add(em, 'after')
    await em.flush()
  })

  assert.deepEqual(take(), ['create list-a {"id":1,"title":"before"}', 'create list-a {"id":2,"title":"after"}'])
})

test('a released savepoint shares the fate of what it is in', async (t) => {
  const { em, take } = await open(t)
  const nested = (em: EntityManager) => em.transactional(async (em) => {
    add(em, 'middle')
    await em.flush()
    await em.transactional(async (em) => { add(em, 'innermost') })
  })

  await em.transactional(async (em) => {
    add(em, 'outer')
    await em.flush()
    await nested(em)
  })
  await em.transactional(async (em) => {
    await em.transactional(async (em) => {
      await nested(em)
      throw new Error('middle')
    }).catch(() => {})
  })
  await assert.rejects(em.transactional(async (em) => {
    await nested(em)
    throw new Error('outer')
  }))

  assert.deepEqual(take(), [
    'create list-a {"id":1,"title":"outer"}',
    'create list-a {"id":2,"title":"middle"}',
    'create list-a {"id":3,"title":"innermost"}'
  ])
})

test('a savepoint of a name that was used before is undone alone', async (t) => {
  const { em, take } = await open(t)

  await em.transactional(async (em) => {
    await em.transactional(async (em) => { add(em, 'first') })
    await em.transactional(async (em) => {
      add(em, 'second')
      await em.flush()
      throw new Error('second')
    }).catch(() => {})
    await em.transactional(async (em) => { add(em, 'third') })
  })

  assert.deepEqual(take(), ['create list-a {"id":1,"title":"first"}', 'create list-a {"id":2,"title":"third"}'])
})

test('sibling savepoints at the same time leave what the database keeps', async (t) => {
  const { em, take } = await open(t)
  const gate = Promise.withResolvers<void>()

  await em.transactional(async (em) => {
    add(em, 'outer')
    await em.flush()
    const failing = em.transactional(async (em) => {
      add(em, 'failing')
      await em.flush()
      await gate.promise
      throw new Error('sibling')
    })
    const passing = em.transactional(async (em) => {
      add(em, 'passing')
      await em.flush()
      gate.resolve()
      await failing.catch(() => {})
      add(em, 'later')
    })
    await Promise.allSettled([failing, passing])
  })

  const rows = await em.fork().find(Todo, {}, { orderBy: { id: 'asc' } })
  assert.deepEqual(take(), rows.map(({ id, title }) => `create list-a ${JSON.stringify({ id, title })}`))
})

test('transactions at the same time are announced each by itself', async (t) => {
  const { orm, take } = await open(t)

  await Promise.all(['one', 'two', 'three'].map((title) => {
    return orm.em.fork().transactional(async (em) => { add(em, title) })
  }))

  assert.deepEqual(take().sort(), [
    'create list-a {"id":1,"title":"one"}',
    'create list-a {"id":2,"title":"two"}',
    'create list-a {"id":3,"title":"three"}'
  ])
})

test('another flush in the midst of one leaves what its rows were before', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const { take } = listen(orm, [rule])
  await orm.em.fork().insertMany(Todo, [{ title: 'one', list: 'a' }, { title: 'two', list: 'a' }])
  orm.em.getEventManager().registerSubscriber({
    async afterUpdate ({ em, entity }) {
      const audit = em.fork({ keepTransactionContext: true })
      audit.create(Todo, { title: `${entity.title} was changed`, list: 'audit' })
      await audit.flush()
    }
  })
  const em = orm.em.fork()
  const todos = await em.find(Todo, {})

  await em.begin()
  for (const todo of todos) todo.list = 'b'
  await em.flush()
  await em.rollback()
  assert.deepEqual(take(), [])
  for (const todo of todos) todo.list = 'c'
  await em.flush()

  assert.deepEqual(take().filter((line) => !line.includes('audit')).sort(), [
    'create list-c {"id":1,"title":"one"}',
    'create list-c {"id":2,"title":"two"}',
    'delete list-a {"id":1,"title":"one"}',
    'delete list-a {"id":2,"title":"two"}'
  ])
})

test('a transaction joins or leaves the one around it as its propagation says', async (t) => {
  const { em, take } = await open(t)

  await assert.rejects(em.transactional(async (em) => {
    await em.transactional(async (em) => { add(em, 'required') }, { propagation: TransactionPropagation.REQUIRED })
    await em.flush()
    throw new Error('outer')
  }))

  assert.deepEqual(take(), [])
})

test('without transactions a change is announced when it is made', async (t) => {
  const orm = await openSqlite(t, [Todo], { implicitTransactions: false })
  const { take } = listen(orm, [rule])
  await orm.em.fork().insert(Todo, { title: 'first', code: 'taken' })
  const em = orm.em.fork()

  add(em, 'stays')
  await em.flush()
  em.create(Todo, { title: 'fails', list: 'a', code: 'taken' })
  await assert.rejects(em.flush(), /UNIQUE/)

  assert.deepEqual(take(), ['create list-a {"id":2,"title":"stays"}'])
})

test('without transactions what a flush wrote before it failed is announced: it stays', async (t) => {
  const orm = await openSqlite(t, [Todo], { implicitTransactions: false })
  const { take } = listen(orm, [rule])
  await orm.em.fork().insertMany(Todo, [{ title: 'first', code: 'taken' }, { title: 'second' }])
  const em = orm.em.fork()
  const second = await em.findOneOrFail(Todo, 2)

  add(em, 'stays')
  second.code = 'taken'
  await assert.rejects(em.flush(), /UNIQUE/)

  assert.deepEqual(take(), ['create list-a {"id":3,"title":"stays"}'])
})

test('without transactions what a flush wrote before it failed in the same kind of statement is announced before the next flush', async (t) => {
  const orm = await openSqlite(t, [Todo], { implicitTransactions: false, batchSize: 1 })
  const { take } = listen(orm, [rule])
  await orm.em.fork().insert(Todo, { title: 'first', code: 'taken' })
  const em = orm.em.fork()

  add(em, 'stays')
  em.create(Todo, { title: 'fails', list: 'a', code: 'taken' })
  await assert.rejects(em.flush(), /UNIQUE/)
  em.clear()
  add(em, 'next')
  await em.flush()

  assert.deepEqual(take(), ['create list-a {"id":2,"title":"stays"}', 'create list-a {"id":3,"title":"next"}'])
})

suite('a flush that fails half-way in a transaction that goes on', () => {
  /** Statements of one row each: the first one succeeds, the second one does not. */
  async function openFailing (t: TestContext) {
    const orm = await openSqlite(t, [Todo], { batchSize: 1 })
    const heard = listen(orm, [rule])
    await orm.em.fork().insertMany(Todo, [{ title: 'one', list: 'a' }, { title: 'two', list: 'a' }, { title: 'three', code: 'taken' }])
    const em = orm.em.fork()
    const [one, two] = await em.find(Todo, {}, { orderBy: { id: 'asc' } })
    assert(one !== undefined && two !== undefined)
    return { orm, em, one, two, ...heard }
  }

  test('is announced as far as it came', async (t) => {
    const { orm, em, one, two, take } = await openFailing(t)

    await em.begin()
    add(em, 'created')
    one.list = 'b'
    two.code = 'taken'
    await assert.rejects(em.flush(), /UNIQUE/)
    em.clear()
    await em.commit()

    const rows = await orm.em.fork().find(Todo, { id: [1, 2, 4] }, { orderBy: { id: 'asc' } })
    assert.deepEqual(rows.map(({ title, list, code }) => [title, list, code]), [['one', 'b', null], ['two', 'a', null], ['created', 'a', null]])
    assert.deepEqual(take(), [
      'create list-a {"id":4,"title":"created"}',
      'delete list-a {"id":1,"title":"one"}',
      'create list-b {"id":1,"title":"one"}'
    ])
  })

  test('is announced as far as it came before the next one', async (t) => {
    const { em, two, take } = await openFailing(t)

    await em.begin()
    add(em, 'created')
    em.create(Todo, { title: 'fails', list: 'a', code: 'taken' })
    await assert.rejects(em.flush(), /UNIQUE/)
    em.clear()
    em.merge(two)
    two.title = 'next'
    await em.commit()

    assert.deepEqual(take(), ['create list-a {"id":4,"title":"created"}', 'update list-a {"id":2,"title":"next","updated_fields":["title"]}'])
  })

  test('is not announced where a savepoint takes it back', async (t) => {
    const { em, one, two, take } = await openFailing(t)

    await em.begin()
    add(em, 'kept')
    await em.flush()
    await em.transactional(async (em) => {
      add(em, 'undone')
      one.list = 'b'
      two.code = 'taken'
      await em.flush()
    }).catch(() => {})
    em.clear()
    await em.commit()

    assert.deepEqual(take(), ['create list-a {"id":4,"title":"kept"}'])
  })

  test('is announced although a savepoint after it is rolled back', async (t) => {
    const { em, two, take } = await openFailing(t)

    await em.begin()
    add(em, 'kept')
    two.code = 'taken'
    await assert.rejects(em.flush(), /UNIQUE/)
    em.clear()
    await em.transactional(async (em) => {
      add(em, 'undone')
      await em.flush()
      throw new Error('inner')
    }).catch(() => {})
    await em.commit()

    assert.deepEqual(take(), ['create list-a {"id":4,"title":"kept"}'])
  })

  test('leaves what a row was before it where all is rolled back', async (t) => {
    const { em, one, two, take } = await openFailing(t)

    await em.begin()
    one.list = 'b'
    two.code = 'taken'
    await assert.rejects(em.flush(), /UNIQUE/)
    await em.rollback()
    assert.deepEqual(take(), [])
    two.code = null
    await em.flush()

    assert.deepEqual(take(), ['delete list-a {"id":1,"title":"one"}', 'create list-b {"id":1,"title":"one"}'])
  })
})

test('with transactions disabled a change is announced when it is made', async (t) => {
  const orm = await openSqlite(t, [Todo], { disableTransactions: true })
  const { take } = listen(orm, [rule])

  await orm.em.fork().transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    assert.deepEqual(take(), ['create list-a {"id":1,"title":"one"}'])
  })
})

test('a transaction that was begun behind the EntityManager is reported, its changes are not announced', async (t) => {
  const { orm, em, take, logged } = await open(t)

  const transaction = await orm.em.getConnection().begin()
  em.setTransactionContext(transaction)
  add(em, 'one')
  await em.flush()
  await orm.em.getConnection().commit(transaction)

  assert.deepEqual(take(), [])
  assert.equal(logged.length, 1)
  assert.match(String(logged[0]?.err), /not begun through the EntityManager/)
  assert.deepEqual([logged[0]?.['entity'], logged[0]?.['key']], ['Todo', '1'])
})

test('savepoints in a transaction that was begun behind the EntityManager are reported too', async (t) => {
  const { orm, em, take, logged } = await open(t)

  const transaction = await orm.em.getConnection().begin()
  em.setTransactionContext(transaction)
  await em.transactional(async (em) => { add(em, 'one') })
  await orm.em.getConnection().commit(transaction)

  assert.deepEqual(take(), [])
  assert.match(String(logged[0]?.err), /not begun through the EntityManager/)
})

test('a commit is announced although a subscriber before ours throws when it hears of it', async (t) => {
  const changes = new ChangeSubscriber()
  const orm = await openSqlite(t, [Todo], {
    subscribers: [{ afterTransactionCommit: () => { throw new Error('another subscriber') } }, changes]
  })
  const { take } = listen(orm, [rule], changes)

  const em = orm.em.fork()
  add(em, 'one')
  await assert.rejects(em.flush(), /another subscriber/)

  assert.equal(await orm.em.fork().count(Todo), 1)
  assert.deepEqual(take(), ['create list-a {"id":1,"title":"one"}'])
})

test('nothing is announced when a subscriber stops the commit', async (t) => {
  const changes = new ChangeSubscriber()
  const orm = await openSqlite(t, [Todo], {
    subscribers: [changes, { beforeTransactionCommit: () => { throw new Error('not today') } }]
  })
  const { take } = listen(orm, [rule], changes)

  const em = orm.em.fork()
  add(em, 'one')
  await assert.rejects(em.flush(), /not today/)

  assert.deepEqual(take(), [])
})

test('a publish that throws neither breaks the commit nor keeps the rest from being announced', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const groups: string[] = []
  const warnings: object[] = []
  new ChangeSubscriber({ notify: [rule] }).connect({
    orm,
    publish: (group) => {
      groups.push(group)
      if (group === 'list-bad') throw new Error('no broker')
    },
    log: { error () {}, warn: (context) => { warnings.push(context) } }
  })

  const em = orm.em.fork()
  add(em, 'one', 'bad')
  add(em, 'two', 'good')
  await em.flush()

  assert.deepEqual(groups, ['list-bad', 'list-good'])
  assert.match(JSON.stringify(warnings), /list-bad/)
  assert.equal(await orm.em.fork().count(Todo), 2)
})

test('a transaction that is rolled back after the subscriber is disconnected leaves nothing', async (t) => {
  const { em, subscriber, take, logged } = await open(t)

  await em.begin()
  add(em, 'one')
  await em.flush()
  await subscriber.disconnect()
  await subscriber.disconnect()
  await em.rollback()

  assert.deepEqual([take(), logged], [[], []])
})

test('a flush during which the subscriber is disconnected is not announced', async (t) => {
  const { orm, em, subscriber, take, logged } = await open(t)
  orm.em.getEventManager().registerSubscriber({ afterCreate: () => subscriber.disconnect() })

  add(em, 'one')
  await em.flush()

  assert.deepEqual([take(), logged], [[], []])
})

test('nothing is announced before a subscriber is connected or after it is disconnected', async (t) => {
  const { em, orm, subscriber, take } = await open(t)

  add(em, 'one')
  subscriber.disconnect()
  await em.flush()
  await em.begin()
  add(em, 'two')
  await em.flush()
  const { take: takeLater, logged } = listen(orm, [rule], subscriber)
  add(em, 'three')
  await em.commit()
  add(em, 'four')
  await em.flush()

  assert.deepEqual(take(), [])
  assert.deepEqual(takeLater(), ['create list-a {"id":4,"title":"four"}'])
  assert.equal(logged.length, 1)
})
