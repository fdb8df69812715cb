/** Checks the options of the database broker and derives its settings. */
import type { MikroORM } from '@mikro-orm/core'
import { errors, show } from '../../errors.ts'
import { checkNames, isDelay, MAX_DELAY } from '../../util/checks.ts'
import { Database, databaseOf } from '../../util/platforms.ts'
import { tableNameOf } from '../../util/table-name.ts'
import { checkHistory, type HistoryOptions } from '../history.ts'
import type { Dialect, LogTables } from './dialect.ts'
import type { GapPatience } from './id-gap.ts'
import { LogEntry, LogState, PassedIds } from './log-entities.ts'
import type { LogWriterLimits } from './log-writer.ts'
import { MariadbDialect } from './mariadb-dialect.ts'
import { PostgresqlDialect } from './postgresql-dialect.ts'
import { SqliteDialect } from './sqlite-dialect.ts'

/** Options of `databaseBroker`. */
export interface DatabaseBrokerOptions {
  /**
   * The ORM of the application, with `logEntities` among its entities. The broker opens two connections of its own with
   * the same options.
   */
  orm: MikroORM
  /** Size and age of the messages that are kept of each group for recovery. @defaultValue none */
  history?: HistoryOptions
  /**
   * The delay between two reads of the log, in milliseconds. On PostgreSQL processes also notify each other, and the
   * poll finds messages of a process that ended before its notification.
   *
   * @defaultValue PostgreSQL 1000, MariaDB 100, SQLite 50
   */
  pollInterval?: number
}

/** Settings of a broker, made of its options. */
export interface DatabaseBrokerSettings {
  /** The ORM whose transactions can write to the log. */
  orm: object
  dialect: Dialect
  tables: LogTables
  history: HistoryOptions | undefined
  pollInterval: number
  limits: LogWriterLimits
  patience: GapPatience
  /** Shortest time for which rows are kept, in milliseconds. */
  keep: number
  keepNewest: number
  cleanInterval: number
}

const LIMITS = { messages: 100_000, bytes: 64 * 1024 * 1024, timeout: 5000 }
const PATIENCE = { usual: 10_000, opening: 2000, frozen: 200 }
/** Shortest time for which rows are kept, in milliseconds: other processes have to read them. */
const KEEP = 60_000
/** Additional time for which the newest old row of a group is kept, in milliseconds. */
const REMEMBERED = 24 * 60 * 60 * 1000

/** @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function makeSettings (options: DatabaseBrokerOptions): DatabaseBrokerSettings {
  checkNames(options, ['orm', 'history', 'pollInterval'])
  const { orm, pollInterval } = options
  if (typeof orm?.getMetadata !== 'function') {
    throw new errors.RP_ERR_INVALID_OPTION('orm', 'a MikroORM instance', show(orm))
  }
  if (pollInterval !== undefined && !isDelay(pollInterval)) {
    const expected = `a whole number of milliseconds from 1 to ${MAX_DELAY}`
    throw new errors.RP_ERR_INVALID_OPTION('pollInterval', expected, show(pollInterval))
  }
  const history = checkHistory(options.history)
  const tables = findTables(orm)
  const dialect = makeDialect(orm, tables)
  const keep = Math.max(KEEP, history?.ttl ?? 0)
  return {
    orm,
    dialect,
    tables,
    history,
    pollInterval: pollInterval ?? dialect.pollInterval,
    limits: LIMITS,
    patience: PATIENCE,
    keep,
    keepNewest: keep + REMEMBERED,
    cleanInterval: keep / 2
  }
}

/** @throws RP_ERR_INVALID_OPTION */
function findTables (orm: MikroORM): LogTables {
  const nameOf = (entity: string) => {
    const name = tableNameOf(orm, entity)
    if (name !== undefined) return name
    const expected = "a MikroORM with 'entities: [..., ...logEntities]'"
    throw new errors.RP_ERR_INVALID_OPTION('orm', expected, `one without '${entity}'`)
  }
  return {
    log: nameOf(LogEntry.meta.className),
    state: nameOf(LogState.meta.className),
    passed: nameOf(PassedIds.meta.className)
  }
}

const DIALECTS: Partial<Record<Database, new (orm: MikroORM, tables: LogTables) => Dialect>> = {
  [Database.PostgreSql]: PostgresqlDialect,
  [Database.MariaDb]: MariadbDialect,
  [Database.MySql]: MariadbDialect,
  [Database.Sqlite]: SqliteDialect
}

/** @throws RP_ERR_INVALID_OPTION */
function makeDialect (orm: MikroORM, tables: LogTables): Dialect {
  const platform = orm.em.getPlatform()
  const Dialect = DIALECTS[databaseOf(platform)]
  if (Dialect !== undefined) return new Dialect(orm, tables)
  const expected = 'a MikroORM for PostgreSQL, MariaDB, MySQL or SQLite'
  throw new errors.RP_ERR_INVALID_OPTION('orm', expected, platform.constructor.name)
}
