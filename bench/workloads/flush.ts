/** What notifications cost where rows are written: the same flush with and without them, taking turns in one process. */
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
const WITH = 'with notifications'
const WITHOUT = 'without'

async function measure (settings: Settings) {
  const { rows, warmUp, flushes } = SIZES[settings.scale]
  const profiling = settings.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${settings.profile}`]
  const host = await Remote.start<FlushHost>('the flushing process', [HOST], {
    nodeArgs: ['--expose-gc', ...profiling],
    ...(settings.pin && { cpu: SERVER_CPU })
  })
  try {
    await host.call('flush', { rows, flushes: warmUp })
    return { cpu: await host.call('flush', { rows, flushes }), memory: await host.call('pending', { rows }) }
  } finally {
    await host.stop()
  }
}

export const flush: Workload = {
  name: 'flush',
  title: 'Flushes with and without notifications',
  cases (scale) {
    const { rows, flushes } = SIZES[scale]
    const row = { unit: 'µs CPU per row', ratio: 'share', targets: { [WITHOUT]: 1.15 } } as const
    return [{
      contestants: [WITH, WITHOUT],
      rows: [
        { ...row, name: `insert ${rows} rows` },
        { ...row, name: `update ${rows} rows` },
        { ...row, name: `insert ${rows} rows in a transaction of the app`, targets: {} },
        { name: 'what notifications add to an insert', unit: 'µs CPU per row', ratio: 'share' },
        { name: 'what notifications add to an update', unit: 'µs CPU per row', ratio: 'share' },
        { name: 'what they hold until the COMMIT of the app', unit: 'bytes per row', ratio: 'share' }
      ],
      // one process makes both, so that they share its fate
      runs: [{
        name: WITH,
        async make (settings) {
          const { cpu, memory } = await measure(settings)
          const { with: ours, without } = cpu
          const added = [ours.insert - without.insert, ours.update - without.update, memory.with - memory.without]
          const expected = 3 * rows * flushes
          const failures = cpu.heard === expected ? [] : [`${cpu.heard} notifications instead of ${expected}`]
          return {
            [WITH]: [ours.insert, ours.update, ours.transaction, ...added].map((value) => ({ value, failures })),
            [WITHOUT]: [without.insert, without.update, without.transaction].map((value) => ({ value, failures: [] }))
          }
        }
      }]
    }]
  }
}
