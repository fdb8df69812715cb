/** Groups across processes through the application's own database; the subpath `fastify-rohrpost/brokers/database`. */
import type { EntityManager } from '@mikro-orm/core'
import type { Broker, Snapshot } from '../broker.ts'
import type { HistoryOptions } from '../history.ts'
import { DatabaseBroker as Implementation } from './database-broker.ts'
import type { LogStats } from './log-stats.ts'
import { logEntities } from './log-entities.ts'
import { makeSettings, type DatabaseBrokerOptions } from './broker-settings.ts'

export { logEntities }
export type { DatabaseBrokerOptions, HistoryOptions, LogStats, Snapshot }

/** The broker that `databaseBroker` makes. */
export interface DatabaseBroker extends Broker {
  /**
   * Reads rows of the application and the messages that they contain already, see `Broker`. On PostgreSQL and MariaDB
   * all statements of `em` run in one read-only transaction that sees one state of the database. With SQLite, too, if
   * the file is in the WAL mode; elsewhere the rows can contain the change of a message that is not recognized, so that
   * it is applied twice, but never miss one.
   */
  snapshot<Value> (group: string, read: (em: EntityManager) => Promise<Value>): Promise<Snapshot<Value>>
  /** Figures about reading the log; `undefined` before the broker is opened. */
  stats (): LogStats | undefined
}

/**
 * Makes a broker that shares groups among all processes with the same database: PostgreSQL, MariaDB, or SQLite in a
 * file. Messages are rows of a table of the application's database, see `logEntities`.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function databaseBroker (options: DatabaseBrokerOptions): DatabaseBroker {
  return new Implementation(makeSettings(options))
}
