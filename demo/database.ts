/** Database of the demo: a SQLite file with the to-dos, and with the log of the database broker. */
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import { logEntities } from '../lib/brokers/database/index.ts'
import { Todo } from './todo.ts'

/** Milliseconds for which a statement waits while another process writes. */
const BUSY_TIMEOUT = 5000

/** Opens the file. A new one gets three to-dos; one of an older version gets the tables and columns that it lacks. */
export async function openDatabase (file: string): Promise<MikroORM> {
  const orm = await MikroORM.init({
    driver: SqliteDriver,
    driverOptions: new NodeSqliteDialect(file),
    dbName: file,
    entities: [Todo, ...logEntities],
    // its query would come before the busy timeout
    ensureDatabase: false
  })
  const connection = orm.em.getConnection()
  try {
    await connection.execute(`pragma busy_timeout = ${BUSY_TIMEOUT}`)
    await connection.execute('pragma journal_mode = wal')
    // another demo that starts at the same time waits here
    await connection.execute('begin immediate')
    const isNew = (await connection.execute("select 1 from sqlite_master where name = 'todo'")).length === 0
    await orm.schema.update()
    if (isNew) {
      await orm.em.fork().insertMany(Todo, [
        { title: 'Open this page in a second window', done: false },
        { title: 'Tick this here, and look over there', done: false },
        { title: 'Start the server', done: true }
      ])
    }
    await connection.execute('commit')
    return orm
  } catch (error) {
    await orm.close()
    throw error
  }
}
