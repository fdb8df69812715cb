/** Sends the COMMIT of a transaction and determines its outcome. */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import type { TransactionRows } from '../../brokers/transaction-log.ts'
import { errors } from '../../errors.ts'
import { Database, databaseOf } from '../../util/platforms.ts'
import { insertRows, insertText, removeRows } from './commit-rows.ts'
import { toStamp, type CommitStamp, type CommitStamps, type KyselyTransaction, type StampRow } from './commit-stamps.ts'

/** Outcome of a transaction. */
export const Outcome = {
  Committed: 'committed',
  RolledBack: 'rolled_back',
  /** The connection was lost before the answer to COMMIT. */
  Unknown: 'unknown'
} as const
export type Outcome = typeof Outcome[keyof typeof Outcome]

/** Result of a COMMIT. */
export interface CommitResult {
  readonly outcome: Outcome
  /** The place among the commits of the database, where it has one. */
  readonly stamp?: CommitStamp | undefined
  /** The reason why the transaction is not committed, or why that is unknown. */
  readonly error?: unknown
}

/** A query of `pg`, made by its `Query` class. */
interface PgQuery {
  then?: Promise<unknown>['then']
}

interface PgResult {
  readonly command?: string
  readonly rows: readonly unknown[]
}

type PgQueryClass = new (text: string, callback: (error: unknown, result: PgResult | PgResult[]) => void) => PgQuery

/**
 * Replaces the COMMIT of an outermost transaction. In `afterTransactionStart` this covers implicit, nested and
 * hand-made transactions, and `commit` runs after all subscribers.
 *
 * @param commit receives the original COMMIT. The caller of `flush()`, `commit()` or `transactional()` gets its
 * rejection.
 */
export function replaceCommit (transaction: Transaction, commit: (original: () => Promise<void>) => Promise<void>): void {
  const kysely = transaction as KyselyTransaction
  const original = kysely.commit.bind(kysely)
  Object.defineProperty(transaction, 'commit', {
    value: () => ({ execute: () => commit(() => original().execute()) }),
    configurable: true
  })
}

/**
 * Prepares the COMMIT of a transaction: its last statement before the COMMIT reads the stamp, if the broker uses
 * stamps, or inserts rows. With `pg` it goes to the server in one message with the COMMIT. Rejects if a statement fails,
 * or if the database has rolled back the transaction.
 *
 * @param commit sends the COMMIT of Kysely
 * @param rows rows that exist if and only if the transaction commits
 * @returns sends the COMMIT and never rejects
 */
export async function prepareCommit (
  em: EntityManager,
  transaction: Transaction,
  stamps: CommitStamps,
  commit: () => Promise<void>,
  rows?: TransactionRows
): Promise<() => Promise<CommitResult>> {
  const Query = databaseOf(em.getPlatform()) === Database.PostgreSql ? await pgQueryOf(em) : undefined
  if (Query === undefined) {
    // the INSERT shows as well whether the transaction goes on
    const stamp = rows === undefined || stamps.isUsed ? await stamps.read(em, transaction) : undefined
    if (rows !== undefined) await insertRows(em, transaction, rows)
    return async () => {
      const result = await resultOf(em, async () => {
        await commit()
        return { outcome: Outcome.Committed, stamp }
      })
      if (rows !== undefined && result.outcome === Outcome.RolledBack) await removeRows(em, transaction)
      return result
    }
  }
  const insert = rows && insertText(rows)
  if (rows !== undefined && insert === undefined) await insertRows(em, transaction, rows)
  const query = await stamps.query(em, transaction).catch((error: unknown) => {
    if (isInFailedTransaction(error)) return undefined
    throw error
  })
  const before = [query, insert].filter((sql) => sql !== undefined).map((sql) => `${sql};`).join('')
  return () => resultOf(em, () => commitWithTag(transaction as KyselyTransaction, commit, Query, before).catch((error: unknown) => {
    // the right to read the stamp may be gone
    stamps.reset()
    throw error
  }))
}

async function resultOf (em: EntityManager, commit: () => Promise<CommitResult>): Promise<CommitResult> {
  try {
    return await commit()
  } catch (error) {
    return { outcome: isRefusal(em, error) ? Outcome.RolledBack : Outcome.Unknown, error }
  }
}

/**
 * Sends COMMIT with `pg` and reads the command tag of the answer, which Kysely leaves out.
 *
 * @param before statements in the same message
 */
async function commitWithTag (
  transaction: KyselyTransaction,
  commit: () => Promise<void>,
  Query: PgQueryClass,
  before: string
): Promise<CommitResult> {
  let results: PgResult[] = []
  try {
    await transaction.getExecutor().provideConnection(async (connection) => {
      const { executeQuery } = connection
      const restore = () => { connection.executeQuery = executeQuery }
      connection.executeQuery = (query, options) => {
        // the connection may serve another transaction as soon as the answer is there
        restore()
        const { promise, resolve, reject } = Promise.withResolvers<unknown>()
        const sent = new Query(`${before}${String(query.sql)}`, (error, result) => {
          if (error) return reject(error)
          results = [result].flat()
          resolve(result)
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
  } catch (error) {
    // the statements before the COMMIT can't run in an aborted transaction; the COMMIT ends it
    if (before === '' || !isInFailedTransaction(error)) throw error
    return commitWithTag(transaction, commit, Query, '')
  }
  // PostgreSQL answers the COMMIT of an aborted transaction with ROLLBACK instead of an error
  if (results.at(-1)?.command === 'ROLLBACK') return { outcome: Outcome.RolledBack, error: new errors.RP_ERR_ROLLED_BACK() }
  return { outcome: Outcome.Committed, stamp: toStamp(results[0]?.rows[0] as StampRow | undefined) }
}

/** Returns the `Query` class of `pg`, unless another client runs the queries. */
async function pgQueryOf (em: EntityManager): Promise<PgQueryClass | undefined> {
  const connection = em.getConnection('write') as unknown as { getNativeClient (): Promise<{ Client?: { Query?: PgQueryClass } }> }
  try {
    const { Client } = await connection.getNativeClient()
    return Client?.Query
  } catch {
    // the application made the client itself
  }
}

/** Whether the database refused the COMMIT. Otherwise its answer was lost, or says that the outcome is open. */
function isRefusal (em: EntityManager, error: unknown): boolean {
  if (databaseOf(em.getPlatform()) === Database.Sqlite) return true
  // the fields that PostgreSQL and the drivers of MySQL and MariaDB set; 40003: statement completion unknown
  const { severity, code, sqlState, fatal } = error as { severity?: string, code?: string, sqlState?: string, fatal?: boolean }
  return code !== '40003' && (severity === 'ERROR' || (sqlState !== undefined && fatal !== true))
}

/** Whether a statement was refused because an earlier error has aborted the transaction (SQLSTATE 25P02). */
function isInFailedTransaction (error: unknown): boolean {
  return (error as { code?: string }).code === '25P02'
}
