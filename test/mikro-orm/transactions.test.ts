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

test('announces an implicit flush after its COMMIT, in the order of its rows', async (t) => {
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

test('announces the rows of a flush in the order of its statements', async (t) => {
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

test('announces the flushes of a transaction together, after its COMMIT', async (t) => {
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

test('follows begin, commit and rollback', async (t) => {
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

test('announces nothing of a failed transaction', async (t) => {
  const { em, take } = await open(t)

  await assert.rejects(em.transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    throw new Error('changed my mind')
  }), /changed my mind/)

  assert.deepEqual(take(), [])
})

test('announces nothing of a flush that fails half-way', async (t) => {
  const { orm, em, take } = await open(t)
  await orm.em.fork().insert(Todo, { title: 'first', code: 'taken' })

  add(em, 'one')
  em.create(Todo, { title: 'two', list: 'a', code: 'taken' })
  await assert.rejects(em.flush(), /UNIQUE/)

  assert.deepEqual(take(), [])
})

test('a rolled back savepoint discards only its own changes', async (t) => {
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

test('a released savepoint is committed or rolled back with its transaction', async (t) => {
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

test('rolls back only the last of several savepoints with the same name', async (t) => {
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

test('announces parallel savepoints as the database keeps them', async (t) => {
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

test('announces parallel transactions separately', async (t) => {
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

test('a flush within another flush keeps the rows before the change', async (t) => {
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

test('follows the propagation of nested transactions', async (t) => {
  const { em, take } = await open(t)

  await assert.rejects(em.transactional(async (em) => {
    await em.transactional(async (em) => { add(em, 'required') }, { propagation: TransactionPropagation.REQUIRED })
    await em.flush()
    throw new Error('outer')
  }))

  assert.deepEqual(take(), [])
})

test('without transactions, announces a change at once', async (t) => {
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

test('without transactions, announces the rows that a flush wrote before it failed', async (t) => {
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

test('without transactions, announces the rows of a failed batch before the next flush', async (t) => {
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

suite('a flush that fails half-way in a transaction that continues', () => {
  /** Statements of one row each: the first succeeds, the second fails. */
  async function openFailing (t: TestContext) {
    const orm = await openSqlite(t, [Todo], { batchSize: 1 })
    const heard = listen(orm, [rule])
    await orm.em.fork().insertMany(Todo, [{ title: 'one', list: 'a' }, { title: 'two', list: 'a' }, { title: 'three', code: 'taken' }])
    const em = orm.em.fork()
    const [one, two] = await em.find(Todo, {}, { orderBy: { id: 'asc' } })
    assert(one !== undefined && two !== undefined)
    return { orm, em, one, two, ...heard }
  }

  test('is announced up to the failed statement', async (t) => {
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

  test('is announced up to the failed statement, before the next flush', async (t) => {
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

  test('is not announced if its savepoint is rolled back', async (t) => {
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

  test('is announced if a later savepoint is rolled back', async (t) => {
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

  test('leaves the row before it unchanged if everything is rolled back', async (t) => {
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

test('with transactions disabled, announces a change at once', async (t) => {
  const orm = await openSqlite(t, [Todo], { disableTransactions: true })
  const { take } = listen(orm, [rule])

  await orm.em.fork().transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    assert.deepEqual(take(), ['create list-a {"id":1,"title":"one"}'])
  })
})

test('reports a transaction that was not begun through the EntityManager, and does not announce it', async (t) => {
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

test('reports savepoints in a transaction that was not begun through the EntityManager', async (t) => {
  const { orm, em, take, logged } = await open(t)

  const transaction = await orm.em.getConnection().begin()
  em.setTransactionContext(transaction)
  await em.transactional(async (em) => { add(em, 'one') })
  await orm.em.getConnection().commit(transaction)

  assert.deepEqual(take(), [])
  assert.match(String(logged[0]?.err), /not begun through the EntityManager/)
})

test('announces a commit if an earlier subscriber throws in afterTransactionCommit', async (t) => {
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

test('announces nothing if another subscriber prevents the COMMIT', async (t) => {
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

test('a publish function that throws affects neither the commit nor the other notifications', async (t) => {
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

test('announces nothing of a transaction that is rolled back after disconnect()', async (t) => {
  const { em, subscriber, take, logged } = await open(t)

  await em.begin()
  add(em, 'one')
  await em.flush()
  await subscriber.disconnect()
  await subscriber.disconnect()
  await em.rollback()

  assert.deepEqual([take(), logged], [[], []])
})

test('does not announce a flush during which disconnect() is called', async (t) => {
  const { orm, em, subscriber, take, logged } = await open(t)
  orm.em.getEventManager().registerSubscriber({ afterCreate: () => subscriber.disconnect() })

  add(em, 'one')
  await em.flush()

  assert.deepEqual([take(), logged], [[], []])
})

test('announces nothing before connect() or after disconnect()', async (t) => {
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
