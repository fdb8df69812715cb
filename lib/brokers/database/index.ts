/** Groups across processes through the application's own database; the subpath `fastify-rohrpost/brokers/database`. */
import type { Broker } from '../broker.ts'
import type { HistoryOptions } from '../history.ts'
import { DatabaseBroker } from './database-broker.ts'
import { logEntities } from './log-entities.ts'
import { makeSettings, type DatabaseBrokerOptions } from './broker-settings.ts'

export { logEntities }
export type { DatabaseBrokerOptions, HistoryOptions }

/**
 * Makes a broker that shares groups among all processes with the same database: PostgreSQL, MariaDB, or SQLite in a
 * file. Messages are rows of a table of the application's database, see `logEntities`.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function databaseBroker (options: DatabaseBrokerOptions): Broker {
  return new DatabaseBroker(makeSettings(options))
}
