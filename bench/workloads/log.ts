/** Two processes on one PostgreSQL: what commits cost with the messages in the database, with Redis, and without any. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { LogHost, LogHostOptions } from '../log-host.ts'
import { makeTables } from '../lib/log-tables.ts'
import { groupName } from '../lib/protocols.ts'
import { withPostgreSql, type PostgreSql } from '../lib/postgresql.ts'
import { withRedis } from '../lib/redis.ts'
import { Remote } from '../lib/remote.ts'
import { Screen } from '../lib/screen.ts'
import type { Case, Measurement, Results, Row, Scale, Settings, Workload } from '../lib/workload.ts'

const HOST = fileURLToPath(new URL('../log-host.ts', import.meta.url))

const SIZES: Record<Scale, { slices: number, slice: number, commits: number, idle: number, old: number }> = {
  full: { slices: 10, slice: 1000, commits: 1000, idle: 10_000, old: 100_000 },
  quick: { slices: 4, slice: 700, commits: 200, idle: 3000, old: 20_000 },
  tiny: { slices: 1, slice: 150, commits: 10, idle: 300, old: 3000 }
}
/** Rows that each process can write to, and its writers. */
const ROWS = 8
const WRITERS = 4
/** Milliseconds between two commits whose way to the screen is timed. */
const PAUSE = 5
/** Milliseconds between two commits of a writer while old rows are deleted, so that the commits do not wait for the CPU. */
const BREATH = 4
/** Longest deletion of old rows, in milliseconds. */
const DELETION = 120_000

const SUBJECT = 'database broker'
const BROKERS = { [SUBJECT]: 'database', 'Redis broker': 'redis', 'without notifications': 'none' } as const
type Contestant = keyof typeof BROKERS
const contestants = Object.keys(BROKERS) as Contestant[]

/** Two processes on one database, each with a screen. */
class Site {
  readonly url: string
  readonly hosts: readonly Remote<LogHost>[]
  readonly screens: readonly Screen[]
  /** The changes that each screen must show. */
  expected = 0

  private constructor (url: string, hosts: readonly Remote<LogHost>[], screens: readonly Screen[]) {
    this.url = url
    this.hosts = hosts
    this.screens = screens
  }

  /** Starts the processes on a database that has the tables. */
  static async open (url: string, redisPort: number, broker: LogHostOptions['broker'], more: Partial<LogHostOptions> = {}): Promise<Site> {
    const hosts = await Promise.all([1, 1 + ROWS].map((firstRow) => {
      const options: LogHostOptions = { broker, clientUrl: url, redisPort, firstRow, ...more }
      return Remote.start<LogHost>(`the process with ${broker}`, [HOST, JSON.stringify(options)])
    }))
    const ports = await Promise.all(hosts.map((host) => host.call('port')))
    return new Site(url, hosts, await Promise.all(ports.map((port) => Screen.open(port, groupName(0)))))
  }

  /** Has writers commit in both processes. Gives the milliseconds that each commit took, and the commits per second. */
  async write (writers: number, ms: number, pause = 0): Promise<{ times: number[], perSecond: number }> {
    const written = await Promise.all(this.hosts.map((host) => host.call('write', { writers, ms, pause })))
    this.expected += written.reduce((sum, { times }) => sum + times.length, 0)
    return {
      times: written.flatMap(({ times }) => times),
      perSecond: written.reduce((sum, { times, ms }) => sum + times.length / ms * 1000, 0)
    }
  }

  /** Waits for the screens. Gives what is wrong. */
  async settle (): Promise<string[]> {
    return (await Promise.all(this.screens.map((screen) => screen.settle(this.expected)))).flat()
  }

  async close (): Promise<void> {
    for (const screen of this.screens) screen.close()
    await Promise.all(this.hosts.map((host) => host.stop()))
  }
}

/** Makes a database with the tables and the rows. */
async function createDatabase (server: PostgreSql, name: string): Promise<string> {
  const url = await server.create(name)
  await makeTables(url, 2 * ROWS)
  return url
}

function at (values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
}

/** The contestants take turns in short slices of one life of the servers. */
async function commits ({ scale }: Settings): Promise<Results> {
  const { slices, slice } = SIZES[scale]
  return await withServers(async (server, redisPort) => {
    const sites = new Map<Contestant, Site>()
    try {
      for (const name of contestants) {
        const url = await createDatabase(server, `bench_${BROKERS[name]}`)
        const site = await Site.open(url, redisPort, BROKERS[name])
        sites.set(name, site)
        await site.write(WRITERS, scale === 'tiny' ? 50 : 2000)
      }
      const rates = new Map(contestants.map((name): [Contestant, { many: number[], one: number[] }] => [name, { many: [], one: [] }]))
      for (let count = 0; count < slices; count++) {
        for (const name of [...contestants.slice(count % 3), ...contestants.slice(0, count % 3)]) {
          rates.get(name)?.many.push(await sites.get(name)?.write(WRITERS, slice).then(({ perSecond }) => perSecond) ?? NaN)
          rates.get(name)?.one.push(await sites.get(name)?.write(1, slice / 2).then(({ perSecond }) => perSecond) ?? NaN)
        }
      }
      const results: Results = {}
      for (const [name, { many, one }] of rates) {
        const failures = name === 'without notifications' ? [] : await sites.get(name)?.settle() ?? []
        results[name] = [many, one].map((perSecond) => {
          const rate = perSecond.reduce((sum, value) => sum + value, 0) / perSecond.length
          return { value: 1e6 / rate, rate, failures }
        })
      }
      return results
    } finally {
      await Promise.all([...sites.values()].map((site) => site.close()))
    }
  })
}

/** Times the way of single commits from the process that commits to a screen of the other one. */
async function latency ({ scale }: Settings): Promise<Results> {
  const { commits } = SIZES[scale]
  return await withServers(async (server, redisPort) => {
    const results: Results = {}
    for (const name of contestants.slice(0, 2)) {
      const url = await createDatabase(server, `bench_${BROKERS[name]}`)
      const site = await Site.open(url, redisPort, BROKERS[name])
      try {
        const [writer] = site.hosts
        // as many again to warm up
        const answered = await writer?.call('writeSingly', { count: 2 * commits, pause: PAUSE }) ?? []
        site.expected += answered.length
        const failures = await site.settle()
        const arrived = site.screens[1]?.times ?? []
        // a change can arrive before the process that commits has read the answer to its COMMIT
        const times = answered.map((time, index) => Math.max(0, ((arrived[index] ?? NaN) - time) / 1e6)).slice(commits)
        results[name] = [{ value: at(times, 0.5), failures }, { value: at(times, 0.99), failures: [] }]
      } finally {
        await site.close()
      }
    }
    return results
  })
}

/** Counts the statements of two processes that have nothing to do. */
async function idle ({ scale }: Settings): Promise<Results> {
  const { idle } = SIZES[scale]
  return await withServers(async (server, redisPort) => {
    const url = await createDatabase(server, 'bench_idle')
    await server.run(url, 'create extension pg_stat_statements')
    const site = await Site.open(url, redisPort, 'database')
    try {
      await site.write(1, 100)
      await site.settle()
      await sleep(idle / 4)
      await server.run(url, 'select pg_stat_statements_reset()')
      await sleep(idle)
      const [row] = await server.run(url, `select sum(calls) as calls from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database()) and query not like '%pg_stat_statements%'`)
      return { [SUBJECT]: [{ value: Number(row?.['calls'] ?? 0) / site.hosts.length / idle * 1000, failures: [] }] }
    } finally {
      await site.close()
    }
  })
}

/** Times commits while nothing is deleted, and while one of the processes deletes old rows. */
async function deletion ({ scale, measure }: Settings): Promise<Results> {
  const { old } = SIZES[scale]
  return await withServers(async (server, redisPort) => {
    const url = await createDatabase(server, 'bench_deletion')
    await server.run(url, `insert into rohrpost_log (group_name, payload, created_at)
      select 'group-' || n % 500, repeat('x', 200), 1 from generate_series(1, ${old}) n`)
    const remaining = async () => Number((await server.run(url, 'select count(*) as rows from rohrpost_log where created_at = 1'))[0]?.['rows'])

    const calm = await Site.open(url, redisPort, 'database')
    const without: number[] = []
    try {
      await calm.write(WRITERS, measure)
      without.push(...(await calm.write(WRITERS, 5 * measure, BREATH)).times)
    } finally {
      await calm.close()
    }

    const deleting = await Site.open(url, redisPort, 'database', { cleanInterval: scale === 'tiny' ? 50 : 500 })
    const during: number[] = []
    try {
      const before = await remaining()
      // the newest old row of each group stays
      for (const end = performance.now() + DELETION; await remaining() > 500 && performance.now() < end;) {
        during.push(...(await deleting.write(WRITERS, measure, BREATH)).times)
      }
      const left = await remaining()
      const failures = [...(left <= 500 ? [] : [`${left} of ${before} old rows were not deleted`]), ...await deleting.settle()]
      const shares = [0.5, 0.99, 1]
      return {
        'while old rows are deleted': shares.map((share) => ({ value: at(during, share), failures })),
        otherwise: shares.map((share): Measurement => ({ value: at(without, share), failures: [] }))
      }
    } finally {
      await deleting.close()
    }
  })
}

function withServers<T> (work: (server: PostgreSql, redisPort: number) => Promise<T>): Promise<T> {
  return withPostgreSql((server) => withRedis(false, (redisPort) => work(server, redisPort)))
}

const gain = { unit: 'µs per commit', counts: 'commits', ratio: 'gain' } as const
const time = { unit: 'ms', ratio: 'gain' } as const

function caseOf (make: (settings: Settings) => Promise<Results>, rows: readonly Row[]): Case {
  return { rows, contestants, runs: [{ name: SUBJECT, make }] }
}

export const log: Workload = {
  name: 'log',
  title: 'Commits on PostgreSQL in two processes, with a screen on each',
  cases: () => [
    caseOf(commits, [
      { ...gain, name: `${2 * WRITERS} writers`, targets: { 'Redis broker': 0.8, 'without notifications': 0.55 } },
      { ...gain, name: '2 writers' }
    ]),
    caseOf(latency, [
      { ...time, name: 'from the commit to a screen of the other process, median (target 5 ms)' },
      { ...time, name: 'from the commit to a screen of the other process, 99th percentile (target 25 ms)' }
    ]),
    caseOf(idle, [
      { name: 'an idle process (target 2)', unit: 'statements per second', ratio: 'share' }
    ])
  ]
}

export const logDeletion: Workload = {
  name: 'log-deletion',
  title: 'Commits on PostgreSQL while old rows of the log are deleted',
  cases (scale) {
    const row = { unit: 'ms', ratio: 'share' } as const
    const rows = `${SIZES[scale].old.toLocaleString('en')} rows`
    return [{
      contestants: ['while old rows are deleted', 'otherwise'],
      rows: [
        { ...row, name: `a commit, median, ${rows}` },
        { ...row, name: `a commit, 99th percentile, ${rows}`, targets: { otherwise: 1.5 } },
        { ...row, name: `a commit, longest, ${rows}` }
      ],
      runs: [{ name: 'while old rows are deleted', make: deletion }]
    }]
  }
}
