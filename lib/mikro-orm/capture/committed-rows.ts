/** Reads the committed version of rows that a transaction has changed and not committed yet, on a connection of its own. */
import { type Connection, type EntityManager, type MikroORM, type Transaction } from '@mikro-orm/core'
import { Database, databaseOf } from '../platforms.ts'
import { readRows, type Wanted } from './read-back.ts'
import type { Row } from '../row.ts'

/** How the drivers name the limit of their pool. One connection is enough, as one query runs at a time. */
const POOLS: Partial<Record<Database, object>> = {
  [Database.PostgreSql]: { max: 1, min: 0, allowExitOnIdle: true },
  [Database.MariaDb]: { connectionLimit: 1 },
  [Database.MySql]: { connectionLimit: 1 }
}

/** The options of a connection, which MikroORM takes from the configuration. */
const OPTIONS = ['dbName', 'clientUrl', 'host', 'port', 'user', 'password', 'multipleStatements', 'pool', 'schema'] as const

/** A connection whose client runs queries as a transaction does. */
type SqlConnection = Connection & { getClient (): Transaction }
type SqlConnectionClass = new (config: object, options: object, type: 'write') => SqlConnection

/** Gives rows as all other transactions see them. The lock of the transaction keeps that version until its COMMIT. */
export class CommittedRows {
  readonly #pool: object | undefined
  readonly #orm: MikroORM
  readonly #timeout: number
  #connection: Promise<SqlConnection> | undefined
  /** The end of the last query. */
  #last: Promise<unknown> = Promise.resolve()

  /** @param timeout milliseconds after which a query counts as failed */
  constructor (orm: MikroORM, timeout: number) {
    this.#orm = orm
    this.#timeout = timeout
    this.#pool = POOLS[databaseOf(orm.em)]
    this.#closeWithOrm()
  }

  /** Whether the committed version can be read at all: not in a database of one connection, and not for a role that the session sets. */
  isReadable (em: EntityManager): boolean {
    return this.#pool !== undefined && em.getSessionContext() === undefined && !isClient(this.#orm.config.get('driverOptions'))
  }

  /** Reads rows. Rejects where the connection fails or does not answer in time. */
  async read (em: EntityManager, wanted: readonly Wanted[]): Promise<Map<string, Row>> {
    const reading = this.#last.then(async () => readRows(em, (await this.#open()).getClient(), wanted))
    const timer = Promise.withResolvers<never>()
    const timeout = setTimeout(() => timer.reject(new Error(`The committed rows were not read within ${this.#timeout} ms`)), this.#timeout)
    const done = Promise.race([reading, timer.promise]).finally(() => clearTimeout(timeout))
    this.#last = done.catch(() => {
      reading.catch(() => {})
      // the next query gets a new connection
      this.close().catch(() => {})
    })
    return done
  }

  /** Closes the connection; the next query opens a new one. */
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

  /** An ORM has no event for its end, and an open connection would keep the process alive. */
  #closeWithOrm (): void {
    const writer = this.#orm.em.getConnection('write')
    const close = writer.close.bind(writer)
    writer.close = async (force) => {
      await this.close()
      return close(force)
    }
  }
}

/** Whether the application made the client or its dialect itself, which can't be made a second time. */
function isClient (driverOptions: unknown): boolean {
  return typeof driverOptions === 'object' && driverOptions !== null && ('createDriver' in driverOptions || 'executeQuery' in driverOptions)
}
