/** A table in memory whose changes are announced: every row to the group that its shelf names. */
import { defineEntity, MikroORM, NodeSqliteDialect, p, RequestContext, SqliteDriver, type InferEntity } from '@mikro-orm/sql'
import type { FastifyInstance } from 'fastify'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'

export const Book = defineEntity({
  name: 'Book',
  properties: {
    id: p.integer().primary(),
    shelf: p.string(),
    title: p.string(),
    price: p.integer(),
    stock: p.integer()
  }
})

export type Book = InferEntity<typeof Book>

/** Opens an empty table. */
export async function openOrm (): Promise<MikroORM> {
  const orm = await MikroORM.init({
    driver: SqliteDriver,
    driverOptions: new NodeSqliteDialect(':memory:'),
    dbName: ':memory:',
    entities: [Book]
  })
  await orm.schema.create()
  return orm
}

/** Has an app with the plugin tell the group of each row. */
export async function announce (app: FastifyInstance, orm: MikroORM): Promise<void> {
  const rule = notifyOnChange(Book, { group: 'group-{shelf}', data: ['id', 'title', 'price', 'stock'] })
  await app.register(rohrpostMikroOrm, { orm, notify: [rule] })
}

/** What a handler gets that runs in a context of its own. */
export function makeContext (orm: MikroORM): (work: () => void) => void {
  return (work) => RequestContext.create(orm.em, work)
}

/** The values of a row. */
export function book (id: number, shelf: number): Book {
  return { id, shelf: String(shelf).padStart(5, '0'), title: 'A tale of two sockets', price: 1999, stock: 17 }
}
