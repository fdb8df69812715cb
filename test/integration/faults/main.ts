/** `npm run faults`: the whole plan, with history and without, and the table for docs/brokers.md. */
import { parseArgs } from 'node:util'
import { privateRedis } from '../../support/redis.ts'
import { run } from './plan.ts'
import type { Report } from './report.ts'
import { toTable } from './table.ts'

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '300' },
    messages: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '1' },
    pause: { type: 'string', default: '5000' },
    stop: { type: 'string', default: '10000' }
  }
})

const endings: (() => Promise<void>)[] = []
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
