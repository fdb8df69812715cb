/** A table of an ordinary width, in memory or on PostgreSQL; the changes of a row are announced to the group that its shelf names. */
import { defineEntity, MikroORM, NodeSqliteDialect, p, RequestContext, SqliteDriver, type InferEntity, type RequiredEntityData } from '@mikro-orm/sql'
import { MikroORM as PostgreSqlORM } from '@mikro-orm/postgresql'
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

/**
 * Opens an empty table on PostgreSQL, in a database of its own: over the socket of this machine unless `PGHOST` names another host, or at
 * `POSTGRESQL_URL`, where the tests have a server.
 */
export async function openServerOrm (name: string): Promise<MikroORM> {
  const clientUrl = process.env['POSTGRESQL_URL']
  const socket = { host: process.env['PGHOST'] ?? '/var/run/postgresql', user: process.env['PGUSER'] ?? 'postgres' }
  const server = clientUrl === undefined ? socket : { clientUrl }
  const admin = await PostgreSqlORM.init({ ...server, dbName: 'postgres', entities: [], discovery: { warnWhenNoEntities: false } })
  await admin.em.getConnection().execute(`drop database if exists rohrpost_bench_${name} with (force)`)
  await admin.em.getConnection().execute(`create database rohrpost_bench_${name}`)
  await admin.close()

  const orm = await PostgreSqlORM.init({ ...server, dbName: `rohrpost_bench_${name}`, contextName: name, entities: [Book] })
  await orm.schema.create()
  return orm
}

/** Has an app with the plugin tell the group of each row. */
export async function announce (app: FastifyInstance, orm: MikroORM, readBack = true): Promise<void> {
  const rule = notifyOnChange(Book, { group: 'group-{shelf}', data: ['id', 'title', 'price', 'stock'], readBack })
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
