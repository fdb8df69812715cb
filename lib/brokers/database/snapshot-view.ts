/** Entity managers whose statements all see one state of the database. */
import { IsolationLevel, type EntityManager, type MikroORM } from '@mikro-orm/core'
import type { ResultRow, SnapshotView, StatementRunner } from './dialect.ts'
import { openOwnConnection, type OwnConnection } from './own-connection.ts'

/** Begins a transaction on a connection of the application's pool. Its first statement decides which state it sees. */
export async function openServerView (orm: MikroORM): Promise<SnapshotView> {
  const em = newEntityManager(orm)
  await em.begin({ isolationLevel: IsolationLevel.REPEATABLE_READ, readOnly: true })
  // nothing was written, so nothing is lost with a ROLLBACK, which also sends no events of a commit
  return { em, connection: connectionOf(em, em.getConnection('write')), end: () => em.rollback() }
}

/**
 * Begins a transaction on a connection of its own to a file of SQLite, if its writers do not wait for readers (WAL).
 * Elsewhere a transaction would stop the writers of the application, so there is none.
 */
export async function openFileView (orm: MikroORM): Promise<SnapshotView> {
  const em = newEntityManager(orm)
  const own = openOwnConnection(orm)
  await own.connect({ skipOnConnect: true })
  const end = () => own.close(true)
  try {
    const [mode] = await own.execute('pragma journal_mode', [], 'all', undefined, { enabled: false })
    if (mode?.journal_mode === 'wal') em.setTransactionContext(await own.begin({}))
    return { em, connection: connectionOf(em, own), end }
  } catch (error) {
    await end()
    throw error
  }
}

/** An entity manager without the entities, filters and transactions of the caller. */
function newEntityManager (orm: MikroORM): EntityManager {
  return orm.em.fork({ disableContextResolution: true, disableTransactions: false })
}

function connectionOf (em: EntityManager, connection: unknown): StatementRunner {
  const { execute } = connection as OwnConnection
  return {
    query: (sql, values = []): Promise<ResultRow[]> => {
      return execute.call(connection, sql, values, 'all', em.getTransactionContext(), { enabled: false })
    }
  }
}
