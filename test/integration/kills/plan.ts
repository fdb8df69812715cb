/**
 * Kills processes that commit, at any instant, while a client of another process follows. Each commit increments
 * counters, so the client must receive the values of a counter as 1, 2, 3, … up to the value in the table.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import { databaseBroker } from '../../../lib/brokers/database/index.ts'
import { RohrpostClient } from '../../../lib/client/index.ts'
import rohrpost from '../../../lib/index.ts'
import { makeDatabase, type After, type DatabaseName } from '../../brokers/database/support.ts'
import { Counter, GROUP, open, ROWS } from './counters.ts'
import type { Instructions } from './writer.ts'

/** Options of a plan. */
export interface KillOptions {
  database: DatabaseName
  kills: number
  say?: (text: string) => void
}

/** What the client has received, compared with the table. */
export interface KillReport {
  kills: number
  /** Changes that were committed. */
  commits: number
  /** Committed changes that the client has not received. */
  lost: number
  /** Changes that the client has received and that were rolled back, or more than once. */
  doubled: number
  /** Changes that the client has received after a later one. */
  back: number
  /** Changes after which the client was told to load again. */
  resyncs: number
}

const WRITER = fileURLToPath(new URL('writer.ts', import.meta.url))
/** Writers at a time, and writers that are started in advance. */
const ACTIVE = 2
const SPARE = 1
/** Upper bounds of the random instants: commits, and milliseconds. */
const COMMITS = 12
const DELAY = 60
/** Milliseconds in which the client must have received all changes. */
const END = 30_000

/** SQLite has no server: the answer to a COMMIT is there when the call returns. */
const INSTANTS: Record<DatabaseName, ReadonlyArray<Instructions['instant']>> = {
  PostgreSQL: ['killed', 'committed', 'sent'],
  MariaDB: ['killed', 'committed', 'sent'],
  SQLite: ['killed', 'committed']
}

export async function run (options: KillOptions): Promise<KillReport> {
  const endings: Array<() => Promise<void> | void> = []
  try {
    return await execute(options, (end) => endings.unshift(end))
  } finally {
    for (const end of endings) await end()
  }
}

async function execute ({ database: name, kills, say = () => {} }: KillOptions, after: After): Promise<KillReport> {
  const database = await makeDatabase(name, after, { hasTables: false })
  const dbName = String(database.orm.config.get('dbName'))
  const orm = await open(name, dbName)
  after(() => orm.close(true))
  if (name === 'SQLite') await orm.em.getConnection().execute('pragma journal_mode = wal')
  await orm.schema.create()
  await orm.em.fork().insertMany(Counter, Array.from({ length: ROWS }, (_, index) => ({ id: index + 1, value: 0 })))

  const follower = await follow(orm, after)
  await kill(name, dbName, kills, after, say)
  return { kills, ...await follower.compare() }
}

/** Starts writers and kills them. */
async function kill (name: DatabaseName, dbName: string, kills: number, after: After, say: (text: string) => void): Promise<void> {
  const children = new Set<ChildProcess>()
  after(() => { for (const child of children) child.kill('SIGKILL') })
  const start = async () => {
    const child = fork(WRITER, [name, dbName], { env: { ...process.env, NODE_V8_COVERAGE: undefined } })
    children.add(child)
    const ended = once(child, 'exit').then(([code]) => {
      children.delete(child)
      if (code !== null) throw new Error(`A writer ended with the exit code ${code}`)
    })
    ended.catch(() => {})
    await Promise.race([once(child, 'message'), ended])
    return { child, ended }
  }

  const instants = INSTANTS[name]
  const ready: Array<ReturnType<typeof start>> = []
  let [begun, done] = [0, 0]
  const next = () => {
    while (ready.length <= SPARE) ready.push(start())
    return ready.shift() as ReturnType<typeof start>
  }
  await Promise.all(Array.from({ length: ACTIVE }, async () => {
    while (begun < kills) {
      const instant = instants[begun++ % instants.length] as Instructions['instant']
      const { child, ended } = await next()
      child.send({ instant, commits: 1 + Math.floor(Math.random() * COMMITS) } satisfies Instructions)
      if (instant === 'killed') {
        await wait(Math.random() * DELAY)
        child.kill('SIGKILL')
      }
      await ended
      if (++done % 100 === 0) say(`${done} of ${kills} writers are killed`)
    }
  }))
  for (const { child, ended } of await Promise.all(ready)) {
    child.kill('SIGKILL')
    await ended
  }
}

/** A process of the application with a client, which receives the changes of all writers. */
async function follow (orm: Awaited<ReturnType<typeof open>>, after: After) {
  const app = Fastify()
  await app.register(rohrpost, { broker: databaseBroker({ orm, history: { size: 100_000, ttl: 60 * 60 * 1000 } }) })
  app.rohrpost.group(GROUP, { id: false, authorize: () => true })
  after(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const client = new RohrpostClient(`${url.replace('http', 'ws')}/ws/rohrpost`, { WebSocket })
  after(() => client.close())

  const received = new Map<number, number[]>(Array.from({ length: ROWS }, (_, index) => [index + 1, []]))
  let resyncs = 0
  let wake = () => {}
  client.on('resync', () => { resyncs++ })
  client.on(GROUP, (error, change) => {
    if (error) throw error
    const { id, value } = change.object as { id: number, value: number }
    received.get(id)?.push(value)
    wake()
  })
  await client.subscribe({ type: GROUP })

  const hasAll = (counters: ReadonlyArray<{ id: number, value: number }>) => {
    return counters.every(({ id, value }) => received.get(id)?.includes(value) === true || value === 0)
  }
  /** Waits until the client has received the values in the table, for some seconds at most. */
  const readAll = async () => {
    const deadline = AbortSignal.timeout(END)
    for (;;) {
      // a server may still end transactions of killed writers
      const counters = await orm.em.fork().find(Counter, {})
      if (hasAll(counters) || deadline.aborted) return counters
      const { promise, resolve } = Promise.withResolvers<void>()
      wake = resolve
      deadline.addEventListener('abort', () => resolve(), { once: true })
      if (!hasAll(counters)) await promise
    }
  }

  return {
    async compare (): Promise<Omit<KillReport, 'kills'>> {
      const counters = await readAll()
      const report = { commits: 0, lost: 0, doubled: 0, back: 0, resyncs }
      for (const { id, value } of counters) {
        const values = received.get(id) as number[]
        const unique = new Set(values)
        report.commits += value
        report.lost += Array.from({ length: value }, (_, index) => index + 1).filter((each) => !unique.has(each)).length
        report.doubled += values.length - unique.size + [...unique].filter((each) => each > value).length
        report.back += values.filter((each, index) => each < Number(values[index - 1])).length
      }
      return report
    }
  }
}
