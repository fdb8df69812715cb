/** Database of the board: a SQLite file that all processes share. */
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import { logEntities } from 'fastify-rohrpost/brokers/database'
import { Post } from './post.ts'

/** Opens the file. */
export async function openDatabase (file: string): Promise<MikroORM> {
  const orm = await MikroORM.init({
    driver: SqliteDriver,
    driverOptions: new NodeSqliteDialect(file),
    dbName: file,
    entities: [Post, ...logEntities]
  })
  // without these two, SQLite refuses a statement at once while another process writes
  await orm.em.getConnection().execute('pragma busy_timeout = 5000')
  await orm.em.getConnection().execute('pragma journal_mode = wal')
  return orm
}
