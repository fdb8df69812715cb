/** Many small groups: each connection is in ten of them, each group has five members. */
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { publish } from '../lib/publish.ts'
import type { Case, Scale, Workload } from '../lib/workload.ts'

const GROUPS: Record<Scale, number> = { full: 10_000, quick: 2000, tiny: 20 }
const PER_TICK: Record<Scale, [number, number]> = { full: [1, 2000], quick: [1, 400], tiny: [1, 10] }
const MEMBERS = 5
const GROUPS_EACH = 10

/** The groups of all connections. Any two connections have few groups in common. */
function deal (groups: number): string[][] {
  const connections = groups * MEMBERS / GROUPS_EACH
  return Array.from({ length: connections }, (_, connection) => Array.from({ length: GROUPS_EACH }, (_, index) => {
    // five times all even ones and five times all odd ones, each time from another start
    const shift = (index >> 1) * 997
    return groupName((2 * (connection + shift) + index % 2) % groups)
  }))
}

function makeCase (scale: Scale): Case {
  const groups = GROUPS[scale]
  const [few, many] = PER_TICK[scale]
  const row = { unit: 'µs CPU per delivery', counts: 'deliveries', ratio: 'gain' } as const
  const name = `${groups} groups of ${MEMBERS}`
  return {
    rows: [
      { ...row, name: `${name}, ${few} a tick`, ...(scale === 'full' && { targets: { ws: 1, 'socket.io': 1.5 } }) },
      { ...row, name: `${name}, ${many} a tick`, ...(scale === 'full' && { targets: { ws: 2, 'socket.io': 1.5 } }) }
    ],
    ...Pair.each(async (pair, settings) => {
      const joined = deal(groups)
      await pair.connect(joined)
      return publish(pair, [few, many].map((perTick) => ({ groups, members: MEMBERS, perTick })), joined.length, settings)
    })
  }
}

export const groups: Workload = {
  name: 'groups',
  title: 'Many groups: events to one group after another',
  cases: (scale) => [makeCase(scale)]
}
