/** SQLite: one writer at a time, so ids become visible in order. */
import type { MikroORM } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Database, UNIX_TIME } from '../../util/platforms.ts'
import type {
  Connector, DatabaseConnection, Dialect, Failure, LogMessage, LogTables, ResultRow, SnapshotView
} from './dialect.ts'
import { insertRows } from './log-statements.ts'
import { openOwnConnection, type OwnConnection } from './own-connection.ts'
import { openFileView } from './snapshot-view.ts'

/** SQLITE_BUSY and SQLITE_LOCKED: another connection writes. */
const BUSY = /database (?:table |schema )?is locked/
const NOW = UNIX_TIME[Database.Sqlite]

export class SqliteDialect implements Dialect {
  readonly name = 'SQLite'
  readonly pollInterval = 50
  readonly now = NOW
  readonly epoch: string
  readonly size = 'length(cast(payload as blob))'
  readonly insertMissing = ['insert or ignore into', ''] as const
  readonly isGroup = 'group_name = ?'
  readonly #orm: MikroORM
  readonly #tables: LogTables
  readonly #versions = new WeakMap<DatabaseConnection, unknown>()

  constructor (orm: MikroORM, tables: LogTables) {
    this.#orm = orm
    this.#tables = tables
    this.epoch = `(select value from ${tables.state} where name = 'epoch')`
  }

  groupValues (group: string): string[] {
    return [group]
  }

  connector (): Connector {
    const open: OwnConnection[] = []
    return {
      // each connection of SQLite is a database object of its own
      connect: async () => {
        const own = openOwnConnection(this.#orm)
        await own.connect({ skipOnConnect: true })
        open.push(own)
        return new SqliteConnection(own)
      },
      close: async () => { await Promise.all(open.map((own) => own.close(true))) }
    }
  }

  openView (): Promise<SnapshotView> {
    return openFileView(this.#orm)
  }

  failureOf (error: unknown): Failure {
    const { message } = error as Error
    if (BUSY.test(message)) return 'passing'
    if (message.includes('UNIQUE constraint failed')) return 'repeated'
    return message.includes('no such table') ? 'missing' : 'refused'
  }

  async prepare (connection: DatabaseConnection): Promise<undefined> {
    const [file] = await connection.query("select file from pragma_database_list where name = 'main'")
    if (!file?.file) {
      const reason = "a database in memory belongs to one connection: use a file, or 'memoryBroker'"
      throw new errors.RP_ERR_BROKER_UNAVAILABLE(reason)
    }
    // waiting would block the event loop, also for the transaction that is waited for
    await connection.query('pragma busy_timeout = 0')
  }

  refuse (): undefined {}

  async insert (connection: DatabaseConnection, messages: readonly LogMessage[], token: string): Promise<void> {
    // one statement: a transaction of several would hold the lock while the event loop runs
    await insertRows(connection, this.#tables.log, NOW, messages, token)
  }

  async hasChanged (connection: DatabaseConnection): Promise<boolean> {
    const [row] = await connection.query('pragma data_version')
    const version = row?.data_version
    const hasChanged = version !== this.#versions.get(connection)
    this.#versions.set(connection, version)
    return hasChanged
  }
}

class SqliteConnection implements DatabaseConnection {
  readonly #own: OwnConnection

  constructor (own: OwnConnection) {
    this.#own = own
  }

  query (sql: string, values: readonly unknown[] = []): Promise<ResultRow[]> {
    return this.#own.execute(sql, values, 'all', undefined, { enabled: false })
  }

  // closed with the connector: a statement of SQLite never waits for a server
  destroy (): void {}
}
