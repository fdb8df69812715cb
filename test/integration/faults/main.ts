/**
 * `npm run faults`: processes behind one Redis while everything goes wrong, with history and without, and the table for
 * docs/brokers.md; then processes with one database that are killed while they commit. `-- --only redis` or
 * `-- --only kills` runs one of the two.
 */
import { parseArgs } from 'node:util'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { privateRedis } from '../../support/redis.ts'
import { run as runKills } from '../kills/plan.ts'
import { run } from './plan.ts'
import type { Report } from './report.ts'
import { toTable } from './table.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    // behind Redis
    clients: { type: 'string', default: '300' },
    messages: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '1' },
    pause: { type: 'string', default: '5000' },
    stop: { type: 'string', default: '10000' },
    // killed processes of each database
    postgresql: { type: 'string', default: '1000' },
    sqlite: { type: 'string', default: '1000' },
    mariadb: { type: 'string', default: '200' }
  }
})

async function runRedisPlan (): Promise<void> {
  const endings: Array<() => Promise<void>> = []
  const columns: Record<string, Report> = {}
  try {
    for (const [name, history] of [['with history', true], ['without history', false]] as const) {
      console.log(name)
      columns[name] = await run({
        makeRedis: () => privateRedis({ after: (end) => endings.push(end) }),
        history,
        processes: 3,
        groups: 20,
        clients: Number(values.clients),
        messages: Number(values.messages),
        rounds: Number(values.rounds),
        pause: Number(values.pause),
        stop: Number(values.stop),
        say: (text) => console.log(`  ${text}`)
      })
    }
  } finally {
    for (const end of endings) await end()
  }

  console.log(`\n${toTable(columns)}`)
  for (const { examples } of Object.values(columns)) {
    for (const example of examples) console.log(example)
  }
}

async function runKillPlan (): Promise<void> {
  const counts: Array<[DatabaseName, number]> = [
    ['PostgreSQL', Number(values.postgresql)],
    ['SQLite', Number(values.sqlite)],
    ['MariaDB', Number(values.mariadb)]
  ]
  for (const [database, kills] of counts) {
    if (kills === 0) continue
    console.log(database)
    const report = await runKills({ database, kills, say: (text) => console.log(`  ${text}`) })
    console.log(report)
    if (report.lost + report.doubled + report.back + report.resyncs > 0) process.exitCode = 1
  }
}

if (values.only !== 'kills') await runRedisPlan()
if (values.only !== 'redis') await runKillPlan()
