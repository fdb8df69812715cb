/**
 * Contract between a broker that keeps its messages in the application's database and the MikroORM plugin: a
 * transaction writes its own messages. Free of MikroORM types.
 */

/** Rows that a transaction inserts as its last statement before the COMMIT. */
export interface TransactionRows {
  /** Name of the table, quoted. */
  readonly table: string
  /** Names of text columns, in the order of the values. */
  readonly columns: readonly string[]
  /** Values of each row. */
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
  /** SQL expressions of further columns, the same for all rows. */
  readonly computed?: Readonly<Record<string, string>> | undefined
  /** A lock that the transaction takes before the INSERT and holds until its end. */
  readonly turn?: TransactionTurn | undefined
}

/** A row lock that all writers of a table share. Readers of the table see by it that no INSERT is unfinished. */
export interface TransactionTurn {
  /** Query that locks the row. Its column `alive` is 0 if the database has rolled back the transaction. */
  readonly take: string
  /** Statement that inserts the row if it is missing. */
  readonly create: string
}

/**
 * Takes the turn, and inserts its row if the tables were cleared.
 *
 * @param query runs a statement in the transaction
 * @returns the row of the query
 */
export async function takeTurn<Row> (
  query: (sql: string) => Promise<readonly Row[]>,
  { take, create }: TransactionTurn
): Promise<Row | undefined> {
  const [row] = await query(take)
  if (row !== undefined) return row
  await query(create)
  return (await query(take))[0]
}

/** A message of a transaction. */
export interface TransactionMessage {
  readonly group: string
  readonly payload: string
}

/** The log of a broker, whose messages are rows of the application's database. */
export interface TransactionLog {
  /** The MikroORM instance whose transactions can write to the log. */
  readonly orm: object
  /** Returns the reason why the database can't store a message, if there is one. */
  refuse (message: TransactionMessage): string | undefined
  /** Makes the rows of messages. They get their places in the log in order. */
  rowsOf (messages: readonly TransactionMessage[]): TransactionRows
  /** Called when a transaction with rows is committed, or may be. */
  written (): void
}

/** Key of the log of a broker. The symbol is registered: both copies of the package must find the same property. */
export const TRANSACTION_LOG: unique symbol = Symbol.for('fastify-rohrpost.transaction-log') as never

/** Returns the log of a broker, if transactions of an ORM can write to it. */
export function transactionLogOf (broker: object, orm: object): TransactionLog | undefined {
  const log = (broker as { readonly [TRANSACTION_LOG]?: TransactionLog })[TRANSACTION_LOG]
  return log?.orm === orm ? log : undefined
}
