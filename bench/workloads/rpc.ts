/** Requests and answers: each connection has so many in flight, an answer is followed by the next request. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pair, perFrame } from '../lib/pair.ts'
import type { Case, Measurement, Row, Scale, Settings, Workload } from '../lib/workload.ts'

interface Load {
  type: 'ping' | 'echo'
  connections: number
  orm: boolean
}

const LOADS: Record<Scale, Load[]> = {
  full: [
    { type: 'ping', connections: 1, orm: false },
    { type: 'ping', connections: 50, orm: false },
    { type: 'ping', connections: 500, orm: false },
    { type: 'echo', connections: 50, orm: false },
    { type: 'echo', connections: 50, orm: true }
  ],
  quick: [
    { type: 'ping', connections: 50, orm: false },
    { type: 'echo', connections: 50, orm: true }
  ],
  tiny: [
    { type: 'ping', connections: 2, orm: false },
    { type: 'echo', connections: 2, orm: true }
  ]
}
const DEEPEST = 16

/** The handler of an application is looked at with many in flight only: there its cost is not hidden by that of the writes. */
const inFlightOf = ({ type }: Load) => type === 'ping' ? [1, DEEPEST] : [DEEPEST]

function targetsOf ({ type, connections }: Load, inFlight: number): Row['targets'] {
  if (type !== 'ping') return undefined
  if (inFlight === DEEPEST) return { ws: 3, 'socket.io': 4 }
  return connections === 1 ? undefined : { ws: 0.9, 'socket.io': 1.8 }
}

function makeCase (load: Load): Case {
  const { type, connections, orm } = load
  return {
    rows: inFlightOf(load).map((inFlight) => {
      const targets = targetsOf(load, inFlight)
      return {
        name: `${type}${orm ? ' in a MikroORM context' : ''}, ${connections} ${connections === 1 ? 'connection' : 'connections'}, ${inFlight} in flight`,
        unit: 'µs CPU per request',
        counts: 'requests',
        ratio: 'gain',
        ...(targets && { targets })
      }
    }),
    ...Pair.each(async (pair, settings) => {
      await pair.connect(Array.from({ length: connections }, () => []))
      return request(pair, load, settings)
    }, { orm })
  }
}

/** Measures one number in flight after another. */
export async function request (pair: Pair, load: Load, { warmUp, settle, measure }: Settings): Promise<Measurement[]> {
  const { type } = load
  await pair.generator.call('startRequests', { type, inFlight: DEEPEST })
  await sleep(warmUp)
  await pair.settle(await pair.generator.call('stopRequests'))

  const measurements: Measurement[] = []
  for (const inFlight of inFlightOf(load)) {
    await pair.generator.call('startRequests', { type, inFlight })
    await sleep(settle)
    const observation = await pair.observe(measure)
    const sent = await pair.generator.call('stopRequests')
    measurements.push(perFrame(observation, await pair.settle(sent)))
  }
  return measurements
}

export const rpc: Workload = {
  name: 'rpc',
  title: 'Requests: `ping` as it is built in, `echo` as a handler of an application',
  cases: (scale) => LOADS[scale].map(makeCase)
}
