/**
 * `npm run faults`: processes behind one Redis while everything goes wrong, with history and without, and the table for
 * docs/brokers.md; then processes with one database that are killed while they commit, and processes with an outbox that
 * are killed before they publish. `-- --only redis`, `-- --only kills` or `-- --only outbox` runs one of them.
 */
import { parseArgs } from 'node:util'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { privateRedis } from '../../support/redis.ts'
import { run as runKills } from '../kills/plan.ts'
import { run as runOutbox } from '../outbox/plan.ts'
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
    mariadb: { type: 'string', default: '200' },
    // `none` shows what happens without the outbox
    outbox: { type: 'string', default: 'outbox' }
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

async function runOutboxPlan (): Promise<void> {
  for (const [database, kills] of [['PostgreSQL', values.postgresql], ['SQLite', values.sqlite], ['MariaDB', values.mariadb]] as const) {
    if (kills === '0') continue
    console.log(`${database} and Redis`)
    const hasOutbox = values.outbox !== 'none'
    const report = await runOutbox({ database, kills: Number(kills), hasOutbox, say: (text) => console.log(`  ${text}`) })
    console.log(report)
    if (report.lost > 0) process.exitCode = 1
  }
}

const runs = (plan: string) => values.only === undefined || values.only === plan
if (runs('redis')) await runRedisPlan()
if (runs('kills')) await runKillPlan()
if (runs('outbox')) await runOutboxPlan()
