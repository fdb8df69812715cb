/** From the flush to the sockets: rows are updated through MikroORM on SQLite, and everybody in their group hears of each. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pair, perFrame } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { windowOf } from '../lib/publish.ts'
import type { Case, Measurement, Scale, Settings, Workload } from '../lib/workload.ts'

interface Load {
  rows: number
  members: number
}

const LOADS: Record<Scale, Load[]> = {
  full: [{ rows: 100, members: 100 }],
  quick: [{ rows: 100, members: 100 }],
  tiny: [{ rows: 5, members: 3 }]
}

async function measure (pair: Pair, { rows, members }: Load, { warmUp, measure }: Settings): Promise<Measurement[]> {
  const window = windowOf(rows * members, members)
  await pair.reportTo(window)
  await pair.server.call('startRows', { rows, members, window })
  await sleep(warmUp)
  const observation = await pair.observe(measure)
  return [perFrame(observation, await pair.settle(await pair.server.call('stop')))]
}

function makeCase (load: Load): Case {
  const { rows, members } = load
  return {
    rows: [{
      name: `flush of ${rows} rows to ${members} ${members === 1 ? 'member' : 'members'}`,
      unit: 'µs CPU per delivery',
      counts: 'deliveries',
      ratio: 'gain'
    }],
    ...Pair.each(async (pair, settings) => {
      await pair.connect(Array.from({ length: members }, () => [groupName(0)]))
      return measure(pair, load, settings)
    }, { orm: true })
  }
}

export const orm: Workload = {
  name: 'orm',
  title: 'MikroORM to sockets: updates of rows; the others publish by hand after the flush',
  cases: (scale) => LOADS[scale].map(makeCase)
}
