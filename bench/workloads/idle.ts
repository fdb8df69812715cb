/** Connections that do nothing: what it costs to open and to keep them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { readFileLimit } from '../lib/cpu.ts'
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import type { Measurement, Scale, Settings, Workload } from '../lib/workload.ts'

const CONNECTIONS: Record<Scale, number> = { full: 10_000, quick: 2000, tiny: 20 }
/** Files that a process has open beside its connections, amply. */
const OTHER_FILES = 200
/** Milliseconds until a server has done with what comes after the last upgrade. */
const REST: Record<Scale, number> = { full: 1500, quick: 500, tiny: 10 }

async function measure (pair: Pair, connections: number, { scale }: Settings): Promise<Measurement[]> {
  const before = await pair.server.call('memory')
  const start = await Promise.all([pair.server.cpuTime(), pair.generator.cpuTime()])
  const ms = await pair.connect(Array.from({ length: connections }, () => [groupName(0)]))
  const end = await Promise.all([pair.server.cpuTime(), pair.generator.cpuTime()])

  await sleep(REST[scale])
  const after = await pair.server.call('memory')
  const { closed } = await pair.generator.call('totals')
  const failures = closed === 0 ? [] : [`the server closed ${closed} connections`]

  const cpu = end[0].run - start[0].run
  return [
    { value: (after.rss - before.rss) / connections / 1024, failures },
    { value: (after.heapUsed - before.heapUsed) / connections / 1024, failures },
    {
      value: ms / connections,
      rate: connections / ms * 1000,
      serverBusy: cpu / ms / 1e6,
      serverWaited: (end[0].wait - start[0].wait) / ms / 1e6,
      generatorBusy: (end[1].run - start[1].run) / ms / 1e6,
      failures
    },
    { value: cpu / connections / 1000, failures }
  ]
}

export const idle: Workload = {
  name: 'idle',
  title: 'Idle connections, each in one group',
  cases (scale) {
    const connections = Math.min(CONNECTIONS[scale], readFileLimit() - OTHER_FILES)
    return [{
      rows: [
        { name: `${connections} connections, resident memory`, unit: 'KiB each', ratio: 'share', ...(scale === 'full' && { targets: { ws: 1.4, 'socket.io': 0.6 } }) },
        { name: `${connections} connections, JavaScript heap`, unit: 'KiB each', ratio: 'share' },
        { name: 'connecting and joining', unit: 'ms each', counts: 'connects', ratio: 'gain', ...(scale === 'full' && { targets: { ws: 0.8, 'socket.io': 2 } }) },
        { name: 'connecting and joining, server', unit: 'µs CPU each', ratio: 'gain' }
      ],
      ...Pair.each((pair, settings) => measure(pair, connections, settings), { nodeArgs: ['--expose-gc'] })
    }]
  }
}
