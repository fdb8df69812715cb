/** Types of the database dialects. */
import type { EntityManager } from '@mikro-orm/core'
import type { TransactionTurn } from '../transaction-log.ts'

/** A row as a driver returns it. */
export type ResultRow = Record<string, unknown>

/** Runs one statement after the other on a connection. */
export interface StatementRunner {
  /** Runs a statement with `?` in place of values. */
  query (sql: string, values?: readonly unknown[]): Promise<ResultRow[]>
}

/** One connection to the database. */
export interface DatabaseConnection extends StatementRunner {
  /** The id that the server has announced for its process, if it does. */
  readonly processId?: number | undefined
  /** Ends the connection at once, also under a statement that is not answered. */
  destroy (): void
}

/** Events of a connection. */
export interface ConnectionEvents {
  /** The connection is lost while no statement runs. */
  onLost (error: Error): void
  /** Another process has written to the log. */
  onNotification (): void
}

/** Opens connections with the options of the ORM. */
export interface Connector {
  connect (events: ConnectionEvents): Promise<DatabaseConnection>
  /** Ends what connections share. */
  close (): Promise<void>
}

/** An entity manager for reading, and its connection. */
export interface SnapshotView {
  readonly em: EntityManager
  readonly connection: StatementRunner
  /** Ends the transaction. */
  end (): Promise<void>
}

/** How a statement failed. */
export type Failure =
  /** The connection is gone, and with it the answer. */
  | 'lost'
  /** The same statement may succeed a moment later. */
  | 'passing'
  /** A row with the same token is there. */
  | 'repeated'
  /** The table is missing. */
  | 'missing'
  | 'refused'

/** The names of the tables, quoted. */
export interface LogTables {
  log: string
  state: string
  passed: string
}

/** A message on its way into the log. */
export interface LogMessage {
  readonly group: string
  readonly payload: string
}

/** Statements and expressions of one database. */
export interface Dialect {
  readonly name: string
  /** The delay between two looks at the log, in milliseconds, where nothing else says that there are new rows. */
  readonly pollInterval: number
  /** The expression for the milliseconds of Unix time. */
  readonly now: string
  /** The expression for the text that changes when the log was lost or rewound. */
  readonly epoch: string
  /** The expression for the size of a payload in bytes. */
  readonly size: string
  /** The beginning and the end of an INSERT that leaves out rows whose key is there already. */
  readonly insertMissing: readonly [string, string]
  /** The condition that a row is of a group, and its values. */
  readonly isGroup: string
  groupValues (group: string): string[]
  /** The lock that transactions of the application share while they write to the log. Without it they need none. */
  readonly turn?: TransactionTurn
  /** Opens connections; `name` is what the server shows. */
  connector (): Connector
  /** Opens an entity manager whose statements all see one state of the database. */
  openView (): Promise<SnapshotView>
  failureOf (error: unknown): Failure
  /**
   * Prepares a connection that is new.
   *
   * @returns the reason why notifications of other processes do not arrive, where they usually do
   * @throws Error where the server can not hold the log
   */
  prepare (connection: DatabaseConnection, role: 'reader' | 'writer'): Promise<string | undefined>
  /** Returns the reason why the database can't store a message, if there is one. */
  refuse (message: LogMessage): string | undefined
  /** Inserts messages in one transaction, the first one with the token. */
  insert (connection: DatabaseConnection, messages: readonly LogMessage[], token: string): Promise<void>
  /** Returns whether the database may have changed since the last call. Without it every poll reads. */
  hasChanged? (connection: DatabaseConnection): Promise<boolean>
  /** Tells other processes that there are new rows. */
  notify? (connection: DatabaseConnection): Promise<void>
  /** Watches the transactions that may own a missing id; without it ids become visible in order. */
  watchHole? (connection: DatabaseConnection): Promise<HoleWatch>
  /** Replaces late rows with passed ids by rows that report the loss, and deletes decided passed ids. */
  sweep? (connection: DatabaseConnection): Promise<void>
}

/** A watch on the transactions that may still write a missing id. */
export interface HoleWatch {
  /** Returns whether all transactions that were open when the watch began have ended. */
  isDecided (): Promise<boolean>
  /** `true` if readers have given up waiting for these transactions before. */
  readonly isFrozen: boolean
  /** Names of the transactions that have not ended. */
  readonly holders: string
  /** Returns the sessions of these transactions, for people to read. */
  describe (): Promise<string>
  /** Called when the reader gives up waiting. */
  freeze (): void
}
