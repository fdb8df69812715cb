/** One group, all events to all of its members. */
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { publish } from '../lib/publish.ts'
import type { Case, Row, Scale, Workload } from '../lib/workload.ts'

const MEMBERS: Record<Scale, number[]> = { full: [10, 100, 1000, 5000], quick: [1000], tiny: [3] }
const PER_TICK = [1, 16]

const TARGETS: Record<string, Row['targets']> = {
  '1000 × 1': { ws: 1.1, 'socket.io': 1.6 },
  '1000 × 16': { ws: 16, 'socket.io': 20 }
}

function makeCase (members: number): Case {
  return {
    rows: PER_TICK.map((perTick) => {
      const targets = TARGETS[`${members} × ${perTick}`]
      return {
        name: `${members} members, ${perTick} a tick`,
        unit: 'µs CPU per delivery',
        counts: 'deliveries',
        ratio: 'gain',
        ...(targets && { targets })
      }
    }),
    ...Pair.each(async (pair, settings) => {
      await pair.connect(Array.from({ length: members }, () => [groupName(0)]))
      return publish(pair, PER_TICK.map((perTick) => ({ groups: 1, members, perTick })), members, settings)
    })
  }
}

export const fanout: Workload = {
  name: 'fanout',
  title: 'Fan-out: one group, so many events in each turn of the event loop',
  cases: (scale) => MEMBERS[scale].map(makeCase)
}
