/** The process that flushes, into databases with notifications and into one without. Started by the benchmark. */
import type { EntityManager, InferEntity, MikroORM } from '@mikro-orm/sql'
import Fastify from 'fastify'
import { memoryBroker, rohrpost } from '../lib/index.ts'
import { announce, book, Book, openServerOrm } from './lib/orm.ts'
import { serve } from './lib/remote.ts'

type Kind = 'insert' | 'update' | 'transaction' | 'insertOne' | 'updateOne'
type Side = 'read' | 'unread' | 'without'
type Announced = Exclude<Side, 'without'>

/** How many flushes of one row stand beside one of many. */
const SINGLES = 20

let heard = 0
const orms: Record<Side, MikroORM> = {
  read: await openServerOrm('read'),
  unread: await openServerOrm('unread'),
  without: await openServerOrm('without')
}
const app = Fastify()
// nobody listens: this is about the side of the ORM, from the change to the broker
await app.register(rohrpost, { broker: { ...memoryBroker(), publish: () => { heard++ } } })
await announce(app, orms.read)
await announce(app, orms.unread, false)
await app.ready()

/** Microseconds that pass. */
async function cost (work: () => Promise<void>): Promise<number> {
  const before = performance.now()
  await work()
  return (performance.now() - before) * 1000
}

/** Inserts rows, updates each of them, inserts them again in a transaction of the app, and flushes rows one by one; only the flushes and the COMMITs count. */
async function flush (orm: MikroORM, rows: number): Promise<Record<Kind, number>> {
  const em = orm.em.fork()
  const books = create(em, rows)
  const insert = await cost(() => em.flush()) / rows

  for (const row of books) row.stock++
  const update = await cost(() => em.flush()) / rows
  await orm.em.fork().nativeDelete(Book, {})

  em.clear()
  await em.begin()
  create(em, rows)
  const transaction = await cost(() => em.commit()) / rows
  await orm.em.fork().nativeDelete(Book, {})

  let [insertOne, updateOne] = [0, 0]
  for (let id = 1; id <= SINGLES; id++) {
    const em = orm.em.fork()
    const row = em.create(Book, book(id, id))
    insertOne += await cost(() => em.flush()) / SINGLES
    row.stock++
    updateOne += await cost(() => em.flush()) / SINGLES
  }
  await orm.em.fork().nativeDelete(Book, {})
  return { insert, update, transaction, insertOne, updateOne }
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
  /** Flushes on two sides in turns. Gives microseconds for each row, and how many notifications there were of how many. */
  async flush ({ side, rows, flushes }: { side: Announced, rows: number, flushes: number }) {
    const nothing: Record<Kind, number> = { insert: 0, update: 0, transaction: 0, insertOne: 0, updateOne: 0 }
    const time = { with: { ...nothing }, without: { ...nothing } }
    heard = 0
    for (let count = 0; count < flushes; count++) {
      for (const one of count % 2 === 0 ? ['with', 'without'] as const : ['without', 'with'] as const) {
        const spent = await flush(orms[one === 'with' ? side : 'without'], rows)
        for (const kind of Object.keys(spent) as Kind[]) time[one][kind] += spent[kind] / flushes
      }
    }
    return { ...time, heard, expected: (3 * rows + 2 * SINGLES) * flushes }
  },

  /** Bytes for each row that waits for its COMMIT. */
  async pending ({ side, rows }: { side: Announced, rows: number }): Promise<Record<'with' | 'without', number>> {
    return { without: await pending(orms.without, rows), with: await pending(orms[side], rows) }
  }
}

export type FlushHost = typeof host

serve(host)
