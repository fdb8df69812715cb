/** Sends the COMMIT of a transaction, and tells what became of it. */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { Database, databaseOf } from '../platforms.ts'

/** What became of a transaction. */
export const Outcome = {
  Committed: 'committed',
  RolledBack: 'rolled_back',
  /** The answer was lost. */
  Unknown: 'unknown'
} as const
export type Outcome = typeof Outcome[keyof typeof Outcome]

/** The outcome of a COMMIT, and what the caller is rejected with unless it is committed. */
export interface CommitResult {
  readonly outcome: Outcome
  readonly error?: unknown
}

/** A transaction as Kysely has it. */
interface KyselyTransaction {
  commit (): { execute (): Promise<void> }
  getExecutor (): { provideConnection (use: (connection: KyselyConnection) => Promise<void>): Promise<void> }
}

interface KyselyConnection {
  executeQuery (query: { sql: unknown }, options?: unknown): Promise<unknown>
}

/** A query of `pg`, made by its `Query` class. */
interface PgQuery {
  then?: Promise<unknown>['then']
}

type PgQueryClass = new (text: string, callback: (error: unknown, result: { command?: string }) => void) => PgQuery

/**
 * Replaces the COMMIT of an outermost transaction. In `afterTransactionStart` this covers implicit, nested and hand-made transactions,
 * and `commit` runs after all subscribers.
 *
 * @param commit is given the COMMIT that was replaced, as it was and with its outcome; what it rejects with reaches the caller of `flush()`,
 * `commit()` or `transactional()`
 */
export function replaceCommit (
  em: EntityManager,
  transaction: Transaction,
  commit: (plain: () => Promise<void>, send: () => Promise<CommitResult>) => Promise<void>
): void {
  const kysely = transaction as KyselyTransaction
  const original = kysely.commit.bind(kysely)
  const plain = () => original().execute()
  const send = () => sendCommit(em, kysely, plain)
  Object.defineProperty(transaction, 'commit', { value: () => ({ execute: () => commit(plain, send) }), configurable: true })
}

async function sendCommit (em: EntityManager, transaction: KyselyTransaction, commit: () => Promise<void>): Promise<CommitResult> {
  try {
    const database = databaseOf(em)
    const tag = database === Database.PostgreSql ? await commitWithTag(em, transaction, commit) : await commit()
    // PostgreSQL answers the COMMIT of a transaction that an error has aborted with ROLLBACK, and without an error
    if (tag !== 'ROLLBACK') return { outcome: Outcome.Committed }
    return { outcome: Outcome.RolledBack, error: new errors.RP_ERR_ROLLED_BACK() }
  } catch (error) {
    return { outcome: isRefusal(em, error) ? Outcome.RolledBack : Outcome.Unknown, error }
  }
}

/** Sends COMMIT and gives the command tag of the answer, which Kysely leaves out; nothing where the driver is not `pg`. */
async function commitWithTag (em: EntityManager, transaction: KyselyTransaction, commit: () => Promise<void>): Promise<string | undefined> {
  const Query = await pgQueryOf(em)
  if (Query === undefined) {
    // fails where an error has aborted the transaction
    await em.getConnection('write').execute('select 1', [], 'run', transaction)
    await commit()
    return
  }

  let tag: string | undefined
  await transaction.getExecutor().provideConnection(async (connection) => {
    const { executeQuery } = connection
    const restore = () => { connection.executeQuery = executeQuery }
    connection.executeQuery = (query, options) => {
      // the connection may serve another transaction as soon as the answer is there
      restore()
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      const sent = new Query(String(query.sql), (error, result) => {
        tag = result?.command
        if (error) reject(error)
        else resolve(result)
      })
      // Kysely awaits what `client.query` returns, which for an object of this class is the object itself
      sent.then = promise.then.bind(promise) as typeof promise.then
      return executeQuery.call(connection, { ...query, sql: sent }, options)
    }
    await commit().catch((error: unknown) => {
      restore()
      throw error
    })
  })
  return tag
}

/** The `Query` class of the `pg` driver, if that is what runs the queries. */
async function pgQueryOf (em: EntityManager): Promise<PgQueryClass | undefined> {
  const connection = em.getConnection('write') as unknown as { getNativeClient (): Promise<{ Client?: { Query?: PgQueryClass } }> }
  try {
    const { Client } = await connection.getNativeClient()
    return Client?.Query
  } catch {
    // the application made the client itself
  }
}

/** Whether the database itself refused the COMMIT; else its answer was lost, or says that the outcome is open. */
function isRefusal (em: EntityManager, error: unknown): boolean {
  if (databaseOf(em) === Database.Sqlite) return true
  // what PostgreSQL and the drivers of MySQL and MariaDB say of an error; 40003: statement completion unknown
  const { severity, code, sqlState, fatal } = error as { severity?: string, code?: string, sqlState?: string, fatal?: boolean }
  return code !== '40003' && (severity === 'ERROR' || (sqlState !== undefined && fatal !== true))
}
