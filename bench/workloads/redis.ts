/** Two processes that share groups through Redis: one publishes, the other has the members. */
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { publish } from '../lib/publish.ts'
import { withRedis } from '../lib/redis.ts'
import type { Case, Measurement, Row, Run, Scale, Settings, Workload } from '../lib/workload.ts'

const MEMBERS: Record<Scale, number[]> = { full: [1, 10, 100], quick: [1, 10, 100], tiny: [3] }
const PER_TICK = [1, 16]
const TARGETS: Record<number, number> = { 1: 4, 10: 6, 100: 40 }
/** Events that are timed, one after another. */
const TIMED: Record<Scale, number> = { full: 500, quick: 200, tiny: 10 }

const contestants = {
  rohrpost: { server: 'rohrpost', history: false },
  'rohrpost with history': { server: 'rohrpost', history: true },
  'socket.io': { server: 'socket.io', history: false }
} as const

function runs (work: (pair: Pair, settings: Settings) => Promise<Measurement[]>): Run[] {
  return Object.entries(contestants).map(([name, { server, history }]) => ({
    name,
    make: (settings) => withRedis(settings.pin, async (port) => ({
      [name]: await Pair.use(server, settings, { redis: { port, history } }, (pair) => work(pair, settings))
    }))
  }))
}

function throughput (members: number): Case {
  const target = TARGETS[members]
  return {
    rows: PER_TICK.map((perTick): Row => ({
      name: `${members} ${members === 1 ? 'member' : 'members'}, ${perTick} a tick`,
      unit: 'µs CPU per delivery',
      counts: 'deliveries',
      ratio: 'gain',
      ...(target !== undefined && { targets: { 'socket.io': target } })
    })),
    contestants: Object.keys(contestants),
    runs: runs(async (pair, settings) => {
      await pair.connect(Array.from({ length: members }, () => [groupName(0)]))
      return publish(pair, PER_TICK.map((perTick) => ({ groups: 1, members, perTick })), members, settings)
    })
  }
}

function latency (scale: Scale): Case {
  const row = { unit: 'ms', ratio: 'gain' } as const
  return {
    rows: [
      { ...row, name: 'from sendToGroup to a client of the other process, median (target 1 ms)' },
      { ...row, name: 'from sendToGroup to a client of the other process, 99th percentile' }
    ],
    contestants: Object.keys(contestants),
    runs: runs(async (pair) => {
      await pair.connect([[groupName(0)]])
      await pair.generator.call('expect', pair.protocol.eventLength)
      const times: number[] = []
      // as many again to warm up
      for (let frames = 1; frames <= 2 * TIMED[scale]; frames++) {
        const reached = pair.generator.call('reach', frames)
        const startedAt = await pair.speaker.call('burst', { messages: 1, members: 1 })
        times.push((await reached - startedAt) / 1e6)
      }
      const failures = await pair.settle(await pair.speaker.call('stop'))
      const sorted = times.slice(TIMED[scale]).sort((a, b) => a - b)
      const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
      return [{ value: at(0.5), failures }, { value: at(0.99), failures: [] }]
    })
  }
}

export const redis: Workload = {
  name: 'redis',
  title: 'Through Redis: one process publishes, another one has the members',
  cases: (scale) => [...MEMBERS[scale].map(throughput), latency(scale)]
}
