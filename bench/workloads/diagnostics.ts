/** What the channels of diagnostics cost: while nobody listens, held against the plugin without them, and while somebody does. */
import { fileURLToPath } from 'node:url'
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { publish } from '../lib/publish.ts'
import type { Case, Row, Scale, Workload } from '../lib/workload.ts'
import { request } from './rpc.ts'

const preload = (file: string) => ['--import', fileURLToPath(new URL(`../lib/${file}`, import.meta.url))]

const VARIANTS = {
  rohrpost: [],
  'without diagnostics': preload('without-checks.ts'),
  'with subscribers': preload('subscribers.ts')
}
/** Less than what can be told apart, see README.md. */
const TARGETS = { 'without diagnostics': 1.05 }

const CONNECTIONS: Record<Scale, number> = { full: 50, quick: 50, tiny: 2 }
const MEMBERS: Record<Scale, number> = { full: 10, quick: 10, tiny: 2 }
const IN_FLIGHT = 16
/** Groups are small: the question is asked once for each message, however many hear it. */
const PER_TICK = 16

const row = (name: string, counts: string, unit: string): Row => ({ name, counts, unit, ratio: 'share', targets: TARGETS })

function makeRequests (scale: Scale): Case {
  const load = { type: 'echo', connections: CONNECTIONS[scale], orm: false } as const
  return {
    rows: [row(`echo, ${load.connections} connections, ${IN_FLIGHT} in flight`, 'requests', 'µs CPU per request')],
    ...Pair.variants(VARIANTS, async (pair, settings) => {
      await pair.connect(Array.from({ length: load.connections }, () => []))
      return request(pair, load, settings)
    })
  }
}

function makeFanout (scale: Scale): Case {
  const members = MEMBERS[scale]
  return {
    rows: [row(`${members} members, ${PER_TICK} events a tick`, 'deliveries', 'µs CPU per delivery')],
    ...Pair.variants(VARIANTS, async (pair, settings) => {
      await pair.connect(Array.from({ length: members }, () => [groupName(0)]))
      return publish(pair, [{ groups: 1, members, perTick: PER_TICK }], members, settings)
    })
  }
}

export const diagnostics: Workload = {
  name: 'diagnostics',
  title: 'Diagnostics: channels to which nobody listens, none at all, and all with a subscriber that counts',
  cases: (scale) => [makeRequests(scale), makeFanout(scale)]
}
