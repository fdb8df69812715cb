/** A server under everything at once, for as long as one likes: what its clients heard, how long they waited, what it kept in memory. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Remote } from '../lib/remote.ts'
import { format } from '../lib/statistics.ts'
import { castOf } from './plan.ts'
import { Probe } from './probe.ts'
import type { SoakServer } from './server.ts'
import type { Troublemakers } from './troublemakers.ts'
import type { WellBehaved } from './well-behaved.ts'

export interface SoakOptions {
  connections: number
  minutes: number
  /** Told each sample. */
  progress?: (text: string) => void
}

export interface SoakResult {
  rows: [what: string, figure: string][]
  /** What must not be. */
  failures: string[]
}

/** Share of the time that is not looked at: caches fill, functions are compiled, buffers grow to what they need. */
const WARM_UP = 0.3
const SAMPLES = 100
/** Growth of the memory in the rest of the time, as share of what there is, above which it is a failure; for soaks of some minutes. */
const GROWTH = 0.1
const MEANS_SOMETHING = 5
const MIB = 1024 * 1024

/** Runs a soak. */
export async function soak ({ connections, minutes, progress = () => {} }: SoakOptions): Promise<SoakResult> {
  const cast = castOf(connections)
  const starting = [
    Remote.start<SoakServer>('the server', [pathOf('server.ts')], { nodeArgs: ['--expose-gc'] }),
    Remote.start<WellBehaved>('the well-behaved clients', [pathOf('well-behaved.ts')]),
    Remote.start<Troublemakers>('the troublemakers', [pathOf('troublemakers.ts')])
  ] as const
  try {
    const [server, clients, troublemakers] = await Promise.all(starting)
    const port = await server.call('port')
    const probe = new Probe()
    progress(`connecting ${cast.steady} clients`)
    await clients.call('open', { port, cast })
    await Promise.all([server.call('begin', cast), clients.call('begin'), troublemakers.call('begin', { port, cast }), probe.start(port)])

    const samples: { at: number, rss: number, delay: number }[] = []
    const [begin, length] = [performance.now(), minutes * 60_000]
    let heapBefore = 0
    let before = { run: 0, wait: 0, at: 0 }
    for (let count = 1; count <= SAMPLES; count++) {
      await sleep(begin + length * count / SAMPLES - performance.now())
      const { rss, heapUsed, delay, connections } = await server.call('sample')
      if (count > WARM_UP * SAMPLES) samples.push({ at: performance.now() / 60_000, rss, delay })
      progress(`${count} %: ${connections} connections, ${Math.round(rss / MIB)} MiB resident, ${Math.round(heapUsed / MIB)} MiB heap, event loop p99 ${format(delay)} ms`)
      if (count === WARM_UP * SAMPLES) {
        heapBefore = await server.call('heap')
        probe.reset()
        before = { ...await server.cpuTime(), at: performance.now() }
      }
    }
    const after = await server.cpuTime()
    const share = (name: 'run' | 'wait') => `${Math.round((after[name] - before[name]) / 1e4 / (performance.now() - before.at))} %`
    const cpu = { run: share('run'), wait: share('wait') }
    const heapAfter = await server.call('heap')
    const pings = probe.stop()

    const trouble = await troublemakers.call('end')
    const rows = await server.call('end')
    const heard = await clients.call('end', rows)
    const counts = await server.call('counts')

    const mean = samples.reduce((sum, { rss }) => sum + rss, 0) / samples.length
    const slope = slopeOf(samples.map(({ at, rss }) => [at, rss]))
    const growth = slope * minutes * (1 - WARM_UP)
    const failures = [
      ...(heard.wrong === 0 ? [] : [`${heard.wrong} messages wrong or missing: ${heard.examples.join('; ')}`]),
      ...(minutes < MEANS_SOMETHING || growth < GROWTH * mean ? [] : [`resident memory grew by ${format(growth / MIB)} MiB`])
    ]
    return {
      failures,
      rows: [
        ['connections', `${format(connections)}: ${cast.steady} stay, ${cast.fleeting} come and go, ${cast.slow} do not read, ${cast.garbage} send rubbish`],
        ['time', `${format(minutes)} minutes, of which the first ${WARM_UP * 100} % are warm-up`],
        ['messages to the well-behaved', format(heard.heard)],
        ['of these wrong, missing, twice or out of order', format(heard.wrong)],
        ['calls of the well-behaved, all answered right', format(heard.calls)],
        ['times that a client was held against the server', format(heard.audits)],
        ['clients that came and went', format(heard.lives)],
        ['changes of rows that were announced', format(counts.changes)],
        ['pieces of rubbish, and error replies', `${format(trouble.rubbish)}, ${format(counts.refused)}`],
        ['closed because they did not read', format(counts.slow)],
        ['`ping`, p50', `${format(pings.p50)} ms`],
        ['`ping`, p99', `${format(pings.p99)} ms`],
        ['`ping`, longest', `${format(pings.max)} ms of ${format(pings.count)}`],
        ['event loop delay, median of the p99 of each sample', `${format(median(samples.map(({ delay }) => delay)))} ms`],
        ['CPU of the server', `${cpu.run} of one; for ${cpu.wait} of the time it waited for one`],
        ['resident memory, mean', `${format(mean / MIB)} MiB`],
        ['resident memory, slope', `${slope < 0 ? '−' : '+'}${format(Math.abs(slope) / MIB)} MiB a minute`],
        ['JavaScript heap without garbage, after the warm-up and at the end', `${format(heapBefore / MIB)} and ${format(heapAfter / MIB)} MiB`]
      ]
    }
  } finally {
    for (const result of await Promise.allSettled(starting.toReversed())) {
      if (result.status === 'fulfilled') await result.value.stop()
    }
  }
}

function pathOf (file: string): string {
  return fileURLToPath(new URL(file, import.meta.url))
}

/** Of the line that fits best: what y gains for each x. */
function slopeOf (points: [x: number, y: number][]): number {
  const mean = (index: 0 | 1) => points.reduce((sum, point) => sum + point[index], 0) / points.length
  const [x0, y0] = [mean(0), mean(1)]
  const [up, down] = points.reduce(([up, down], [x, y]) => [up + (x - x0) * (y - y0), down + (x - x0) ** 2], [0, 0])
  return up / down
}

function median (values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN
}
