/** Sends the COMMIT of a transaction and determines its outcome. */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import type { TransactionRows } from '../../brokers/transaction-log.ts'
import { errors } from '../../errors.ts'
import { Database, databaseOf } from '../../util/platforms.ts'
import { insertWithCommit, insertText, removeInserted } from './commit-rows.ts'
import { toStamp, type CommitStamp, type CommitStamps, type KyselyTransaction } from './commit-stamps.ts'

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
  /** Rows of each query that was passed to `prepareCommit`. */
  readonly results: ReadonlyArray<PgResult['rows']>
  /** The reason why the transaction is not committed, or why that is unknown. */
  readonly error?: unknown
}

/** A query of `pg`, made by its `Query` class. */
interface PgQuery {
  then?: Promise<unknown>['then']
}

interface PgResult {
  readonly command?: string
  readonly rows: ReadonlyArray<Readonly<Record<string, unknown>>>
}

/** The last statements of a transaction. */
interface LastStatements {
  /** Rows that exist if and only if the transaction commits. */
  readonly rows?: TransactionRows | undefined
  /** Queries whose results are needed after the COMMIT only, each of one statement. */
  readonly queries?: readonly string[] | undefined
}

type PgQueryClass = new (text: string, callback: (error: unknown, result: PgResult | PgResult[]) => void) => PgQuery

/**
 * Replaces the COMMIT of an outermost transaction. In `afterTransactionStart` this covers implicit, nested and
 * hand-made transactions, and `commit` runs after all subscribers.
 *
 * @param commit receives the original COMMIT. The caller of `flush()`, `commit()` or `transactional()` gets its
 * rejection.
 */
export function replaceCommit (
  transaction: Transaction,
  commit: (original: () => Promise<void>) => Promise<void>
): void {
  const kysely = transaction as KyselyTransaction
  const original = kysely.commit.bind(kysely)
  Object.defineProperty(transaction, 'commit', {
    value: () => ({ execute: () => commit(() => original().execute()) }),
    configurable: true
  })
}

/**
 * Prepares the COMMIT of a transaction. Its last statements before the COMMIT are the given queries, the query of the
 * stamp, if the broker uses stamps, and the INSERT of the given rows. With `pg` they go to the server in the message of
 * the COMMIT. Rejects if a statement fails, or if the database has rolled back the transaction.
 *
 * @param commit sends the COMMIT of Kysely
 * @returns sends the COMMIT and never rejects
 */
export async function prepareCommit (
  em: EntityManager,
  transaction: Transaction,
  stamps: CommitStamps,
  commit: () => Promise<void>,
  { rows, queries = [] }: LastStatements
): Promise<() => Promise<CommitResult>> {
  const Query = databaseOf(em.getPlatform()) === Database.PostgreSql ? await pgQueryOf(em) : undefined
  if (Query === undefined) {
    const results: PgResult['rows'][] = []
    for (const query of queries) results.push(await em.getConnection('write').execute(query, [], 'all', transaction))
    // the INSERT shows as well whether the transaction goes on
    const stamp = rows === undefined || stamps.isUsed ? await stamps.read(em, transaction) : undefined
    if (rows !== undefined) await insertWithCommit(em, transaction, rows)
    return async () => {
      const result = await resultOf(em, async () => {
        await commit()
        return { outcome: Outcome.Committed, stamp, results }
      })
      if (rows !== undefined && result.outcome === Outcome.RolledBack) await removeInserted(em, transaction)
      return result
    }
  }
  const insert = rows && insertText(rows)
  if (rows !== undefined && insert === undefined) await insertWithCommit(em, transaction, rows)
  const stampQuery = await stamps.query(em, transaction).catch((error: unknown) => {
    if (!isInFailedTransaction(error)) throw error
  })
  const statements = [...queries, stampQuery, insert].filter((sql) => sql !== undefined)
  const send = (statements: readonly string[]) => {
    return commitWithTag(transaction as KyselyTransaction, commit, Query, statements)
  }
  return () => resultOf(em, async () => {
    const results = await send(statements).catch((error: unknown) => {
      // the statements can't run in an aborted transaction, which the COMMIT ends; an error of a query ends the flush
      if (queries.length === 0 && statements.length > 0 && isInFailedTransaction(error)) return send([])
      // the right to read the stamp may be gone
      stamps.reset()
      throw error
    })
    // PostgreSQL answers the COMMIT of an aborted transaction with ROLLBACK instead of an error
    if (results.at(-1)?.command === 'ROLLBACK') {
      return { outcome: Outcome.RolledBack, error: new errors.RP_ERR_ROLLED_BACK(), results: [] }
    }
    const found = results.map(({ rows }) => rows)
    return { outcome: Outcome.Committed, stamp: toStamp(found[queries.length]?.[0]), results: found }
  })
}

async function resultOf (em: EntityManager, commit: () => Promise<CommitResult>): Promise<CommitResult> {
  try {
    return await commit()
  } catch (error) {
    return { outcome: isRefusal(em, error) ? Outcome.RolledBack : Outcome.Unknown, error, results: [] }
  }
}

/**
 * Sends COMMIT with `pg` and reads the answer, whose command tag Kysely leaves out.
 *
 * @param statements are sent before the COMMIT in the same message. If one fails, PostgreSQL ignores the rest of the
 * message, and the transaction is aborted
 * @returns the results of the statements and of the COMMIT
 */
async function commitWithTag (
  transaction: KyselyTransaction,
  commit: () => Promise<void>,
  Query: PgQueryClass,
  statements: readonly string[]
): Promise<PgResult[]> {
  let results: PgResult[] = []
  await transaction.getExecutor().provideConnection(async (connection) => {
    const { executeQuery } = connection
    const restore = () => { connection.executeQuery = executeQuery }
    connection.executeQuery = (query, options) => {
      // the connection may serve another transaction as soon as the answer is there
      restore()
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      const sent = new Query([...statements, String(query.sql)].join(';'), (error, result) => {
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
  return results
}

/** Returns the `Query` class of `pg`, unless another client runs the queries. */
async function pgQueryOf (em: EntityManager): Promise<PgQueryClass | undefined> {
  const connection = em.getConnection('write') as unknown as {
    getNativeClient (): Promise<{ Client?: { Query?: PgQueryClass } }>
  }
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
  const { severity, code, sqlState, fatal } = error as {
    severity?: string, code?: string, sqlState?: string, fatal?: boolean
  }
  return code !== '40003' && (severity === 'ERROR' || (sqlState !== undefined && fatal !== true))
}

/** Whether a statement was refused because an earlier error has aborted the transaction (SQLSTATE 25P02). */
function isInFailedTransaction (error: unknown): boolean {
  return (error as { code?: string }).code === '25P02'
}
