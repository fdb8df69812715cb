/** `sendToGroup` with `em`: messages that are published when a transaction commits, with any broker. */
import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import type { Options } from '@mikro-orm/sql'
import Fastify from 'fastify'
import rohrpost, { memoryBroker } from '../../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm, type ChangeSubscriber } from '../../lib/mikro-orm/index.ts'
import { ChangeSubscriber as Subscriber } from '../../lib/mikro-orm/change-subscriber.ts'
import { changesOf, holdCommit, openSqlite, replaceCommits } from './support.ts'

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
const add = (em: EntityManager, title: string) => em.create(Todo, { title })

/** Starts an app on SQLite in memory, with a broker that records what is published. */
async function start (t: TestContext, options: Partial<Options> = {}, subscriber: ChangeSubscriber = new Subscriber()) {
  const orm = await openSqlite(t, [Todo], options)
  const broker = memoryBroker()
  const published: string[] = []
  const { publish } = broker
  broker.publish = (group, payload) => {
    if (group === 'refused') throw new Error('refused')
    const { type, data } = JSON.parse(payload)
    const changes = type === undefined || data.type === 'resync' ? undefined : changesOf(payload)
    published.push(`${group} ${changes?.map(({ type, object }) => `${type} ${object['title']}`).join(', ') ?? payload}`)
    return publish.call(broker, group, payload)
  }
  const lines: Array<Record<string, unknown>> = []
  const app = Fastify({ logger: { level: 'error', stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } })
  t.after(() => app.close())
  await app.register(rohrpost, { broker })
  await app.register(rohrpostMikroOrm, {
    orm, subscriber, notify: [notifyOnChange(Todo, { group: 'todos', data: ['title'] })]
  })
  await app.ready()
  return { app, orm, published, lines, sendToGroup: app.rohrpost.sendToGroup }
}

test('are published after the COMMIT, in order with the changes', async (t) => {
  const { orm, published, sendToGroup } = await start(t)

  await orm.em.fork().transactional(async (em) => {
    add(em, 'one')
    await em.flush()
    const message = { n: 1 }
    await sendToGroup('chat', message, { em })
    message.n = 100
    await sendToGroup('chat', '', { em })
    add(em, 'two')
    await em.flush()
    await sendToGroup('chat', '{"n":2}', { em: orm.em })
    await sendToGroup('todos', { n: 3 }, { em })
    add(em, 'three')
    await em.flush()
    assert.deepEqual(published, [])
  })

  assert.deepEqual(published, ['todos create one, create two', 'chat {"n":1}', 'chat {"n":2}', 'todos {"n":3}', 'todos create three'])
})

test('are dropped by a rollback, also by one to their savepoint', async (t) => {
  const { orm, published, sendToGroup } = await start(t)
  const undo = async (em: EntityManager, n: number) => {
    await sendToGroup('chat', { n }, { em })
    throw new Error('undo')
  }

  await orm.em.fork().transactional(async (em) => {
    await sendToGroup('chat', { n: 1 }, { em })
    await em.transactional((em) => sendToGroup('chat', { n: 2 }, { em }))
    await assert.rejects(em.transactional((em) => undo(em, 3)), /undo/)
    await sendToGroup('chat', { n: 4 }, { em })
  })
  await assert.rejects(orm.em.fork().transactional((em) => undo(em, 5)), /undo/)
  const em = orm.em.fork()
  await em.begin()
  await sendToGroup('chat', { n: 6 }, { em })
  await em.rollback()

  assert.deepEqual(published, ['chat {"n":1}', 'chat {"n":2}', 'chat {"n":4}'])
})

test('are published at once without a transaction', async (t) => {
  const { orm, published, sendToGroup } = await start(t)
  const em = orm.em.fork()
  await em.begin()
  await em.commit()

  await sendToGroup('chat', { n: 1 }, { em })
  await sendToGroup('chat', { n: 2 }, { em: undefined })
  await sendToGroup('chat', { n: 3 }, {})

  assert.deepEqual(published, ['chat {"n":1}', 'chat {"n":2}', 'chat {"n":3}'])
})

test('are refused with an EntityManager of an ORM without the plugin, and with unknown options', async (t) => {
  const { app, orm, published, sendToGroup } = await start(t)
  const other = await openSqlite(t, [Todo], { contextName: 'other' })
  const third = await openSqlite(t, [Todo], { contextName: 'third' })
  await app.close()
  const plain = Fastify()
  t.after(() => plain.close())
  await plain.register(rohrpost)
  const unknown = { code: 'RP_ERR_UNKNOWN_ENTITY_MANAGER', message: /^Can't send to group 'chat' with the transaction of 'em'/ }

  for (const em of [other.em, {}, null]) await assert.rejects(sendToGroup('chat', {}, { em: em as never }), unknown)
  await assert.rejects(plain.rohrpost.sendToGroup('chat', {}, { em: orm.em }), unknown)
  await plain.register(rohrpostMikroOrm, { orm: other })
  await plain.register(rohrpostMikroOrm, { orm: third })
  for (const { em } of [other, third]) await plain.rohrpost.sendToGroup('chat', {}, { em: em.fork() })
  await assert.rejects(plain.rohrpost.sendToGroup('chat', {}, { em: orm.em }), unknown)
  await assert.rejects(plain.rohrpost.sendToGroup('chat', {}, { manager: other.em } as never), { code: 'RP_ERR_UNKNOWN_OPTION' })
  await assert.rejects(plain.rohrpost.sendToGroup('no group', {}, { em: other.em }), { code: 'RP_ERR_INVALID_GROUP' })
  await assert.rejects(plain.rohrpost.sendToGroup('chat', () => {}, { em: other.em }), { code: 'RP_ERR_NOT_ENCODABLE' })

  assert.deepEqual(published, [])
})

test('are refused while the COMMIT is in progress, in an unknown transaction, and after the app is closed', async (t) => {
  const gate = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  let isSlow = false
  const slow = replaceCommits(async (commit) => {
    begun.resolve()
    if (isSlow) await gate.promise
    await commit()
  })
  const { app, orm, published, sendToGroup } = await start(t, { subscribers: [slow] })
  isSlow = true
  const em = orm.em.fork()
  await em.begin()
  await sendToGroup('chat', { n: 1 }, { em })
  const committing = em.commit()
  await begun.promise

  await assert.rejects(sendToGroup('chat', { n: 2 }, { em }), { code: 'RP_ERR_NOT_PUBLISHED', message: /is being committed/ })
  gate.resolve()
  await committing
  const unknown = orm.em.fork()
  const transaction = await orm.em.getConnection().begin()
  unknown.setTransactionContext(transaction)
  await assert.rejects(sendToGroup('chat', { n: 3 }, { em: unknown }), /not begun through the EntityManager/)
  await orm.em.getConnection().rollback(transaction)
  await em.begin()
  const closing = app.close()
  await sendToGroup('chat', { n: 4 }, { em })
  await em.commit()
  await closing
  await em.begin()
  await assert.rejects(sendToGroup('chat', { n: 5 }, { em }), { code: 'RP_ERR_NOT_PUBLISHED', message: /the app is closed/ })
  await em.rollback()

  assert.deepEqual(published, ['chat {"n":1}', 'chat {"n":4}'])
})

test('are logged if the broker refuses them after the COMMIT', async (t) => {
  const { orm, published, lines, sendToGroup } = await start(t)

  await orm.em.fork().transactional(async (em) => {
    await sendToGroup('refused', {}, { em })
    await sendToGroup('chat', {}, { em })
  })

  assert.deepEqual(published, ['chat {}'])
  assert.deepEqual(lines.map(({ group, msg }) => [group, msg]), [['refused', 'a message to a group was not sent']])
})

test('are published when a later transaction with the same rows has overtaken theirs', async (t) => {
  const late = holdCommit()
  const { orm, published, sendToGroup } = await start(t, { subscribers: [late.subscriber] })
  await orm.em.fork().insert(Todo, { id: 1, title: 'zero' })
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const save = (title: string) => orm.em.fork().transactional(async (em) => {
    const todo = await em.findOneOrFail(Todo, 1)
    todo.title = title
    await sendToGroup('chat', { title }, { em })
  })

  late.holdNext()
  const first = save('first')
  await late.answered
  await save('second')
  t.mock.timers.tick(5000)
  late.release()
  await first

  assert.deepEqual(published, [
    'chat {"title":"second"}', 'todos update second', 'chat {"title":"first"}',
    'todos {"type":"subscription-update","data":{"type":"resync","group":"todos"}}'
  ])
})
