/** The server of the soak, with what goes on in it: news to all, messages to rooms, rows that change. Started by the soak. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { defineEntity, MikroORM, NodeSqliteDialect, p, SqliteDriver } from '@mikro-orm/sql'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import rohrpost, { diagnostics } from '../../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { serve } from '../lib/remote.ts'
import { LISTEN } from '../servers/server.ts'
import { checksum, LISTS, ROWS } from './plan.ts'

/** Milliseconds between two messages, or flushes. */
const EVERY = { news: 1000, room: 25, flush: 100, bulk: 50 }
/** Rows that one flush changes. */
const CHANGES = 5
/** What those get who don't read. */
const BULK = 'x'.repeat(32_768)

const Row = defineEntity({
  name: 'Row',
  properties: { id: p.integer().primary().autoincrement(), list: p.integer(), n: p.integer() }
})
const orm = await MikroORM.init({
  driver: SqliteDriver, driverOptions: new NodeSqliteDialect(':memory:'), dbName: ':memory:', entities: [Row]
})
await orm.schema.create()

const app = Fastify()
await app.register(rohrpost, { path: '/ws' })
await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Row, { group: 'list-{list}', data: ['id', 'n'] })] })

/** How many messages each group has had. */
const sent = new Map<string, number>()
const counts = { published: 0, changes: 0, deliveries: 0, slow: 0, refused: 0, connects: 0 }
diagnostics.deliver.subscribe(({ members }) => { counts.deliveries += members })
diagnostics.notify.subscribe(() => { counts.changes++ })
diagnostics.connect.subscribe(() => { counts.connects++ })
diagnostics.reply.subscribe(({ outcome }) => { if (outcome === 'error') counts.refused++ })
diagnostics.drop.subscribe(({ reason }) => { if (reason === 'slow_consumer') counts.slow++ })

app.rohrpost
  .group('news', { id: false, authorize: () => true })
  .group('bulk', { id: false, authorize: () => true })
  .group('room', { authorize: () => true })
  .group('list', { authorize: () => true })
  .handle('echo', { data: Type.Object({ text: Type.String() }) }, ({ data }) => data)
  .handle('later', async ({ data }) => {
    await new Promise((resolve) => setImmediate(resolve))
    return data
  })
  // what has been sent before the answer, the client has read before the answer
  .handle('sent', { data: Type.Array(Type.String()) }, ({ data }) => data.map((group) => sent.get(group) ?? 0))

const address = await app.listen(LISTEN)
const delay = monitorEventLoopDelay({ resolution: 10 })
delay.enable()

function tell (group: string): void {
  const n = (sent.get(group) ?? 0) + 1
  sent.set(group, n)
  counts.published++
  app.rohrpost.sendToGroup(group, { type: 'told', data: { group, n, sum: checksum(group, n) } })
}

/** Rows change, move, end and begin. */
async function change (): Promise<void> {
  const em = orm.em.fork()
  const rows = await em.findAll(Row)
  for (let list = 0; rows.length === 0 && list < LISTS; list++) {
    for (let n = 0; n < ROWS; n++) em.create(Row, { list, n: 1 })
  }
  for (let index = 0; index < CHANGES; index++) {
    const [row] = rows.splice(Math.floor(Math.random() * rows.length), 1)
    if (row === undefined) break
    row.n++
    const dice = Math.random()
    if (dice < 0.1) row.list = (row.list + 1) % LISTS
    else if (dice < 0.15) {
      em.remove(row)
      em.create(Row, { list: row.list, n: 1 })
    }
  }
  // one of five is thought better of
  const isMeant = rows.length === 0 || Math.random() < 0.8
  await em.begin()
  await em.flush()
  if (isMeant) await em.commit()
  else await em.rollback()
}

let timers: NodeJS.Timeout[] = []
let changing: Promise<void> | undefined

const server = {
  port: () => Number(new URL(address).port),

  begin ({ rooms }: { rooms: number }) {
    timers = [
      setInterval(() => tell('news'), EVERY.news),
      setInterval(() => tell(`room-${Math.floor(Math.random() * rooms)}`), EVERY.room),
      setInterval(() => { app.rohrpost.sendToGroup('bulk', { type: 'bulk', data: BULK }) }, EVERY.bulk),
      setInterval(() => { changing ??= change().finally(() => { changing = undefined }) }, EVERY.flush)
    ]
  },

  /** Sends no more. Gives the rows that there are, by list. */
  async end () {
    for (const timer of timers) clearInterval(timer)
    await changing
    const rows = await orm.em.fork().findAll(Row)
    return Array.from({ length: LISTS }, (_, list) => rows.filter((row) => row.list === list).map(({ id, n }) => ({ id, n })))
  },

  /** The event loop's delay in milliseconds, since the last call. */
  sample () {
    const { rss, heapUsed } = process.memoryUsage()
    const p99 = delay.percentile(99) / 1e6
    delay.reset()
    return { rss, heapUsed, delay: p99, connections: app.rohrpost.connections.size }
  },

  /** The heap once all garbage is gone, in bytes. */
  heap () {
    globalThis.gc?.()
    globalThis.gc?.()
    return process.memoryUsage().heapUsed
  },

  counts: () => counts
}

export type SoakServer = typeof server

serve(server)
