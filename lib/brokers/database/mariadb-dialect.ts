/** Dialect of MariaDB and MySQL: writers share a lock, the turn, and a reader that gets it alone has seen all ids. */
import type { MikroORM } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Database, databaseOf, UNIX_TIME } from '../../util/platforms.ts'
import { takeTurn, type TransactionTurn } from '../transaction-log.ts'
import type {
  ConnectionEvents, Connector, DatabaseConnection, Dialect, Failure, HoleWatch, LogMessage, LogTables, ResultRow,
  SnapshotView
} from './dialect.ts'
import { insertRows } from './log-statements.ts'
import { openOwnConnection } from './own-connection.ts'
import { openServerView } from './snapshot-view.ts'

/** The part of a connection of `mysql2` that the dialect uses. */
interface MysqlConnection {
  query (sql: string, values: readonly unknown[], done: (error: Error | null, rows: unknown) => void): void
  on (event: 'error', run: (error: Error) => void): unknown
  on (event: 'end', run: () => void): unknown
  destroy (): void
}

/** The part of a pool of `mysql2` that the dialect uses. */
interface MysqlPool {
  getConnection (done: (error: Error | null, connection: MysqlConnection) => void): void
  end (done: () => void): void
}

const NOW = UNIX_TIME[Database.MariaDb]
/** Lock wait timeout, deadlock, NOWAIT refused: the same statement may succeed a moment later. */
const PASSING = new Set([1205, 1213, 3572])
/** Read-only servers, which another connection may avoid. */
const READ_ONLY = new Set([1290, 1792, 1836])
const DUPLICATE = 1062
const NO_TABLE = 1146
/** Time in which the reader only reads again, in milliseconds, before it asks for the turn. */
const PATIENCE = 20
/**
 * Ages of a hole at which the reader waits for the turn, in milliseconds: where writers share it all the time, it is
 * never free otherwise. Later writers wait for the reader, so it waits for a second at most, and seldom.
 */
const WAITS = [250, 3000]
const SHARER = 'a transaction that shares the turn'
/** Time between two waits for the turn because of passed ids, in milliseconds. */
const SWEEP = 30_000

export class MariadbDialect implements Dialect {
  readonly name = 'MariaDB'
  readonly pollInterval = 100
  readonly now = NOW
  readonly epoch: string
  readonly size = 'length(payload)'
  readonly insertMissing = ['insert ignore into', ''] as const
  /** The collation can ignore the case of names: the first condition uses the index, and the second one is exact. */
  readonly isGroup = '(group_name = ? and cast(group_name as binary) = cast(? as binary))'
  readonly turn: TransactionTurn
  readonly #orm: MikroORM
  readonly #tables: LogTables
  #isFrozen = false
  #sweptAt = -Infinity

  constructor (orm: MikroORM, tables: LogTables) {
    this.#orm = orm
    this.#tables = tables
    this.epoch = `(select value from ${tables.state} where name = 'epoch')`
    // MySQL has no such variable
    const alive = databaseOf(orm.em.getPlatform()) === Database.MariaDb ? '@@in_transaction' : '1'
    this.turn = {
      take: `select ${alive} as alive from ${tables.state} where name = 'turn' lock in share mode`,
      create: `insert ignore into ${tables.state} (name, value) values ('turn', '0')`
    }
  }

  groupValues (group: string): string[] {
    return [group, group]
  }

  connector (): Connector {
    const own = openOwnConnection(this.#orm)
    let pool: MysqlPool | undefined
    return {
      connect: async (events) => {
        if (pool === undefined) {
          await own.connect({ skipOnConnect: true })
          pool = await own.getNativeClient() as MysqlPool
        }
        const { promise, resolve, reject } = Promise.withResolvers<MysqlConnection>()
        pool.getConnection((error, connection) => error ? reject(error) : resolve(connection))
        return new MariadbConnection(await promise, events)
      },
      close: async () => {
        await new Promise<void>((resolve) => pool === undefined ? resolve() : pool.end(() => resolve()))
      }
    }
  }

  openView (): Promise<SnapshotView> {
    return openServerView(this.#orm)
  }

  failureOf (error: unknown): Failure {
    const { errno, sqlState, fatal } = error as { errno?: number, sqlState?: unknown, fatal?: boolean }
    if (fatal === true || sqlState === undefined || errno === undefined || READ_ONLY.has(errno)) return 'lost'
    if (errno === DUPLICATE) return 'repeated'
    if (errno === NO_TABLE) return 'missing'
    return PASSING.has(errno) ? 'passing' : 'refused'
  }

  async prepare (connection: DatabaseConnection, role: 'reader' | 'writer'): Promise<undefined> {
    await connection.query('set session transaction isolation level read committed')
    await connection.query('set session autocommit = 1')
    if (role === 'writer') return
    const names = "('wsrep_on', 'read_only')"
    const rows = await connection.query(`show global variables where variable_name in ${names} and value <> 'OFF'`)
    const variables = rows.map(({ Variable_name: name }) => name)
    if (variables.includes('wsrep_on')) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE('Galera has no locks across its servers, so the log has no order')
    }
    if (variables.includes('read_only')) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE('the database is read-only, as a replica is')
    }
    await connection.query('set session innodb_lock_wait_timeout = 1')
  }

  refuse (): undefined {}

  async insert (connection: DatabaseConnection, messages: readonly LogMessage[], token: string): Promise<void> {
    await this.#transact(connection, async () => {
      await takeTurn((sql) => connection.query(sql), this.turn)
      await insertRows(connection, this.#tables.log, NOW, messages, token)
    })
  }

  async watchHole (connection: DatabaseConnection): Promise<HoleWatch> {
    return new TurnWatch({
      isAlone: (isWaiting) => this.#isAlone(connection, isWaiting),
      isFrozen: () => this.#isFrozen,
      freeze: () => { this.#isFrozen = true },
      describe: () => this.#describe(connection)
    })
  }

  async sweep (connection: DatabaseConnection): Promise<void> {
    const { log, passed } = this.#tables
    const open = await connection.query(`select first_id from ${passed}`)
    let isAlone = await this.#isAlone(connection, false)
    if (!isAlone && performance.now() - this.#sweptAt > SWEEP) {
      this.#sweptAt = performance.now()
      isAlone = await this.#isAlone(connection, true)
    }
    await this.#transact(connection, async () => {
      const late = await connection.query(`select l.id, l.group_name from ${log} as l
        join ${passed} as p on l.id between p.first_id and p.last_id for update skip locked`)
      if (late.length > 0) {
        await takeTurn((sql) => connection.query(sql), this.turn)
        const groups = [...new Set(late.map((row) => String(row.group_name)))]
        const rows = groups.map(() => `(?, ${NOW})`).join(', ')
        await connection.query(`insert into ${log} (group_name, created_at) values ${rows}`, groups)
        await connection.query(`delete from ${log} where id in (?)`, [late.map(({ id }) => id)])
      }
      const ids = open.map((row) => row.first_id)
      if (isAlone && ids.length > 0) await connection.query(`delete from ${passed} where first_id in (?)`, [ids])
    })
  }

  /** Whether no transaction has the turn, so that no id that was drawn is still to become visible. */
  async #isAlone (connection: DatabaseConnection, isWaiting: boolean): Promise<boolean> {
    const { state } = this.#tables
    const lock = isWaiting ? 'for update' : 'for update nowait'
    try {
      await this.#transact(connection, () => {
        return connection.query(`select value from ${state} where name = 'turn' ${lock}`)
      })
      this.#isFrozen = false
      return true
    } catch (error) {
      if (this.failureOf(error) === 'passing') return false
      throw error
    }
  }

  /** The oldest transactions, as far as the user has the right to see them. */
  async #describe (connection: DatabaseConnection): Promise<string> {
    try {
      const rows = await connection.query(`
        select trx_mysql_thread_id as id, timestampdiff(second, trx_started, now()) as age
        from information_schema.innodb_trx where trx_mysql_thread_id not in (0, connection_id())
        order by trx_started limit 3`)
      const oldest = rows.map(({ id, age }) => `${String(id)} (open for ${String(age)} s)`)
      return oldest.length === 0 ? SHARER : `${SHARER}, probably of connection ${oldest.join(' or ')}`
    } catch (error) {
      if (this.failureOf(error) === 'lost') throw error
      return SHARER
    }
  }

  async #transact (connection: DatabaseConnection, run: () => Promise<unknown>): Promise<void> {
    await connection.query('start transaction')
    try {
      await run()
      await connection.query('commit')
    } catch (error) {
      await connection.query('rollback').catch(() => {})
      throw error
    }
  }
}

/** The turn, as a watch sees it. */
interface Turn {
  isAlone (isWaiting: boolean): Promise<boolean>
  isFrozen (): boolean
  freeze (): void
  describe (): Promise<string>
}

class TurnWatch implements HoleWatch {
  readonly holders = SHARER
  readonly #turn: Turn
  readonly #since = performance.now()
  #waits = 0

  constructor (turn: Turn) {
    this.#turn = turn
  }

  get isFrozen (): boolean {
    return this.#turn.isFrozen()
  }

  async isDecided (): Promise<boolean> {
    const age = performance.now() - this.#since
    if (age < PATIENCE) return false
    const isWaiting = !this.isFrozen && age >= Number(WAITS[this.#waits])
    if (isWaiting) this.#waits++
    return await this.#turn.isAlone(isWaiting)
  }

  describe (): Promise<string> {
    return this.#turn.describe()
  }

  freeze (): void {
    this.#turn.freeze()
  }
}

class MariadbConnection implements DatabaseConnection {
  readonly #connection: MysqlConnection

  constructor (connection: MysqlConnection, { onLost }: ConnectionEvents) {
    this.#connection = connection
    connection.on('error', onLost)
    connection.on('end', () => onLost(new Error('MariaDB closed the connection')))
  }

  async query (sql: string, values: readonly unknown[] = []): Promise<ResultRow[]> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#connection.query(sql, values, (error, rows) => error ? reject(error) : resolve(rows))
    const rows = await promise
    return Array.isArray(rows) ? rows : []
  }

  destroy (): void {
    this.#connection.destroy()
  }
}
