/**
 * Kills processes that commit, at any instant, while a client of another process follows. Each commit increments
 * counters, so the client must receive the values of a counter as 1, 2, 3, … up to the value in the table.
 */
import { fileURLToPath } from 'node:url'
import type { MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import { databaseBroker } from '../../../lib/brokers/database/index.ts'
import { RohrpostClient } from '../../../lib/client/index.ts'
import rohrpost from '../../../lib/index.ts'
import type { After, DatabaseName } from '../../brokers/database/support.ts'
import { GROUP, ROWS } from './counters.ts'
import { kill, makeCounters, readUntil, withEndings, type CounterRow, type KillOptions } from './killer.ts'
import type { Instructions } from './mortal.ts'

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
/** Milliseconds in which the client must have received all changes. */
const END = 30_000

/** SQLite has no server: the answer to a COMMIT is there when the call returns. */
const INSTANTS: Record<DatabaseName, ReadonlyArray<Instructions['instant']>> = {
  PostgreSQL: ['killed', 'committed', 'sent'],
  MariaDB: ['killed', 'committed', 'sent'],
  SQLite: ['killed', 'committed']
}

export function run ({ database: name, kills, say }: KillOptions): Promise<KillReport> {
  return withEndings(async (after) => {
    const { orm, dbName } = await makeCounters(name, ROWS, after)
    const follower = await follow(orm, after)
    await kill({ writer: WRITER, args: [name, dbName], instants: INSTANTS[name], kills, after, say })
    return { kills, ...await follower.compare() }
  })
}

/** A process of the application with a client, which receives the changes of all writers. */
async function follow (orm: MikroORM, after: After) {
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

  const hasAll = (counters: readonly CounterRow[]) => {
    return counters.every(({ id, value }) => received.get(id)?.includes(value) === true || value === 0)
  }
  return {
    /** Waits until the client has received the values in the table, for some seconds at most. */
    async compare (): Promise<Omit<KillReport, 'kills'>> {
      const counters = await readUntil(orm, hasAll, (run) => { wake = run }, END)
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
