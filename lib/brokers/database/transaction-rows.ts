/** The log as transactions of the application write it: the messages of a transaction are rows of it. */
import type { TransactionLog } from '../transaction-log.ts'
import type { Dialect, LogTables } from './dialect.ts'

/** Arguments of `makeTransactionLog`. */
interface LogDescription {
  readonly orm: object
  readonly dialect: Dialect
  readonly tables: LogTables
}

const COLUMNS = ['group_name', 'payload']

/** @param written wakes the reader of this process and those of the others */
export function makeTransactionLog ({ orm, dialect, tables }: LogDescription, written: () => void): TransactionLog {
  const computed = { created_at: dialect.now }
  return {
    orm,
    written,
    refuse: (message) => dialect.refuse(message),
    rowsOf: (messages) => ({
      table: tables.log,
      columns: COLUMNS,
      rows: messages.map(({ group, payload }) => [group, payload]),
      computed,
      turn: dialect.turn
    })
  }
}
