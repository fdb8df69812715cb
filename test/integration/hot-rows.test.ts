/** Two processes change the same rows: the states of a row reach the members of a group in the order in which they were committed. */
import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { defineEntity, p } from '@mikro-orm/core'
import { Remote } from '../../bench/lib/remote.ts'
import { openServer } from '../mikro-orm/support.ts'
import { openBroker } from '../support/broker.ts'
import { privateRedis, redisServer } from '../support/redis.ts'
import type { HotRowsHost } from './support/hot-rows-host.ts'

const HOST = fileURLToPath(new URL('support/hot-rows-host.ts', import.meta.url))
const CHANGES = Number(process.env['HOT_ROWS_CHANGES'] ?? 2400)
const ROWS = 5
const PROCESSES = 2
/** `none` shows what happens without stamps. */
const STAMPS = process.env['HOT_ROWS_STAMPS'] ?? 'stamps'

const Counter = defineEntity({ name: 'Counter', properties: { id: p.integer().primary(), value: p.integer() } })

interface Change {
  id: number
  value: number
}

test(`0 of ${CHANGES} changes of hot rows by ${PROCESSES} processes go back in time`, { skip: redisServer.skip }, async (t: TestContext) => {
  const orm = await openServer(t, 'postgresql', [Counter])
  if (orm === undefined) return
  const dbName = String(orm.config.get('dbName'))
  await orm.em.getConnection().execute(`alter database ${dbName} set synchronous_commit = off`)
  await orm.em.fork().insertMany(Counter, Array.from({ length: ROWS }, (_, index) => ({ id: index + 1, value: 0 })))
  const redis = await privateRedis(t)
  const { broker, recorder } = await openBroker(t, { client: redis.client() })
  await broker.subscribe('counters')

  const hosts = await Promise.all(Array.from({ length: PROCESSES }, async (_, index) => {
    const host = await Remote.start<HotRowsHost>(`process ${index}`, [HOST, String(orm.config.get('clientUrl')), dbName, String(redis.port), STAMPS])
    t.after(() => host.stop())
    return host
  }))
  await Promise.all(hosts.map((host) => host.call('run', { changes: CHANGES / PROCESSES, rows: ROWS })))
  await broker.publish('counters', 'end')
  await recorder.until('counters', 'end')

  const last = new Map<number, number>()
  let [back, published] = [0, 0]
  for (const payload of recorder.payloads('counters').slice(0, -1)) {
    const { id, value }: Change = JSON.parse(payload).data.object
    published++
    if (value < (last.get(id) ?? 0)) back++
    last.set(id, value)
  }
  t.diagnostic(`${published} of ${CHANGES} states were published, ${CHANGES - published} left out`)
  assert.equal(back, 0, 'states that are older than the state before them')
  const rows = await orm.em.fork().find(Counter, {}, { orderBy: { id: 'asc' } })
  assert.equal(rows.reduce((sum, { value }) => sum + value, 0), CHANGES)
  assert.deepEqual([...last].sort(([a], [b]) => a - b), rows.map(({ id, value }) => [id, value]), 'the last state of each row')
})
