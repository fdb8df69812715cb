/** A server under test and the load generator that works on it, each in a process and on a CPU of its own. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Generator } from '../generator.ts'
import type { Host, HostOptions } from '../host.ts'
import { servers, type ServerName } from '../servers/server.ts'
import type { CpuTime } from './cpu.ts'
import { protocols, type Protocol } from './protocols.ts'
import { Remote } from './remote.ts'
import type { Case, Measurement, Settings } from './workload.ts'

export const SERVER_CPU = 0
export const GENERATOR_CPU = 1

const HOST = fileURLToPath(new URL('../host.ts', import.meta.url))
const GENERATOR = fileURLToPath(new URL('../generator.ts', import.meta.url))

/** From here on the connections of a run come from several addresses. */
const MANY = 5000
/** Time that frames under way have to arrive, in milliseconds. */
const ARRIVAL = 10_000

/** How a server is started. */
export interface PairOptions extends HostOptions {
  nodeArgs?: readonly string[]
}

interface Snapshot {
  frames: number
  at: number
  server: CpuTime
  generator: CpuTime
}

/** What two processes did for a while. */
export interface Observation extends Required<Omit<Measurement, 'value' | 'failures'>> {
  frames: number
  /** CPU time of the server, or of both, in microseconds. */
  serverCpu: number
}

let runs = 0

/** One life of a server. */
export class Pair {
  /** The one with the connections. */
  readonly server: Remote<Host>
  /** The one that publishes: another one where they share groups through Redis. */
  readonly speaker: Remote<Host>
  readonly generator: Remote<Generator>
  readonly protocol: Protocol
  readonly #serverName: ServerName

  private constructor (name: ServerName, server: Remote<Host>, generator: Remote<Generator>, speaker = server) {
    this.#serverName = name
    this.protocol = protocols[servers[name].protocol]
    this.server = server
    this.speaker = speaker
    this.generator = generator
  }

  /** Runs of all servers that are alike. */
  static each (work: (pair: Pair, settings: Settings) => Promise<Measurement[]>, options: PairOptions = {}): Pick<Case, 'contestants' | 'runs'> {
    const contestants = Object.keys(servers) as ServerName[]
    return {
      contestants,
      runs: contestants.map((name) => ({
        name,
        make: async (settings) => ({ [name]: await Pair.use(name, settings, options, (pair) => work(pair, settings)) })
      }))
    }
  }

  /** Runs of the subject with various arguments for Node.js. */
  static variants (variants: Readonly<Record<string, readonly string[]>>, work: (pair: Pair, settings: Settings) => Promise<Measurement[]>): Pick<Case, 'contestants' | 'runs'> {
    return {
      contestants: Object.keys(variants),
      runs: Object.entries(variants).map(([name, nodeArgs]) => ({
        name,
        make: async (settings) => ({ [name]: await Pair.use('rohrpost', settings, { nodeArgs }, (pair) => work(pair, settings)) })
      }))
    }
  }

  /** Starts the processes, lets `work` use them, and ends them. */
  static async use<T> (name: ServerName, { profile, pin }: Settings, options: PairOptions, work: (pair: Pair) => Promise<T>): Promise<T> {
    const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${name.replace('/', '-')}-${++runs}.cpuprofile`]
    const nodeArgs = [...profiling, ...options.nodeArgs ?? []]
    const { nodeArgs: _, ...hostOptions } = options
    const host = (title: string, nodeArgs: readonly string[]) => {
      return Remote.start<Host>(title, [HOST, name, JSON.stringify(hostOptions)], { nodeArgs, ...(pin && { cpu: SERVER_CPU }) })
    }
    const starting = [
      host(`the server ${name}`, nodeArgs),
      Remote.start<Generator>('the load generator', [GENERATOR], pin ? { cpu: GENERATOR_CPU } : {}),
      ...(options.redis === undefined ? [] : [host(`the other server ${name}`, options.nodeArgs ?? [])])
    ] as const
    try {
      const [server, generator, speaker] = await Promise.all(starting)
      const result = await work(new Pair(name, server, generator, speaker))
      await generator.call('close')
      return result
    } finally {
      for (const result of await Promise.allSettled(starting.toReversed())) {
        if (result.status === 'fulfilled') await result.value.stop()
      }
    }
  }

  /** Opens a connection for each list of groups. Gives the time that it took, in milliseconds. */
  async connect (groups: string[][]): Promise<number> {
    const { port } = await this.server.call('ports')
    // only Linux answers to all of 127.0.0.0/8
    const spread = groups.length > MANY && process.platform === 'linux'
    const localAddresses = spread ? Array.from({ length: 8 }, (_, index) => `127.0.0.${2 + index}`) : []
    const { ms, failed, failure } = await this.generator.call('connect', { port, protocol: servers[this.#serverName].protocol, groups, localAddresses })
    if (failed > 0) throw new Error(`${failed} of ${groups.length} connections failed: ${failure}`)
    return ms
  }

  /** Has the generator tell the server what has arrived. */
  async reportTo (window: number): Promise<void> {
    const { reportPort } = await this.speaker.call('ports')
    await this.generator.call('report', { port: reportPort, every: Math.max(1, Math.floor(window / 8)) })
  }

  /** Watches both processes at work. */
  async observe (ms: number): Promise<Observation> {
    const before = await this.#snapshot()
    await sleep(ms)
    let after = await this.#snapshot()
    // on a busy machine nothing may have come in so short a time
    for (const deadline = performance.now() + ARRIVAL; after.frames === before.frames && performance.now() < deadline;) {
      await sleep(ms)
      after = await this.#snapshot()
    }

    const nanoseconds = (after.at - before.at) * 1e6
    const frames = after.frames - before.frames
    const serverCpu = after.server.run - before.server.run
    return {
      frames,
      serverCpu: serverCpu / 1000,
      rate: frames / nanoseconds * 1e9,
      serverBusy: serverCpu / nanoseconds,
      serverWaited: (after.server.wait - before.server.wait) / nanoseconds,
      generatorBusy: (after.generator.run - before.generator.run) / nanoseconds
    }
  }

  /** Waits until all frames have arrived. Gives what is wrong. */
  async settle (expected: number): Promise<string[]> {
    const deadline = performance.now() + ARRIVAL
    let totals = await this.generator.call('totals')
    while (totals.frames < expected && totals.odd === 0 && totals.closed === 0 && performance.now() < deadline) {
      await sleep(10)
      totals = await this.generator.call('totals')
    }
    const { frames, odd, closed } = totals
    return [
      ...(frames === expected ? [] : [`${frames} frames instead of ${expected}`]),
      ...(odd === 0 ? [] : [`${odd} frames of another length`]),
      ...(closed === 0 ? [] : [`the server closed ${closed} connections`])
    ]
  }

  async #snapshot (): Promise<Snapshot> {
    const { frames } = await this.generator.call('totals')
    const at = performance.now()
    const [generator, ...hosts] = await Promise.all([this.generator, ...new Set([this.server, this.speaker])].map((remote) => remote.cpuTime())) as [CpuTime, ...CpuTime[]]
    const server = { run: sum(hosts.map(({ run }) => run)), wait: sum(hosts.map(({ wait }) => wait)) }
    return { frames, at, server, generator }
  }
}

function sum (values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/** The figures of a row that is about CPU time per frame. */
export function perFrame ({ frames, serverCpu, ...rest }: Observation, failures: string[]): Measurement {
  return { value: serverCpu / frames, ...rest, failures: frames > 0 ? failures : [...failures, 'no frames'] }
}
