/**
 * Inserts rows as the last statement of a transaction, so that they exist if and only if it commits. The statements go
 * past MikroORM, whose log has the queries of the application.
 */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import { takeTurn, type TransactionRows } from '../../brokers/transaction-log.ts'
import { errors } from '../../errors.ts'
import { Database, databaseOf } from '../../util/platforms.ts'
import { divide } from '../../util/portions.ts'
import type { KyselyTransaction } from './commit-stamps.ts'

/** Limits of one INSERT. */
const LIMITS = { count: 1000, size: 1024 * 1024 }

/** Savepoint of SQLite, where the application may repeat a COMMIT that was refused. */
const SAVEPOINT = 'rohrpost_rows'
/** Error of MySQL for a savepoint that does not exist. */
const NO_SAVEPOINT = 1305
/** Ends the transaction of a process that stops between the INSERT and the COMMIT: readers wait for its rows. */
const GUARD = "with guard as (select set_config('idle_in_transaction_session_timeout', '5s', true))"

type Values = TransactionRows['rows']

/**
 * Inserts rows with the connection of a transaction. Needs no privilege but INSERT on PostgreSQL and SQLite.
 *
 * @throws RP_ERR_ROLLED_BACK; an error of the database. The transaction must not be committed then
 */
export async function insertWithCommit (
  em: EntityManager,
  transaction: Transaction,
  inserted: TransactionRows
): Promise<void> {
  const database = databaseOf(em.getPlatform())
  const execute = (sql: string, parameters?: readonly unknown[]) => run(transaction, sql, parameters)

  if (database === Database.Sqlite) await execute(`savepoint ${SAVEPOINT}`)
  if (database === Database.MySql) await checkAlive(execute)
  if (inserted.turn !== undefined) {
    const turn = await takeTurn(execute, inserted.turn)
    if (Number(turn?.['alive']) !== 1) throw new errors.RP_ERR_ROLLED_BACK()
  }
  for (const values of portionsOf(inserted.rows)) {
    if (database === Database.PostgreSql) await execute(guardedText(inserted, values))
    else await execute(`${insertInto(inserted)} values ${placesOf(inserted, values)}`, values.flat())
  }
}

/**
 * Removes the rows of {@link insertWithCommit} after a refused COMMIT, where the transaction goes on.
 */
export async function removeInserted (em: EntityManager, transaction: Transaction): Promise<void> {
  if (databaseOf(em.getPlatform()) !== Database.Sqlite) return
  try {
    await run(transaction, `rollback to savepoint ${SAVEPOINT}`)
    await run(transaction, `release savepoint ${SAVEPOINT}`)
  } catch {
    // SQLite has rolled back the transaction
  }
}

/**
 * Returns one INSERT for PostgreSQL as a text without parameters, which can be sent in one message with the COMMIT;
 * `undefined` for rows that need several.
 */
export function insertText (inserted: TransactionRows): string | undefined {
  const [values, more] = portionsOf(inserted.rows)
  if (values === undefined || more !== undefined) return
  const expressions = Object.values(inserted.computed ?? {})
  const rows = values.map((row) => `(${[...row.map(quoteText), ...expressions].join(', ')})`)
  return `${insertInto(inserted)} values ${rows.join(', ')}`
}

/** Executes one statement of a transaction. */
type Execute = (sql: string, parameters?: readonly unknown[]) => Promise<ReadonlyArray<Record<string, unknown>>>

async function run (
  transaction: Transaction, sql: string, parameters: readonly unknown[] = []
): Promise<ReadonlyArray<Record<string, unknown>>> {
  const executor = (transaction as KyselyTransaction).getExecutor()
  const { rows } = await executor.provideConnection((connection) => connection.executeQuery({ sql, parameters }))
  return rows
}

/** MySQL rolls back all of a transaction on a deadlock and commits later statements, also a SAVEPOINT, one by one. */
async function checkAlive (execute: Execute): Promise<void> {
  await execute('savepoint rohrpost_alive')
  try {
    await execute('release savepoint rohrpost_alive')
  } catch (cause) {
    if ((cause as { errno?: number }).errno !== NO_SAVEPOINT) throw cause
    throw new errors.RP_ERR_ROLLED_BACK({ cause })
  }
}

/** Divides rows into portions for one INSERT each. */
function portionsOf (rows: Values): Values[] {
  return divide(rows, (row) => row.reduce((sum, value) => sum + Buffer.byteLength(value ?? ''), 0), LIMITS)
}

function insertInto ({ table, columns, computed = {} }: TransactionRows): string {
  return `insert into ${table} (${[...columns, ...Object.keys(computed)].join(', ')})`
}

function placesOf ({ columns, computed = {} }: TransactionRows, values: Values): string {
  const row = `(${[...columns.map(() => '?'), ...Object.values(computed)].join(', ')})`
  return values.map(() => row).join(', ')
}

/** The INSERT of PostgreSQL as a message of its own. The rows get their ids in the order of their places. */
function guardedText (inserted: TransactionRows, values: Values): string {
  const { columns, computed = {} } = inserted
  const names = columns.map((_, index) => `value${index}`)
  const rows = values.map((row, place) => `(${[place, ...row.map(quoteText)].join(', ')})`)
  return `${GUARD} ${insertInto(inserted)} select ${[...names, ...Object.values(computed)].join(', ')}
    from guard, (values ${rows.join(', ')}) as list (place, ${names.join(', ')}) order by place`
}

/**
 * Quotes a text for PostgreSQL, as `pg` and MikroORM do: whatever `standard_conforming_strings` is. `pg` sets the
 * encoding of its connections to UTF-8, where no byte of another character equals a quote or a backslash.
 */
function quoteText (text: string | null): string {
  if (text === null) return 'null'
  // it would end the message
  if (text.includes('\0')) throw new errors.RP_ERR_NOT_PUBLISHED('PostgreSQL stores no text with the character U+0000')
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted
}
