/** A table of an ordinary width, in memory; the changes of a row are announced to the group that its shelf names. */
import { defineEntity, MikroORM, NodeSqliteDialect, p, RequestContext, SqliteDriver, type InferEntity, type RequiredEntityData } from '@mikro-orm/sql'
import type { FastifyInstance } from 'fastify'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'

export const Book = defineEntity({
  name: 'Book',
  properties: {
    id: p.integer().primary(),
    shelf: p.string(),
    title: p.string(),
    author: p.string(),
    description: p.text().nullable(),
    price: p.integer(),
    stock: p.integer(),
    createdAt: p.datetime(),
    updatedAt: p.datetime().onUpdate(() => new Date())
  }
})

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
export function book (id: number, shelf: number): RequiredEntityData<InferEntity<typeof Book>> {
  const now = new Date()
  return {
    id,
    shelf: String(shelf).padStart(5, '0'),
    title: 'A tale of two sockets',
    author: 'Charles Diskens',
    description: null,
    price: 1999,
    stock: 17,
    createdAt: now,
    updatedAt: now
  }
}
