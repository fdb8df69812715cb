/**
 * Kills processes that commit and publish through Redis, while a client of another process follows. Each process has a
 * row of its own, whose last committed state the client must receive.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import { RohrpostClient } from '../../../lib/client/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import { makeDatabase, type After, type DatabaseName } from '../../brokers/database/support.ts'
import { privateRedis, type PrivateRedis } from '../../support/redis.ts'
import { Counter, GROUP, open, rules } from '../kills/counters.ts'
import type { Instructions } from './writer.ts'

/** Options of a plan. */
export interface KillOptions {
  database: DatabaseName
  kills: number
  /** Whether the processes have an outbox. */
  hasOutbox?: boolean
  say?: (text: string) => void
}

/** What the client has received, compared with the table. */
export interface KillReport {
  kills: number
  /** Changes that were committed. */
  commits: number
  /** Rows whose last committed state has not reached the client. */
  lost: number
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
/** Milliseconds in which the client must have received all changes: rows stay in the outbox for up to 11 s. */
const END = 20_000

/** SQLite has no server: the answer to a COMMIT is there when the call returns. */
const INSTANTS: Record<DatabaseName, ReadonlyArray<Instructions['instant']>> = {
  PostgreSQL: ['committed', 'killed', 'sent', 'confirmed'],
  MariaDB: ['committed', 'killed', 'sent', 'confirmed'],
  SQLite: ['committed', 'killed']
}

export async function run (options: KillOptions): Promise<KillReport> {
  const endings: Array<() => Promise<void> | void> = []
  try {
    return await execute(options, (end) => endings.unshift(end))
  } finally {
    for (const end of endings) await end()
  }
}

async function execute ({ database: name, kills, hasOutbox = true, say = () => {} }: KillOptions, after: After): Promise<KillReport> {
  const database = await makeDatabase(name, after, { hasTables: false })
  const dbName = String(database.orm.config.get('dbName'))
  const orm = await open(name, dbName)
  after(() => orm.close(true))
  if (name === 'SQLite') await orm.em.getConnection().execute('pragma journal_mode = wal')
  await orm.schema.create()
  await orm.em.fork().insertMany(Counter, Array.from({ length: kills }, (_, index) => ({ id: index + 1, value: 0 })))
  const redis = await privateRedis({ after })

  const follower = await follow(orm, redis, hasOutbox, after)
  // without an outbox nothing is deleted
  const instants = INSTANTS[name].filter((instant) => hasOutbox || instant !== 'confirmed')
  await kill([name, dbName, String(redis.port), hasOutbox ? 'outbox' : 'none'], instants, kills, after, say)
  return { kills, ...await follower.compare() }
}

/** Starts writers and kills them. */
async function kill (
  args: string[], instants: ReadonlyArray<Instructions['instant']>, kills: number, after: After, say: (text: string) => void
): Promise<void> {
  const children = new Set<ChildProcess>()
  after(() => { for (const child of children) child.kill('SIGKILL') })
  const start = async () => {
    const child = fork(WRITER, args, { env: { ...process.env, NODE_V8_COVERAGE: undefined } })
    children.add(child)
    const ended = once(child, 'exit').then(([code]) => {
      children.delete(child)
      if (code !== null) throw new Error(`A writer ended with the exit code ${code}`)
    })
    ended.catch(() => {})
    await Promise.race([once(child, 'message'), ended])
    return { child, ended }
  }

  const ready: Array<ReturnType<typeof start>> = []
  let [begun, done] = [0, 0]
  const next = () => {
    while (ready.length <= SPARE) ready.push(start())
    return ready.shift() as ReturnType<typeof start>
  }
  await Promise.all(Array.from({ length: ACTIVE }, async () => {
    while (begun < kills) {
      const instant = instants[begun % instants.length] as Instructions['instant']
      const row = ++begun
      const { child, ended } = await next()
      child.send({ instant, row, commits: 1 + Math.floor(Math.random() * COMMITS) } satisfies Instructions)
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
async function follow (orm: MikroORM, redis: PrivateRedis, outbox: boolean, after: After) {
  const app = Fastify()
  await app.register(rohrpost, { broker: redisBroker({ client: redis.client() }) })
  await app.register(rohrpostMikroOrm, { orm, notify: rules, outbox })
  app.rohrpost.group(GROUP, { id: false, authorize: () => true })
  after(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const client = new RohrpostClient(`ws://127.0.0.1:${port}/ws/rohrpost`, { WebSocket })
  after(() => client.close())

  /** The states that a screen shows. A client that has to load again reads the table. */
  const shown = new Map<number, number>()
  let resyncs = 0
  let wake = () => {}
  client.on('resync', async () => {
    resyncs++
    for (const { id, value } of await orm.em.fork().find(Counter, {})) shown.set(id, value)
    wake()
  })
  client.on(GROUP, (error, change) => {
    if (error) throw error
    const { id, value } = change.object as { id: number, value: number }
    shown.set(id, value)
    wake()
  })
  await client.subscribe({ type: GROUP })

  const lostOf = (counters: ReadonlyArray<{ id: number, value: number }>) => {
    return counters.filter(({ id, value }) => (shown.get(id) ?? 0) !== value).length
  }
  return {
    /** Waits until the client shows the values in the table, for some seconds at most. */
    async compare (): Promise<Omit<KillReport, 'kills'>> {
      const deadline = AbortSignal.timeout(END)
      for (;;) {
        // a server may still end transactions of killed writers
        const counters = await orm.em.fork().find(Counter, {})
        const lost = lostOf(counters)
        if (lost === 0 || deadline.aborted) {
          return { commits: counters.reduce((sum, { value }) => sum + value, 0), lost, resyncs }
        }
        const { promise, resolve } = Promise.withResolvers<void>()
        wake = resolve
        deadline.addEventListener('abort', () => resolve(), { once: true })
        await promise
      }
    }
  }
}
