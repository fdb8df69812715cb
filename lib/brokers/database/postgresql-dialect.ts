/** PostgreSQL dialect: processes notify each other, and the locks on the table show which ids can still turn up. */
import type { MikroORM } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Database, UNIX_TIME } from '../../util/platforms.ts'
import type {
  ConnectionEvents, Connector, DatabaseConnection, Dialect, Failure, HoleWatch, LogMessage, LogTables, ResultRow,
  SnapshotView
} from './dialect.ts'
import { openOwnConnection } from './own-connection.ts'
import { openServerView } from './snapshot-view.ts'

/** The part of a client of `pg` that the dialect uses. */
interface PgClient {
  readonly processID?: number
  readonly connection?: { readonly stream?: { destroy (): void } }
  query (sql: string, values?: readonly unknown[]): Promise<{ rows: ResultRow[] }>
  on (event: 'notification', run: (notification: { processId: number }) => void): unknown
  on (event: 'error', run: (error: Error) => void): unknown
  on (event: 'end', run: () => void): unknown
  release (destroy: boolean): void
}

/** The part of a pool of `pg` that the dialect uses. */
interface PgPool {
  connect (): Promise<PgClient>
  end (): Promise<void>
}

const NOW = UNIX_TIME[Database.PostgreSql]
/** Transactions that were prepared for a commit in two phases, as old servers and servers after a restart name them. */
const PREPARED = /^-1\//
/** SQLSTATEs after which the statement can succeed: rolled back, out of resources, lock not available, cancelled. */
const PASSING = /^(?:40|53|55P03|57014)/
/** SQLSTATEs with which the server ends the connection, or is a standby that another connection may avoid. */
const LOST = /^(?:08|57P|25006)/

export class PostgresqlDialect implements Dialect {
  readonly name = 'PostgreSQL'
  readonly pollInterval = 1000
  readonly now = NOW
  readonly epoch: string
  readonly size = 'octet_length(payload)'
  readonly insertMissing = ['insert into', 'on conflict do nothing'] as const
  readonly isGroup = 'group_name = ?'
  readonly #orm: MikroORM
  readonly #tables: LogTables
  readonly #frozen = new Set<string>()
  readonly #channel: string

  constructor (orm: MikroORM, tables: LogTables) {
    this.#orm = orm
    this.#tables = tables
    this.#channel = tables.log.replaceAll('"', '')
    const sequence = `pg_get_serial_sequence('${tables.log}', 'id')::regclass`
    this.epoch = `((select value from ${tables.state} where name = 'epoch')
      || '/' || (select system_identifier from pg_control_system())
      || '/' || pg_postmaster_start_time() || '/' || pg_relation_filenode(${sequence}))`
  }

  groupValues (group: string): string[] {
    return [group]
  }

  connector (): Connector {
    const own = openOwnConnection(this.#orm)
    let pool: PgPool | undefined
    return {
      connect: async (events) => {
        if (pool === undefined) {
          await own.connect({ skipOnConnect: true })
          pool = await own.getNativeClient() as PgPool
        }
        return new PostgresqlConnection(await pool.connect(), events)
      },
      close: async () => { await pool?.end() }
    }
  }

  openView (): Promise<SnapshotView> {
    return openServerView(this.#orm)
  }

  failureOf (error: unknown): Failure {
    const { code, severity } = error as { code?: unknown, severity?: unknown }
    // errors of the server have both; all others are errors of the connection
    if (typeof code !== 'string' || severity === undefined || severity === 'FATAL' || LOST.test(code)) return 'lost'
    if (code === '23505') return 'repeated'
    if (code === '42P01') return 'missing'
    return PASSING.test(code) ? 'passing' : 'refused'
  }

  async prepare (connection: DatabaseConnection, role: 'reader' | 'writer'): Promise<string | undefined> {
    const [session] = await connection.query('select pg_backend_pid() as pid')
    const isPooled = connection.processId !== undefined && connection.processId !== Number(session?.pid)
    // the role or the database may have other defaults; a session of a pooler belongs to other clients, too
    if (!isPooled) await connection.query('set session characteristics as transaction isolation level read committed')
    if (role === 'writer') return undefined

    const { log } = this.#tables
    const [state] = await connection.query(`select pg_is_in_recovery() as "isStandby",
        seqcache::int as cache, seqincrement::int as step
      from pg_sequence where seqrelid = pg_get_serial_sequence('${log}', 'id')::regclass`)
    if (state?.isStandby === true) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE('the database is a standby, which is read-only')
    }
    if (state?.cache !== 1 || state.step !== 1) {
      throw new errors.RP_ERR_BROKER_UNAVAILABLE(`the sequence of ${log} must have 'increment by 1' and 'cache 1'`)
    }
    if (isPooled) return 'a connection pooler, such as PgBouncer, does not pass them on'
    await connection.query(`listen "${this.#channel}"`)
    return undefined
  }

  refuse ({ payload }: LogMessage): string | undefined {
    return payload.includes('\0') ? 'PostgreSQL stores no text with the character U+0000' : undefined
  }

  async insert (connection: DatabaseConnection, messages: readonly LogMessage[], token: string): Promise<void> {
    await connection.query(`insert into ${this.#tables.log} (group_name, payload, token, created_at)
      select m.group_name, m.payload, m.token, ${NOW}
      from unnest(?::text[], ?::text[], ?::text[]) with ordinality as m (group_name, payload, token, place)
      order by m.place`, [
      messages.map(({ group }) => group),
      messages.map(({ payload }) => payload),
      messages.map((_, index) => index === 0 ? token : null)
    ])
  }

  async notify (connection: DatabaseConnection): Promise<void> {
    await connection.query(`notify "${this.#channel}"`)
  }

  async watchHole (connection: DatabaseConnection): Promise<HoleWatch> {
    const read = () => this.#holders(connection)
    return new LockWatch(await read(), read, (holders) => this.#describe(connection, holders), this.#frozen)
  }

  async sweep (connection: DatabaseConnection): Promise<void> {
    const { log, passed } = this.#tables
    const open = await connection.query(`select first_id, holders from ${passed}`)
    const holders = await this.#holders(connection)
    for (const holder of this.#frozen) if (!holders.has(holder)) this.#frozen.delete(holder)
    await connection.query(`with late as (
        delete from ${log} using ${passed} as p where id between p.first_id and p.last_id returning group_name
      )
      insert into ${log} (group_name, created_at) select distinct group_name, ${NOW} from late`)
    // a transaction that was prepared since then has another name
    if ([...holders].some((holder) => PREPARED.test(holder))) return
    const decided = open.filter((row) => !String(row.holders).split(' ').some((holder) => holders.has(holder)))
    const ids = decided.map((row) => Number(row.first_id))
    await connection.query(`delete from ${passed} where first_id = any(?::bigint[])`, [ids])
  }

  /** The transactions that write to the log: they draw ids under this lock, which ends when rows become visible. */
  async #holders (connection: DatabaseConnection): Promise<Set<string>> {
    const rows = await connection.query(`select distinct virtualtransaction as holder from pg_locks
      where locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
        and relation = '${this.#tables.log}'::regclass and mode = 'RowExclusiveLock' and granted`)
    return new Set(rows.map(({ holder }) => String(holder)))
  }

  async #describe (connection: DatabaseConnection, holders: readonly string[]): Promise<string> {
    const rows = await connection.query(`select distinct l.pid, p.gid, a.usename, a.application_name, a.state
      from pg_locks as l left join pg_stat_activity as a on a.pid = l.pid
        left join pg_locks as t on t.locktype = 'transactionid' and t.virtualtransaction = l.virtualtransaction
        left join pg_prepared_xacts as p on p.transaction = t.transactionid
      where l.locktype = 'relation' and l.granted and l.virtualtransaction = any(?)`, [holders])
    const sessions = rows.map(({ pid, gid, usename: user, application_name: application, state }) => {
      if (pid === null) return `the prepared transaction '${String(gid)}'`
      return `process ${String(pid)} (user '${String(user)}', application '${String(application)}', ${String(state)})`
    })
    return sessions.join(' and ') || holders.join(' ')
  }
}

class LockWatch implements HoleWatch {
  #open: Set<string>
  readonly #read: () => Promise<Set<string>>
  readonly #describe: (holders: readonly string[]) => Promise<string>
  readonly #frozen: Set<string>

  constructor (
    open: Set<string>,
    read: () => Promise<Set<string>>,
    describe: (holders: readonly string[]) => Promise<string>,
    frozen: Set<string>
  ) {
    this.#open = open
    this.#read = read
    this.#describe = describe
    this.#frozen = frozen
  }

  get holders (): string {
    return [...this.#open].join(' ')
  }

  get isFrozen (): boolean {
    return [...this.#open].every((holder) => this.#frozen.has(holder))
  }

  async isDecided (): Promise<boolean> {
    if (this.#open.size > 0) {
      const now = await this.#read()
      // PREPARE TRANSACTION hands the locks to another holder
      this.#open = new Set([...now].filter((holder) => this.#open.has(holder) || PREPARED.test(holder)))
    }
    return this.#open.size === 0
  }

  describe (): Promise<string> {
    return this.#describe([...this.#open])
  }

  freeze (): void {
    for (const holder of this.#open) this.#frozen.add(holder)
  }
}

class PostgresqlConnection implements DatabaseConnection {
  readonly #client: PgClient
  #isOver = false

  constructor (client: PgClient, { onLost, onNotification }: ConnectionEvents) {
    this.#client = client
    client.on('error', onLost)
    client.on('end', () => onLost(new Error('PostgreSQL closed the connection')))
    client.on('notification', ({ processId }) => {
      if (processId !== client.processID) onNotification()
    })
  }

  get processId (): number | undefined {
    return this.#client.processID
  }

  async query (sql: string, values: readonly unknown[] = []): Promise<ResultRow[]> {
    let count = 0
    const { rows } = await this.#client.query(sql.replaceAll('?', () => `$${++count}`), values)
    return rows
  }

  destroy (): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#client.connection?.stream?.destroy()
    this.#client.release(true)
  }
}
