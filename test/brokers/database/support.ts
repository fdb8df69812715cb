/** Databases with the tables of the log, and brokers on them. */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { MariaDbDriver } from '@mikro-orm/mariadb'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM, NodeSqliteDialect, SqliteDriver, type Options } from '@mikro-orm/sql'
import type { Line } from '../../support/line.ts'
import type { TestContext } from 'node:test'
import { DatabaseBroker } from '../../../lib/brokers/database/database-broker.ts'
import { logEntities } from '../../../lib/brokers/database/index.ts'
import {
  makeSettings, type DatabaseBrokerOptions, type DatabaseBrokerSettings
} from '../../../lib/brokers/database/broker-settings.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'

/** Registers what ends a database. */
export type After = (run: () => Promise<void> | void) => void

/** A database of its own for one test file or test. */
export interface TestDatabase {
  readonly name: DatabaseName
  readonly orm: MikroORM
  /** One more ORM for the same database, with another port if a line is between. */
  connect (change?: Options): Promise<MikroORM>
  /** Runs a statement. */
  run (sql: string, values?: unknown[]): Promise<Record<string, unknown>[]>
  /** Options of the ORM with the line's port in place of the server's. */
  through (line: Line): Options
}

export type DatabaseName = 'PostgreSQL' | 'MariaDB' | 'SQLite'

/** Where a server is, and the driver for it. */
export const servers = {
  PostgreSQL: { url: process.env.POSTGRESQL_URL ?? 'postgresql://postgres@127.0.0.1:5432/postgres', driver: PostgreSqlDriver },
  MariaDB: { url: process.env.MARIADB_URL ?? 'mysql://root@127.0.0.1:3306/test', driver: MariaDbDriver }
}

/** Why the tests of a database are skipped: outside CI its server may be missing. */
export const skips: Record<DatabaseName, string | false> = {
  PostgreSQL: await skipOf('PostgreSQL'),
  MariaDB: await skipOf('MariaDB'),
  SQLite: false
}

async function skipOf (name: 'PostgreSQL' | 'MariaDB'): Promise<string | false> {
  const socket = connect(portOf(name), new URL(servers[name].url).hostname)
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    if (process.env.CI === 'true') throw error
    return `no ${name}: ${(error as Error).message}`
  } finally {
    socket.destroy()
  }
}

/** Makes a database with the tables, which is dropped after the test. */
export async function makeDatabase (name: DatabaseName, after: After, { hasTables = true } = {}): Promise<TestDatabase> {
  const options = name === 'SQLite' ? sqlite(after) : server(name)
  const orms: MikroORM[] = []
  const open = async (change: Options = {}) => {
    const orm = await MikroORM.init({ ...options, entities: logEntities, ...change } as Options)
    orms.push(orm)
    return orm
  }
  const orm = await open()
  await orm.schema.ensureDatabase()
  if (hasTables) await orm.schema.create()
  const run = (sql: string, values: unknown[] = []) => orm.em.getConnection().execute(sql, values, 'all')
  after(async () => {
    for (const other of orms.slice(1)) await other.close(true)
    const database = String(orm.config.get('dbName'))
    if (name === 'PostgreSQL') {
      // connections that a test left are ended
      await run('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')
      await orm.schema.dropDatabase(database)
    } else if (name === 'MariaDB') await orm.schema.dropDatabase(database)
    await orm.close(true)
  })
  return { name, orm, connect: open, run, through: ({ port }) => ({ clientUrl: Object.assign(new URL(String(options.clientUrl)), { port }).href }) }
}

/** The port of a server. */
export function portOf (name: 'PostgreSQL' | 'MariaDB'): number {
  return Number(new URL(servers[name].url).port)
}

function sqlite (after: After): Options {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-log-'))
  after(() => rmSync(folder, { recursive: true, force: true }))
  const dbName = join(folder, 'log.sqlite')
  return { driver: SqliteDriver, dbName, driverOptions: new NodeSqliteDialect(dbName) }
}

function server (name: 'PostgreSQL' | 'MariaDB'): Options {
  const { url, driver } = servers[name]
  return { driver, clientUrl: url, dbName: `rohrpost_${randomUUID().replaceAll('-', '').slice(0, 16)}` } as Options
}

/** Locks a file as another program that writes does. @returns releases it */
export function lockSqlite (file: string): () => void {
  const other = new DatabaseSync(file)
  other.exec('pragma busy_timeout = 5000; begin exclusive')
  return () => {
    other.exec('commit')
    other.close()
  }
}

/** A connection of its own, as another process has. */
export interface Client {
  readonly name: DatabaseName
  run (sql: string): Promise<Record<string, unknown>[]>
}

export async function openClient (t: TestContext, { name, orm }: TestDatabase): Promise<Client> {
  const { dialect } = settingsOf(orm)
  const connector = dialect.connector()
  const connection = await connector.connect({ onLost () {}, onNotification () {} })
  t.after(async () => {
    connection.destroy()
    await connector.close()
  })
  return { name, run: (sql) => connection.query(sql) }
}

/** A broker on a database, and what it tells. */
export async function openBroker (t: TestContext, { orm }: { orm: MikroORM }, change: Partial<DatabaseBrokerSettings> = {}) {
  const recorder = new Recorder()
  const broker = new DatabaseBroker({ ...settingsOf(orm, { history: { size: 100, ttl: 60_000 } }), ...change })
  t.after(() => broker.close())
  await broker.open(recorder)
  return { broker, recorder }
}

export function settingsOf (orm: MikroORM, options: Partial<DatabaseBrokerOptions> = {}): DatabaseBrokerSettings {
  return makeSettings({ orm, ...options })
}
