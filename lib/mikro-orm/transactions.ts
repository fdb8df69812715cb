/** The running transactions of an ORM and their logs; savepoints share the log of the outermost one. */
import type { EntityManager, Transaction, TransactionEventArgs } from '@mikro-orm/core'
import { ChangeLog, type HeldBelief } from './change-log.ts'
import type { Frame } from './notifier.ts'

/** The logs of running transactions. */
export class Transactions {
  readonly #logs = new WeakMap<Transaction, ChangeLog>()
  /** The transactions in which savepoints are about to begin, by the `EntityManager` that begins them. */
  readonly #parents = new WeakMap<EntityManager, Transaction>()

  /** `beforeTransactionStart`: the only event that knows the transaction around a savepoint. */
  starting ({ em, transaction }: TransactionEventArgs): void {
    if (transaction === undefined) this.#parents.delete(em)
    else this.#parents.set(em, transaction)
  }

  /** `afterTransactionStart`. */
  started ({ em, transaction }: TransactionEventArgs): void {
    const parent = this.#parents.get(em)
    const log = parent === undefined ? new ChangeLog() : this.#logs.get(parent)
    // a savepoint in a transaction of which nothing is known
    if (log === undefined) return

    if (transaction?.savepointName !== undefined) log.mark(transaction.savepointName)
    this.#logs.set(transaction, log)
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

  /** The log of an outermost transaction, unless it is empty. */
  pending (transaction: Transaction | undefined): ChangeLog | undefined {
    const log = this.#logs.get(transaction)
    return log?.isEmpty === false && transaction?.savepointName === undefined ? log : undefined
  }

  /** `afterTransactionCommit`: gives the log if all of it is committed now. */
  committed (transaction: Transaction | undefined): ChangeLog | undefined {
    const log = this.#logs.get(transaction)
    this.#logs.delete(transaction)
    if (transaction?.savepointName === undefined) return log
    log?.release(transaction.savepointName)
  }

  /** Takes back what was changed since a savepoint, or in all of an outermost transaction. @param undone told what will not be sent */
  rolledBack (transaction: Transaction | undefined, undone?: (frames: Frame[]) => void): HeldBelief[] {
    const log = this.#logs.get(transaction)
    this.#logs.delete(transaction)
    if (log === undefined) return []

    const before = undone === undefined ? [] : log.frames()
    const beliefs = log.rollback(transaction?.savepointName)
    if (undone !== undefined) {
      const after = new Set(log.frames())
      undone(before.filter((frame) => !after.has(frame)))
    }
    return beliefs
  }
}
