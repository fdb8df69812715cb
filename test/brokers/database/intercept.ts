/** Intercepts the statements of a database broker. */
import type { MikroORM } from '@mikro-orm/sql'
import type { DatabaseBrokerSettings } from '../../../lib/brokers/database/broker-settings.ts'
import type { DatabaseConnection, ResultRow } from '../../../lib/brokers/database/dialect.ts'
import { settingsOf } from './support.ts'

/** Decides about a statement: `run` executes it. */
export type Intercept = (sql: string, run: () => Promise<ResultRow[]>) => Promise<ResultRow[]>

/** Settings whose connections pass each statement to a function that a test can change. */
export function intercepted (orm: MikroORM): { settings: DatabaseBrokerSettings, hook: { intercept: Intercept } } {
  const hook: { intercept: Intercept } = { intercept: (_sql, run) => run() }
  const settings = settingsOf(orm, { history: { size: 100, ttl: 60_000 } })
  const { dialect } = settings
  const connector = dialect.connector.bind(dialect)
  dialect.connector = () => {
    const real = connector()
    return {
      connect: async (events) => {
        const connection = await real.connect(events)
        const wrapped: DatabaseConnection = {
          query: (sql, values) => hook.intercept(sql, () => connection.query(sql, values)),
          destroy: () => connection.destroy()
        }
        return wrapped
      },
      close: () => real.close()
    }
  }
  return { settings, hook }
}
