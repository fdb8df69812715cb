/**
 * Contract between a broker that keeps its messages in the application's database and the MikroORM plugin: a transaction
 * writes its own messages. Free of MikroORM types.
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
