/** The process that flushes, into one database with notifications and into one without. Started by the benchmark. */
import type { EntityManager, InferEntity, MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { memoryBroker, rohrpost } from '../lib/index.ts'
import { announce, book, Book, openOrm } from './lib/orm.ts'
import { serve } from './lib/remote.ts'

type Kind = 'insert' | 'update' | 'transaction'
type Side = 'with' | 'without'

let heard = 0
const orms: Record<Side, MikroORM> = { with: await openOrm(), without: await openOrm() }
const app = Fastify()
// nobody listens: this is about the side of the ORM, from the change to the broker
await app.register(rohrpost, { broker: { ...memoryBroker(), publish: () => { heard++ } } })
await announce(app, orms.with)
await app.ready()

/** Microseconds of CPU time, those of the garbage collector's threads included. */
async function cost (work: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return user + system
}

/** Inserts rows, updates each of them, and inserts them again in a transaction of the app; only the flushes and the COMMITs count. */
async function flush (orm: MikroORM, rows: number): Promise<Record<Kind, number>> {
  const em = orm.em.fork()
  const books = create(em, rows)
  const insert = await cost(() => em.flush())

  for (const row of books) row.stock++
  const update = await cost(() => em.flush())
  await orm.em.fork().nativeDelete(Book, {})

  em.clear()
  await em.begin()
  create(em, rows)
  const transaction = await cost(() => em.commit())
  await orm.em.fork().nativeDelete(Book, {})
  return { insert, update, transaction }
}

function create (em: EntityManager, rows: number): Array<InferEntity<typeof Book>> {
  return Array.from({ length: rows }, (_, index) => em.create(Book, book(index + 1, index + 1)))
}

/** The heap that rows hold which are flushed and not committed, in bytes for each. */
async function pending (orm: MikroORM, rows: number): Promise<number> {
  const em = orm.em.fork()
  await em.begin()
  const before = usedHeap()
  create(em, rows)
  await em.flush()
  const after = usedHeap()
  await em.rollback()
  return (after - before) / rows
}

function usedHeap (): number {
  if (globalThis.gc === undefined) throw new Error('started without --expose-gc')
  globalThis.gc()
  globalThis.gc()
  return process.memoryUsage().heapUsed
}

const host = {
  /** Flushes on both sides in turns. Gives microseconds for each row, and how many notifications there were. */
  async flush ({ rows, flushes }: { rows: number, flushes: number }) {
    const nothing: Record<Kind, number> = { insert: 0, update: 0, transaction: 0 }
    const cpu: Record<Side, Record<Kind, number>> = { with: { ...nothing }, without: { ...nothing } }
    heard = 0
    for (let count = 0; count < flushes; count++) {
      for (const side of count % 2 === 0 ? ['with', 'without'] as const : ['without', 'with'] as const) {
        for (const [kind, spent] of Object.entries(await flush(orms[side], rows))) cpu[side][kind as Kind] += spent / rows / flushes
      }
    }
    return { ...cpu, heard }
  },

  /** Bytes for each row that waits for its COMMIT. */
  async pending ({ rows }: { rows: number }): Promise<Record<Side, number>> {
    return { without: await pending(orms.without, rows), with: await pending(orms.with, rows) }
  }
}

export type FlushHost = typeof host

serve(host)
