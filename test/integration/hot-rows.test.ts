/** Two processes change the same rows: the states of a row reach the members of a group in the order in which they were committed. */
import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { defineEntity, p } from '@mikro-orm/core'
import { Remote } from '../../bench/lib/remote.ts'
import { openServer } from '../mikro-orm/support.ts'
import type { MikroORM } from '@mikro-orm/sql'
import { databaseBroker, logEntities } from '../../lib/brokers/database/index.ts'
import { Recorder } from '../../lib/testing/recorder.ts'
import { openBroker } from '../support/broker.ts'
import { privateRedis, redisServer } from '../support/redis.ts'
import type { HotRowsHost } from './support/hot-rows-host.ts'

const HOST = fileURLToPath(new URL('support/hot-rows-host.ts', import.meta.url))
const CHANGES = Number(process.env['HOT_ROWS_CHANGES'] ?? 800)
const ROWS = 5
const PROCESSES = 2
/** `none` shows what happens without stamps. */
const STAMPS = process.env['HOT_ROWS_STAMPS'] ?? 'stamps'

const Counter = defineEntity({ name: 'Counter', properties: { id: p.integer().primary(), value: p.integer() } })
const Other = defineEntity({ name: 'Other', properties: { id: p.integer().primary() } })

interface Change {
  id: number
  value: number
}

/** Lets the processes change the rows. */
async function change (t: TestContext, orm: MikroORM, port: number, stamps: string): Promise<void> {
  const dbName = String(orm.config.get('dbName'))
  await orm.em.getConnection().execute(`alter database ${dbName} set synchronous_commit = off`)
  await orm.em.fork().insertMany(Counter, Array.from({ length: ROWS }, (_, index) => ({ id: index + 1, value: 0 })))
  const hosts = await Promise.all(Array.from({ length: PROCESSES }, async (_, index) => {
    const host = await Remote.start<HotRowsHost>(`process ${index}`, [HOST, String(orm.config.get('clientUrl')), dbName, String(port), stamps])
    t.after(() => host.stop())
    return host
  }))
  await Promise.all(hosts.map((host) => host.call('run', { changes: CHANGES / PROCESSES, rows: ROWS })))
}

/**
 * Counts states that are older than the state before them. `undefined` stands for a resync, after which members load
 * the rows.
 */
function follow (changes: Array<Change | undefined>): { back: number, last: Map<number, number> } {
  const last = new Map<number, number>()
  let back = 0
  for (const change of changes) {
    if (change === undefined) {
      last.clear()
      back = 0
      continue
    }
    const { id, value } = change
    if (value < (last.get(id) ?? 0)) back++
    last.set(id, value)
  }
  return { back, last }
}

async function checkLast (orm: MikroORM, last: Map<number, number>): Promise<void> {
  const rows = await orm.em.fork().find(Counter, {}, { orderBy: { id: 'asc' } })
  assert.equal(rows.reduce((sum, { value }) => sum + value, 0), CHANGES)
  const states = rows.filter(({ id }) => last.has(id)).map(({ id, value }) => [id, value])
  assert.deepEqual([...last].sort(([a], [b]) => a - b), states, 'the last state of each row')
}

test(`0 of ${CHANGES} changes of hot rows by ${PROCESSES} processes go back in time`, { skip: redisServer.skip }, async (t: TestContext) => {
  const orm = await openServer(t, 'postgresql', [Counter])
  if (orm === undefined) return
  const redis = await privateRedis(t)
  const { broker, recorder } = await openBroker(t, { client: redis.client() })
  await broker.subscribe('counters')

  await change(t, orm, redis.port, STAMPS)
  await broker.publish('counters', 'end')
  await recorder.until('counters', 'end')

  const changes = recorder.payloads('counters').slice(0, -1)
    .map((payload): Change | undefined => JSON.parse(payload).data.object)
  const resyncs = changes.filter((change) => change === undefined).length
  const published = changes.length - resyncs
  t.diagnostic(`${published} of ${CHANGES} states were published, ${CHANGES - published} left out, ${resyncs} resyncs`)
  const { back, last } = follow(changes)
  assert.equal(back, 0, 'states that are older than the state before them')
  await checkLast(orm, last)
})

test(`0 of ${CHANGES} changes are lost, doubled or out of order in the log, beside a long transaction`, async (t: TestContext) => {
  const orm = await openServer(t, 'postgresql', [Counter, Other, ...logEntities])
  if (orm === undefined) return
  const broker = databaseBroker({ orm })
  const recorder = new Recorder()
  t.after(() => broker.close())
  await broker.open(recorder)
  for (const group of ['counters', 'values', 'end']) await broker.subscribe(group)
  const unrelated = orm.em.fork()
  await unrelated.begin()
  unrelated.create(Other, { id: 1 })
  await unrelated.flush()

  await change(t, orm, 0, 'log')
  await broker.publish('end', 'end')
  await recorder.until('end', 'end')
  await unrelated.commit()

  const changes = recorder.payloads('counters').map((payload): Change => JSON.parse(payload).data.object)
  const messages = recorder.payloads('values').map((payload): Change => JSON.parse(payload))
  for (const states of [changes, messages]) {
    const { back, last } = follow(states)
    assert.equal(back, 0, 'states that are older than the state before them')
    await checkLast(orm, last)
    assert.equal(last.size, ROWS)
    const each = states.map(({ id, value }) => `${id} ${value}`)
    assert.equal(new Set(each).size, CHANGES, 'each state')
    assert.equal(each.length, CHANGES, 'once')
  }
})
