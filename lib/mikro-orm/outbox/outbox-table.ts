/** The table of the outbox and its statements. The statements go past the query log of MikroORM. */
import { TableNotFoundException, type MikroORM, type Platform } from '@mikro-orm/core'
import type { TransactionRows, TransactionTurn } from '../../brokers/transaction-log.ts'
import { errors } from '../../errors.ts'
import { Database, databaseOf, isMySql, UNIX_TIME } from '../../util/platforms.ts'
import { tableNameOf } from '../../util/table-name.ts'
import { toStamp, type CommitStamp } from '../capture/commit-stamps.ts'

/** A row of the table: messages of one transaction. */
export interface OutboxRow {
  readonly id: string
  /** JSON text. */
  readonly messages: string
  readonly stamp: CommitStamp | undefined
}

/** Entity of the table, in `logEntities`. */
const ENTITY = 'RohrpostOutbox'
const COLUMNS = ['id', 'messages']

/** Finds out whether MariaDB has rolled back the transaction; without it the INSERT would be committed alone. */
const ALIVE: TransactionTurn = { take: 'select @@in_transaction as alive', create: 'do 0' }

/** A connection of MikroORM for SQL. */
interface SqlConnection {
  execute (
    sql: string,
    values: readonly unknown[],
    method: 'all' | 'run',
    ctx: undefined,
    logging: { enabled: boolean }
  ): Promise<unknown>
}

export class OutboxTable {
  readonly #orm: MikroORM
  readonly #platform: Platform
  readonly #database: Database
  readonly #name: string
  readonly #now: string

  /** @throws RP_ERR_INVALID_OPTION if the ORM does not have the table */
  constructor (orm: MikroORM) {
    this.#orm = orm
    this.#platform = orm.em.getPlatform()
    this.#database = databaseOf(this.#platform)
    if (this.#database === Database.Other) {
      const expected = 'a MikroORM for PostgreSQL, MariaDB, MySQL or SQLite'
      throw new errors.RP_ERR_INVALID_OPTION('orm', expected, this.#platform.constructor.name)
    }
    const name = tableNameOf(orm, ENTITY)
    if (name === undefined) {
      const expected = "a MikroORM with 'entities: [..., ...logEntities]', which 'outbox' needs"
      throw new errors.RP_ERR_INVALID_OPTION('orm', expected, `one without '${ENTITY}'`)
    }
    this.#name = name
    this.#now = UNIX_TIME[this.#database]
  }

  /** Checks that the database has the table. @throws RP_ERR_TABLE_MISSING; another error of the database */
  async check (): Promise<void> {
    try {
      await this.#execute(`select id from ${this.#name} where id = ''`)
    } catch (cause) {
      const known = this.#platform.getExceptionConverter().convertException(cause as Error)
      if (!(known instanceof TableNotFoundException)) throw cause
      throw new errors.RP_ERR_TABLE_MISSING(this.#name, { cause })
    }
  }

  /**
   * Makes the rows that a transaction inserts.
   *
   * @param stampQuery the query that reads the stamp of the transaction, if the broker uses stamps
   */
  rowsOf (rows: ReadonlyArray<Pick<OutboxRow, 'id' | 'messages'>>, stampQuery: string | undefined): TransactionRows {
    return {
      table: this.#name,
      columns: COLUMNS,
      rows: rows.map(({ id, messages }) => [id, messages]),
      computed: { stamp: this.#stampOf(stampQuery), created_at: this.#now, claimed_at: this.#now },
      turn: this.#database === Database.MariaDb ? ALIVE : undefined
    }
  }

  /**
   * Takes over rows that were inserted, or taken over, some time ago.
   *
   * @param owner identifies this call
   * @param age milliseconds since then
   */
  async claim (owner: string, age: number, limit: number): Promise<OutboxRow[]> {
    const isOld = `claimed_at < ${this.#now} - ${age}`
    // reads first: an UPDATE takes locks, even of no rows
    const [old] = await this.#execute(`select id from ${this.#name} where ${isOld} limit 1`)
    if (old === undefined) return []

    const update = `update ${this.#name} set owner = ?, claimed_at = ${this.#now} where`
    const oldest = `select id from ${this.#name} where ${isOld} order by claimed_at limit ${limit}`
    if (isMySql(this.#database)) {
      // an UPDATE of a range would wait for transactions that are open, and lock the gap where others insert
      const ids = (await this.#execute(`${oldest} for update skip locked`)).map(({ id }) => id)
      const places = ids.map(() => '?').join(', ')
      if (ids.length > 0) await this.#execute(`${update} ${isOld} and id in (${places})`, [owner, ...ids], 'run')
    } else {
      const lock = this.#database === Database.PostgreSql ? ' for update skip locked' : ''
      await this.#execute(`${update} id in (${oldest}${lock})`, [owner], 'run')
    }
    const select = `select id, messages, stamp from ${this.#name} where owner = ? order by created_at, id`
    const rows = await this.#execute(select, [owner])
    return rows.map(({ id, messages, stamp }) => {
      return { id: String(id), messages: String(messages), stamp: decodeStamp(stamp) }
    })
  }

  async delete (ids: readonly string[]): Promise<void> {
    await this.#execute(`delete from ${this.#name} where id in (${ids.map(() => '?').join(', ')})`, ids, 'run')
  }

  /** Returns an expression for the text that `decodeStamp` reads. */
  #stampOf (query: string | undefined): string {
    if (query?.includes(' as clock') !== true) return 'null'
    const [value, clock, database] = ['value', 'clock', 'database'].map((name) => this.#platform.quoteIdentifier(name))
    return `(select concat_ws('|', ${value}, ${clock}, ${database}) from (${query}) as stamp)`
  }

  async #execute (
    sql: string,
    values: readonly unknown[] = [],
    method: 'all' | 'run' = 'all'
  ): Promise<Array<Record<string, unknown>>> {
    const connection = this.#orm.em.getConnection('write') as unknown as SqlConnection
    const rows = await connection.execute(sql, values, method, undefined, { enabled: false })
    return rows as Array<Record<string, unknown>>
  }
}

function decodeStamp (stamp: unknown): CommitStamp | undefined {
  if (typeof stamp !== 'string') return
  const [value = '', clock, ...database] = stamp.split('|')
  return toStamp({ value, clock, database: database.join('|') })
}
