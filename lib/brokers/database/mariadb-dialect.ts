/** Dialect of MariaDB and MySQL: writers share a lock, the turn, and a reader that gets it alone has seen all ids. */
import type { MikroORM } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Database, databaseOf } from '../../util/platforms.ts'
import type { TransactionTurn } from '../transaction-log.ts'
import type {
  ConnectionEvents, Connector, DatabaseConnection, Dialect, Failure, HoleWatch, LogMessage, LogTables, Row,
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

const NOW = 'cast(unix_timestamp(sysdate(3)) * 1000 as unsigned)'
/** Lock wait timeout, deadlock, NOWAIT refused: the same statement may succeed a moment later. */
const PASSING = new Set([1205, 1213, 3572])
/** Read-only servers, which another connection may avoid. */
const READ_ONLY = new Set([1290, 1792, 1836])
const DUPLICATE = 1062
const NO_TABLE = 1146
/** Time in which the reader only reads again, in milliseconds, before it asks for the turn. */
const PATIENCE = 20

export class MariadbDialect implements Dialect {
  readonly name = 'MariaDB'
  readonly pollInterval = 100
  readonly now = NOW
  readonly epoch: string
  readonly size = 'length(payload)'
  readonly seesRewinding = false
  readonly insertMissing = ['insert ignore into', ''] as const
  /** The collation can ignore the case of names: the first condition uses the index, and the second one is exact. */
  readonly isGroup = '(group_name = ? and cast(group_name as binary) = cast(? as binary))'
  readonly turn: TransactionTurn
  readonly #orm: MikroORM
  readonly #tables: LogTables
  #isFrozen = false

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

  async prepare (connection: DatabaseConnection, role: 'reader' | 'writer'): Promise<void> {
    await connection.query('set session transaction isolation level read committed')
    await connection.query('set session autocommit = 1')
    if (role === 'writer') return
    const [galera] = await connection.query("show global variables like 'wsrep_on'")
    if (galera?.Value === 'ON') {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE('Galera has no locks across its servers, so the log has no order')
    }
  }

  refuse (): undefined {}

  async insert (connection: DatabaseConnection, messages: readonly LogMessage[], token: string): Promise<void> {
    await this.#transact(connection, async () => {
      await this.#takeTurn(connection)
      await insertRows(connection, this.#tables.log, NOW, messages, token)
    })
  }

  async watchHole (connection: DatabaseConnection): Promise<HoleWatch> {
    return new TurnWatch(() => this.#isAlone(connection), () => this.#isFrozen, () => { this.#isFrozen = true })
  }

  async sweep (connection: DatabaseConnection): Promise<void> {
    const { log, passed } = this.#tables
    const open = await connection.query(`select first_id from ${passed}`)
    const isAlone = await this.#isAlone(connection)
    await this.#transact(connection, async () => {
      const late = await connection.query(`select l.id, l.group_name from ${log} as l
        join ${passed} as p on l.id between p.first_id and p.last_id for update skip locked`)
      if (late.length > 0) {
        await this.#takeTurn(connection)
        const groups = [...new Set(late.map((row) => String(row.group_name)))]
        const rows = groups.map(() => `(?, ${NOW})`).join(', ')
        await connection.query(`insert into ${log} (group_name, created_at) values ${rows}`, groups)
        await connection.query(`delete from ${log} where id in (?)`, [late.map(({ id }) => id)])
      }
      const ids = open.map((row) => row.first_id)
      if (isAlone) await connection.query(`delete from ${passed} where first_id in (?)`, [ids])
    })
  }

  /** Shares the turn with other writers until the transaction ends. */
  async #takeTurn (connection: DatabaseConnection): Promise<void> {
    const { take, create } = this.turn
    if ((await connection.query(take)).length > 0) return
    // the tables were cleared
    await connection.query(create)
    await connection.query(take)
  }

  /** Whether no transaction has the turn, so that no id that was drawn is still to become visible. */
  async #isAlone (connection: DatabaseConnection): Promise<boolean> {
    try {
      await this.#transact(connection, () => {
        return connection.query(`select value from ${this.#tables.state} where name = 'turn' for update nowait`)
      })
      this.#isFrozen = false
      return true
    } catch (error) {
      if (this.failureOf(error) === 'passing') return false
      throw error
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

class TurnWatch implements HoleWatch {
  readonly holders = 'a transaction that shares the turn'
  readonly freeze: () => void
  readonly #isAlone: () => Promise<boolean>
  readonly #getFrozen: () => boolean
  readonly #since = performance.now()

  constructor (isAlone: () => Promise<boolean>, getFrozen: () => boolean, freeze: () => void) {
    this.#isAlone = isAlone
    this.#getFrozen = getFrozen
    this.freeze = freeze
  }

  get isFrozen (): boolean {
    return this.#getFrozen()
  }

  async isDecided (): Promise<boolean> {
    return performance.now() - this.#since >= PATIENCE && await this.#isAlone()
  }
}

class MariadbConnection implements DatabaseConnection {
  readonly #connection: MysqlConnection

  constructor (connection: MysqlConnection, { onLost }: ConnectionEvents) {
    this.#connection = connection
    connection.on('error', onLost)
    connection.on('end', () => onLost(new Error('MariaDB closed the connection')))
  }

  async query (sql: string, values: readonly unknown[] = []): Promise<Row[]> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#connection.query(sql, values, (error, rows) => error ? reject(error) : resolve(rows))
    const rows = await promise
    return Array.isArray(rows) ? rows : []
  }

  destroy (): void {
    this.#connection.destroy()
  }
}
