/** Reads the committed version of rows that a running transaction has changed, on a second connection. */
import { type Connection, type EntityManager, type MikroORM, type Transaction } from '@mikro-orm/core'
import { Database, databaseOf } from '../../util/platforms.ts'
import { within } from '../../util/within.ts'
import { readRows, type ReadBackRow } from './read-back.ts'
import type { Row } from '../row.ts'

/** Pool options of the drivers for one connection: one query runs at a time. */
const POOLS: Partial<Record<Database, object>> = {
  [Database.PostgreSql]: { max: 1, min: 0, allowExitOnIdle: true },
  [Database.MariaDb]: { connectionLimit: 1 },
  [Database.MySql]: { connectionLimit: 1 }
}

/** Names of the connection options in the configuration of MikroORM. */
const OPTIONS = [
  'dbName', 'clientUrl', 'host', 'port', 'user', 'password', 'multipleStatements', 'pool', 'schema'
] as const

/** A connection of MikroORM whose client can run queries in place of a transaction. */
type SqlConnection = Connection & { getClient (): Transaction }
type SqlConnectionClass = new (config: object, options: object, type: 'write') => SqlConnection

/**
 * Reads rows as all other transactions see them. The row locks of the running transaction keep that version until
 * COMMIT.
 */
export class CommittedRows {
  readonly #pool: object | undefined
  readonly #orm: MikroORM
  readonly #timeout: number
  #connection: Promise<SqlConnection> | undefined
  /** Resolves at the end of the last query. */
  #last: Promise<unknown> = Promise.resolve()

  /** @param timeout milliseconds after which a query counts as failed */
  constructor (orm: MikroORM, timeout: number) {
    this.#orm = orm
    this.#timeout = timeout
    this.#pool = POOLS[databaseOf(orm.em.getPlatform())]
    this.#closeWithOrm()
  }

  /**
   * Whether the committed version can be read. Not in a database with a single connection, and not with session
   * variables of the EntityManager, which the second connection does not have.
   */
  isReadable (em: EntityManager): boolean {
    return this.#pool !== undefined && em.getSessionContext() === undefined &&
      !isClient(this.#orm.config.get('driverOptions'))
  }

  /** Reads the committed rows. Rejects if the connection fails or does not answer in time. */
  async read (em: EntityManager, requested: readonly ReadBackRow[]): Promise<Map<string, Row>> {
    const reading = this.#last.then(async () => readRows(em, (await this.#open()).getClient(), requested))
    const done = within(this.#timeout, reading, () => {
      return new Error(`The committed rows were not read within ${this.#timeout} ms`)
    })
    this.#last = done.catch(() => {
      reading.catch(() => {})
      // the next query gets a new connection
      this.close().catch(() => {})
    })
    return done
  }

  /** Closes the second connection; the next query opens a new one. */
  async close (): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    await (await connection?.catch(() => undefined))?.close(true)
  }

  #open (): Promise<SqlConnection> {
    this.#connection ??= this.#connect()
    return this.#connection
  }

  async #connect (): Promise<SqlConnection> {
    const { config } = this.#orm
    const options = Object.fromEntries(OPTIONS.map((name) => [name, config.get(name)]))
    const driverOptions = config.get('driverOptions') as object | (() => object) | undefined
    const given = typeof driverOptions === 'function' ? driverOptions() : driverOptions

    const Class = this.#orm.em.getConnection('write').constructor as unknown as SqlConnectionClass
    const connection = new Class(config, { ...options, driverOptions: { ...given, ...this.#pool } }, 'write')
    connection.setMetadata(this.#orm.getMetadata())
    connection.setPlatform(this.#orm.em.getPlatform())
    await connection.connect({ skipOnConnect: true })
    return connection
  }

  /**
   * Closes the second connection with the ORM, which has no event for its end: an open connection keeps the process
   * alive.
   */
  #closeWithOrm (): void {
    const writer = this.#orm.em.getConnection('write')
    const close = writer.close.bind(writer)
    writer.close = async (force) => {
      await this.close()
      return close(force)
    }
  }
}

/** Whether `driverOptions` is a client or a dialect made by the application, which can't be opened a second time. */
function isClient (driverOptions: unknown): boolean {
  return typeof driverOptions === 'object' && driverOptions !== null &&
    ('createDriver' in driverOptions || 'executeQuery' in driverOptions)
}
