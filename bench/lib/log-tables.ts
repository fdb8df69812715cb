/** The tables of the log, and rows to write to, in a database on PostgreSQL. */
import { MikroORM } from '@mikro-orm/postgresql'
import { logEntities } from '../../lib/brokers/database/index.ts'
import { Book, book } from './orm.ts'

export async function makeTables (clientUrl: string, rows: number): Promise<void> {
  const orm = await MikroORM.init({ clientUrl, ensureDatabase: false, entities: [Book, ...logEntities] })
  await orm.schema.create()
  await orm.em.fork().insertMany(Book, Array.from({ length: rows }, (_, index) => book(index + 1, 0)))
  await orm.close()
}
