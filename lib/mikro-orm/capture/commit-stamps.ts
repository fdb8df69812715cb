/**
 * Reads the stamps of transactions: values of a clock of the database, by which brokers recognize the newer state of a
 * row.
 */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import type { Stamp } from '../../protocol/stamp.ts'
import { Database, databaseOf } from '../../util/platforms.ts'

/**
 * Stamp of a transaction. It is read while the locks of the changed rows are held, so the next writer of a row reads a
 * larger value.
 */
export type CommitStamp = Pick<Stamp, 'clock' | 'value'>

/** Result of a stamp query. */
export interface StampRow {
  /** 0 if MariaDB has rolled back the transaction. */
  readonly alive?: unknown
  /** Identity of the server. */
  readonly clock?: unknown
  readonly database?: string
  readonly value?: string
}

/**
 * Identity of a PostgreSQL server. A restart and a failover give another one, since a promoted server may continue at a
 * smaller WAL position. The database belongs to it, as rows of two databases may have the same key. The queries leave
 * formatting to this process: they run before each COMMIT, where a function call of the server counts.
 */
const STARTED_AT = "date_part('epoch', pg_postmaster_start_time())"
const WAL_POSITION =
  `select ${STARTED_AT} as clock, current_database() as database, pg_current_wal_insert_lsn() as value`
const MICROSECONDS = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint::text"
const SERVER_TIME = `select 'time ' || ${STARTED_AT} as clock, current_database() as database, ${MICROSECONDS} as value`

/**
 * The stamp queries of PostgreSQL, the best first. An error would abort the transaction, so each is tried within a
 * savepoint.
 */
const POSTGRESQL = [WAL_POSITION, SERVER_TIME]
const WITHOUT_STAMP = 'select 1'

/**
 * The right to read the WAL position must be everybody's: a transaction may run with another role than the one that
 * tried it.
 */
const FUNCTION = "to_regprocedure('pg_catalog.pg_current_wal_insert_lsn()')"
const MAY_READ_WAL_POSITION = `select has_function_privilege('public', ${FUNCTION}, 'execute') as allowed`

/** The time when a statement begins. In UTC, as local time goes back by an hour once a year. */
const MYSQL_TIME = [
  "concat_ws(' ', @@hostname, @@port, @@server_id) as clock",
  'database() as `database`',
  "date_format(utc_timestamp(6), '%Y%m%d%H%i%s%f') as value"
].join(', ')
/** SQLite has none: it gives no value that rises from one process to another. */
const QUERIES: Partial<Record<Database, string>> = {
  [Database.MariaDb]: `select @@in_transaction as alive, ${MYSQL_TIME}`,
  [Database.MySql]: `select ${MYSQL_TIME}`
}
/** The queries where the broker uses no stamps. */
const PLAIN_QUERIES: Partial<Record<Database, string>> = {
  [Database.MariaDb]: 'select @@in_transaction as alive'
}

/** A transaction of Kysely, which runs the queries of MikroORM. */
export interface KyselyTransaction {
  commit (): { execute (): Promise<void> }
  getExecutor (): {
    provideConnection <Result>(use: (connection: KyselyConnection) => Promise<Result>): Promise<Result>
  }
}

interface KyselyConnection {
  executeQuery (
    query: { sql: unknown, parameters: readonly unknown[] },
    options?: unknown
  ): Promise<{ rows: ReadonlyArray<Record<string, unknown>> }>
}

/** The stamp queries of one ORM. */
export class CommitStamps {
  /** Whether the broker uses stamps. */
  readonly isUsed: boolean
  /** The query that PostgreSQL and its role allow, once it is known. */
  #postgreSql: string | undefined

  constructor (isUsed: boolean) {
    this.isUsed = isUsed
  }

  /** Returns the last query of a transaction before its COMMIT; `undefined` if none is needed. */
  async query (em: EntityManager, transaction: Transaction): Promise<string | undefined> {
    const database = databaseOf(em.getPlatform())
    if (!this.isUsed) return PLAIN_QUERIES[database]
    if (database !== Database.PostgreSql) return QUERIES[database]
    this.#postgreSql ??= await findPostgreSqlQuery(transaction)
    return this.#postgreSql
  }

  /** Makes the next transaction find out again which query PostgreSQL allows. */
  reset (): void {
    this.#postgreSql = undefined
  }

  /**
   * Reads the stamp of a transaction, and checks that no error has aborted it.
   *
   * @throws RP_ERR_ROLLED_BACK; an error of the database, which has aborted the transaction then
   */
  async read (em: EntityManager, transaction: Transaction): Promise<CommitStamp | undefined> {
    const plainQuery = databaseOf(em.getPlatform()) === Database.PostgreSql ? WITHOUT_STAMP : undefined
    const query = await this.query(em, transaction) ?? plainQuery
    if (query === undefined) return
    const row = await em.getConnection('write').execute(query, [], 'get', transaction) as unknown as StampRow
    // MariaDB rolls back all of a transaction on a deadlock, and commits later statements one by one
    if (row.alive !== undefined && Number(row.alive) !== 1) throw new errors.RP_ERR_ROLLED_BACK()
    return toStamp(row)
  }
}

/** Converts the result of a stamp query. */
export function toStamp (row: StampRow | undefined): CommitStamp | undefined {
  if (row?.value === undefined) return
  const { clock, database, value } = row
  return { clock: encodeURIComponent(`${String(clock)} ${database}`), value: toDigits(value) }
}

/** Converts a WAL position, two hexadecimal numbers of 32 bits, to digits. Other values are digits. */
function toDigits (value: string): string {
  const [high, low] = value.split('/')
  return String(low === undefined ? value : BigInt(`0x${high}`) << 32n | BigInt(`0x${low}`)).padStart(20, '0')
}

/**
 * Finds the query that the server and the role allow. Its statements go past MikroORM, whose log has the queries of
 * the application.
 */
async function findPostgreSqlQuery (transaction: Transaction): Promise<string> {
  const run = (sql: string) => {
    const executor = (transaction as KyselyTransaction).getExecutor()
    return executor.provideConnection((connection) => connection.executeQuery({ sql, parameters: [] }))
  }
  const { rows: [right] } = await run(MAY_READ_WAL_POSITION)
  for (const query of POSTGRESQL.slice(right?.['allowed'] === true ? 0 : 1)) {
    await run('savepoint rohrpost_stamp')
    try {
      await run(query)
      await run('release savepoint rohrpost_stamp')
      return query
    } catch {
      await run('rollback to savepoint rohrpost_stamp')
    }
  }
  return WITHOUT_STAMP
}
