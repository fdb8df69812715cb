/** Processes are killed while they commit, and a client of another process follows. `npm run faults -- --only kills` is the same at length. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skips, type DatabaseName } from '../brokers/database/support.ts'
import { run } from './kills/plan.ts'

const KILLS = 4

for (const database of ['PostgreSQL', 'MariaDB', 'SQLite'] satisfies DatabaseName[]) {
  test(`all committed changes of ${KILLS} killed processes reach a client, in order, with ${database}`, { skip: skips[database] }, async (t) => {
    const { commits, ...faults } = await run({ database, kills: KILLS })
    t.diagnostic(`${commits} changes were committed`)
    assert.ok(commits > 0)
    assert.deepEqual(faults, { kills: KILLS, lost: 0, doubled: 0, back: 0, resyncs: 0 })
  })
}
