/** Transactions whose COMMIT is refused, rolled back silently, or not answered. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import type { MikroORM, Options } from '@mikro-orm/sql'
import type { ChangeDropEvent } from '../../lib/index.ts'
import { ChangeSubscriber, notifyOnChange, notifyOnCreate } from '../../lib/mikro-orm/index.ts'
import { record } from '../support/events.ts'
import { openLine } from '../support/line.ts'
import { holdCommit, listen, openServer, openSqlite, replaceCommits } from './support.ts'

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string(), list: p.string().default('a') } })
const rule = notifyOnChange(Todo, { group: 'todos', data: ['title'] })
const unread = notifyOnChange(Todo, { group: 'todos', data: ['title'], readBack: false })

const add = (em: EntityManager, title: string) => em.create(Todo, { title })
const abort = (em: EntityManager) => em.getConnection().execute('select nonsense', [], 'all', em.getTransactionContext()).catch(() => {})
const count = (orm: MikroORM) => orm.em.fork().count(Todo)

/** Database client that the application made itself: that of another ORM. */
const clientOf = (orm: MikroORM) => ({ driverOptions: orm.em.getConnection().getClient() as unknown as NonNullable<Options['driverOptions']> })

for (const client of ['pg', 'a client of the application'] as const) {
  test(`postgresql with ${client}: rejects a COMMIT that the database answers with ROLLBACK, with readBack: false too`, async (t) => {
    const first = await openServer(t, 'postgresql', [Todo])
    if (first === undefined) return
    const orm = client === 'pg' ? first : await openServer(t, 'postgresql', [Todo], clientOf(first), first.config.get('dbName'))
    assert(orm !== undefined)
    const { take } = listen(orm, [unread])

    await assert.rejects(orm.em.fork().transactional(async (em) => {
      add(em, 'one')
      await em.flush()
      await abort(em)
    }), client === 'pg' ? { code: 'RP_ERR_ROLLED_BACK' } : /aborted/)
    await orm.em.fork().transactional(async (em) => { add(em, 'two') })

    assert.deepEqual(take(), ['create todos {"title":"two"}'])
    assert.equal(await count(orm), 1)
  })
}

test('postgresql: a transaction without changes to announce ends as without the plugin', async (t) => {
  const orm = await openServer(t, 'postgresql', [Todo])
  if (orm === undefined) return
  listen(orm, [rule])

  await assert.doesNotReject(orm.em.fork().transactional((em) => abort(em)))
})

for (const server of ['postgresql', 'mariadb'] as const) {
  test(`${server}: publishes a resync if the answer to a COMMIT is lost, with one warning and the reason 'unknown'`, async (t) => {
    const first = await openServer(t, server, [Todo])
    if (first === undefined) return
    const url = new URL(String(first.config.get('clientUrl')))
    const line = await openLine(t, Number(url.port || (server === 'postgresql' ? 5432 : 3306)))
    url.port = String(line.port)
    let isLost = false
    const losing = replaceCommits((commit) => {
      line.losesAnswers = isLost
      return commit()
    })
    const orm = await openServer(t, server, [Todo], { clientUrl: url.href, subscribers: [losing] }, first.config.get('dbName'))
    assert(orm !== undefined)
    const drops = record(t, 'drop')
    const { logged, subscriber } = listen(orm, [])
    await subscriber.disconnect()
    const told: string[] = []
    subscriber.connect({
      orm,
      notify: [notifyOnChange(Todo, { group: 'list-{list}', data: ['title'] })],
      publish: (group, payload) => { told.push(`${JSON.parse(payload).data.type} ${group}`) },
      log: { error () {}, warn: (context, message) => { logged.push({ level: 'warn', message, ...context }) } }
    })
    const em = orm.em.fork()
    const one = add(em, 'one')
    await em.flush()

    isLost = true
    one.list = 'b'
    line.lost().then(() => line.cut())
    await assert.rejects(em.flush())

    assert.deepEqual(told, ['create list-a', 'resync list-a', 'resync list-b'])
    assert.deepEqual(logged.map(({ message }) => message), ['the answer to a COMMIT was lost: the members of the groups concerned load again'])
    assert.deepEqual((drops.drop as ChangeDropEvent[]).map(({ reason, group }) => `${reason} ${group}`), ['unknown list-a', 'unknown list-b'])
    assert.equal(await first.em.fork().count(Todo, { list: 'b' }), 1)
  })
}

for (const [error, isUnknown] of [
  [{ severity: 'ERROR', code: '23505' }, false],
  [{ severity: 'ERROR', code: '40003' }, true],
  [{ severity: 'FATAL', code: '57P01' }, true],
  [{ sqlState: '40001', fatal: false }, false],
  [{ sqlState: '08S01', fatal: true }, true],
  [{ code: 'ECONNRESET' }, true]
] as const) {
  test(`a COMMIT that rejects with ${JSON.stringify(error)} is ${isUnknown ? 'unknown' : 'rolled back'}`, async (t) => {
    let isFailing = true
    const failing = replaceCommits((commit) => {
      return isFailing ? Promise.reject(Object.assign(new Error('no commit'), error)) : commit()
    })
    const orm = await openServer(t, 'postgresql', [Todo], { subscribers: [failing] })
    if (orm === undefined) return
    const told: string[] = []
    new ChangeSubscriber({ notify: [rule] }).connect({ orm, publish: (_, payload) => { told.push(JSON.parse(payload).data.type) }, log: { error () {}, warn () {} } })

    const em = orm.em.fork()
    add(em, 'one')
    await assert.rejects(em.flush(), /no commit/)
    isFailing = false
    const other = orm.em.fork()
    add(other, 'two')
    await other.flush()

    assert.deepEqual(told, isUnknown ? ['resync', 'create'] : ['create'])
    assert.equal(await count(orm), 1)
  })
}

test('publishes a resync for a transaction that a later one has overtaken', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const late = holdCommit()
  record(t, 'drop')
  const orm = await openSqlite(t, [Todo], { subscribers: [late.subscriber] })
  await orm.em.fork().insert(Todo, { id: 1, title: 'zero' })
  const told: string[] = []
  new ChangeSubscriber({ notify: [rule, notifyOnCreate(Todo)] }).connect({
    orm,
    publish: (_, payload) => { told.push(JSON.parse(payload).data.object?.title ?? 'resync') },
    log: { error () {}, warn () {} }
  })
  const save = async (title: string) => {
    const em = orm.em.fork()
    const todo = await em.findOneOrFail(Todo, 1)
    todo.title = title
    await em.flush()
  }

  late.holdNext()
  const first = save('first')
  await late.answered
  await save('second')
  assert.deepEqual(told, [])
  t.mock.timers.tick(5000)
  assert.deepEqual(told, ['second'])
  late.release()
  await first

  assert.deepEqual(told, ['second', 'resync'])
})

test('announces a COMMIT that succeeds after it was refused', async (t) => {
  const Child = defineEntity({ name: 'Child', properties: { id: p.integer().primary(), of: () => p.manyToOne(Todo).deferMode('deferred') } })
  const orm = await openSqlite(t, [Todo, Child])
  const { take } = listen(orm, [rule])
  const em = orm.em.fork()

  await em.begin()
  add(em, 'one')
  em.create(Child, { of: 2 })
  await em.flush()
  await assert.rejects(em.commit(), /FOREIGN KEY/)
  assert.deepEqual(take(), [])
  add(em, 'two')
  await em.flush()
  await em.commit()

  assert.deepEqual(take(), ['create todos {"title":"one"}', 'create todos {"title":"two"}'])
})
