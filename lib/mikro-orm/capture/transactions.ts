/** The running transactions of an ORM and their logs; savepoints share the log of the outermost one. */
import type { EntityManager, Transaction, TransactionEventArgs } from '@mikro-orm/core'
import { ChangeLog, type LogEntry } from './change-log.ts'

/** The logs of running transactions. */
export class Transactions {
  readonly #logs = new WeakMap<Transaction, ChangeLog>()
  /** The transactions in which savepoints are about to begin, by the `EntityManager` that begins them. */
  readonly #parents = new WeakMap<EntityManager, Transaction>()
  /** The outermost transactions that are not over, and who waits for their end. */
  readonly #running = new Set<Transaction>()
  #idle: PromiseWithResolvers<void> | undefined

  /** `beforeTransactionStart`: the only event that knows the transaction around a savepoint. */
  starting ({ em, transaction }: TransactionEventArgs): void {
    if (transaction === undefined) this.#parents.delete(em)
    else this.#parents.set(em, transaction)
  }

  /** `afterTransactionStart`. @returns the log of an outermost transaction */
  started ({ em, transaction }: TransactionEventArgs): ChangeLog | undefined {
    const parent = this.#parents.get(em)
    const log = parent === undefined ? new ChangeLog() : this.#logs.get(parent)
    // a savepoint in a transaction of which nothing is known
    if (log === undefined) return

    this.#logs.set(transaction, log)
    if (transaction?.savepointName !== undefined) {
      log.mark(transaction.savepointName)
      return
    }
    this.#running.add(transaction)
    return log
  }

  /** The log of a transaction that is known. */
  running (transaction: Transaction | undefined): ChangeLog | undefined {
    return this.#logs.get(transaction)
  }

  /** The log of a transaction; a new one outside of transactions. @throws Error where it is not known */
  logOf (transaction: Transaction | undefined): ChangeLog {
    const log = transaction === undefined ? new ChangeLog() : this.running(transaction)
    if (log === undefined) throw new Error('The transaction was not begun through the EntityManager, or before changes were announced')
    return log
  }

  /** RELEASE SAVEPOINT. */
  released (transaction: Transaction): void {
    this.#logs.get(transaction)?.release(transaction.savepointName)
    this.#logs.delete(transaction)
  }

  /** An outermost transaction is over, whatever became of it. */
  ended (transaction: Transaction): void {
    this.#logs.delete(transaction)
    this.#running.delete(transaction)
    if (this.#running.size === 0) this.#idle?.resolve()
  }

  /** Takes back what was changed since a savepoint, or in all of an outermost transaction. @returns what is not sent therefore, if that is wanted */
  rolledBack (transaction: Transaction, isWatched: boolean): LogEntry[] {
    const log = this.#logs.get(transaction)
    this.#logs.delete(transaction)
    const before = isWatched ? log?.entries() ?? [] : []
    log?.rollback(transaction.savepointName)
    if (transaction.savepointName === undefined) this.ended(transaction)
    const after = new Set(isWatched ? log?.entries() : [])
    return before.filter((entry) => !after.has(entry))
  }

  /** Resolves when no transaction is running. */
  async idle (): Promise<void> {
    if (this.#running.size === 0) return
    this.#idle ??= Promise.withResolvers()
    await this.#idle.promise
  }
}
