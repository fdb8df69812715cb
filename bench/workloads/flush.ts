/** What notifications cost where rows are written: the same flush into PostgreSQL with and without them, taking turns in one process. */
import { fileURLToPath } from 'node:url'
import type { FlushHost } from '../flush-host.ts'
import { SERVER_CPU } from '../lib/pair.ts'
import { Remote } from '../lib/remote.ts'
import type { Scale, Settings, Workload } from '../lib/workload.ts'

const HOST = fileURLToPath(new URL('../flush-host.ts', import.meta.url))

const SIZES: Record<Scale, { rows: number, warmUp: number, flushes: number }> = {
  full: { rows: 1000, warmUp: 40, flushes: 60 },
  quick: { rows: 1000, warmUp: 3, flushes: 5 },
  tiny: { rows: 10, warmUp: 0, flushes: 1 }
}
const WITHOUT = 'without'

/** What is compared with flushes without notifications. */
interface Subject {
  name: string
  side: 'read' | 'unread'
  /** The most that flushes of many rows, and of one, may take compared with those without. */
  targets: { many: number, one: number }
}

const SUBJECTS: readonly Subject[] = [
  { name: 'with notifications', side: 'read', targets: { many: 1.35, one: 1.3 } },
  { name: 'with readBack: false', side: 'unread', targets: { many: 1.15, one: 1.15 } }
]

async function measure (settings: Settings, side: Subject['side']) {
  const { rows, warmUp, flushes } = SIZES[settings.scale]
  const profiling = settings.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${settings.profile}`]
  const host = await Remote.start<FlushHost>('the flushing process', [HOST], {
    nodeArgs: ['--expose-gc', ...profiling],
    ...(settings.pin && { cpu: SERVER_CPU })
  })
  try {
    await host.call('flush', { side, rows, flushes: warmUp })
    return { time: await host.call('flush', { side, rows, flushes }), memory: await host.call('pending', { side, rows }) }
  } finally {
    await host.stop()
  }
}

export const flush: Workload = {
  name: 'flush',
  title: 'Flushes with and without notifications',
  cases (scale) {
    const { rows } = SIZES[scale]
    return SUBJECTS.map(({ name, side, targets }) => {
      const many = { unit: 'µs per row', ratio: 'share', targets: { [WITHOUT]: targets.many } } as const
      const one = { ...many, targets: { [WITHOUT]: targets.one } }
      return {
        contestants: [name, WITHOUT],
        rows: [
          { ...many, name: `insert ${rows} rows` },
          { ...many, name: `update ${rows} rows` },
          { ...many, name: `insert ${rows} rows in a transaction of the app`, targets: {} },
          { ...one, name: 'insert one row' },
          { ...one, name: 'update one row' },
          { name: 'what notifications hold until the COMMIT of the app', unit: 'bytes per row', ratio: 'share' }
        ],
        // one process makes both, so that they share its fate
        runs: [{
          name,
          async make (settings) {
            const { time, memory } = await measure(settings, side)
            const { with: ours, without, heard, expected } = time
            const failures = heard === expected ? [] : [`${heard} notifications instead of ${expected}`]
            const values = ({ insert, update, transaction, insertOne, updateOne }: typeof ours) => [insert, update, transaction, insertOne, updateOne]
            return {
              [name]: [...values(ours), memory.with - memory.without].map((value) => ({ value, failures })),
              [WITHOUT]: values(without).map((value) => ({ value, failures: [] }))
            }
          }
        }]
      }
    })
  }
}
