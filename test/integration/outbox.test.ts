/** Processes with an outbox are killed between COMMIT and publish. `npm run faults -- --only outbox` is the same at length. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skips, type DatabaseName } from '../brokers/database/support.ts'
import { redisServer } from '../support/redis.ts'
import { run } from './outbox/plan.ts'

const KILLS = 4

for (const database of ['PostgreSQL', 'SQLite'] satisfies DatabaseName[]) {
  test(`the last changes of ${KILLS} killed processes with an outbox on ${database} reach a client`, { skip: skips[database] || redisServer.skip }, async (t) => {
    const { commits, resyncs, lost } = await run({ database, kills: KILLS })

    t.diagnostic(`${commits} changes were committed, ${resyncs} resyncs`)
    assert.ok(commits > 0)
    assert.equal(lost, 0)
  })
}
