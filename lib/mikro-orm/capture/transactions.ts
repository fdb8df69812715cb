/** The running transactions of an ORM. Savepoints share the change log of the outermost transaction. */
import type { EntityManager, Transaction, TransactionEventArgs } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { ChangeLog, type LogEntry, type RowChange, type SentMessage } from './change-log.ts'
import type { Flush } from './flush.ts'

/**
 * An outermost transaction: its change log, and its flushes, whose executed statements are appended when the log is
 * used.
 */
export class RunningTransaction {
  readonly log = new ChangeLog()
  readonly #flushes = new Set<Flush>()
  /** Error that must not be followed by a COMMIT, which rejects with it. */
  failure: { readonly error: unknown } | undefined
  /** Whether the COMMIT is in progress, which takes no further messages. */
  #isCommitting = false

  /** Whether there is nothing to publish. */
  get isEmpty (): boolean {
    return this.log.isEmpty && ![...this.#flushes].some(({ hasPending }) => hasPending)
  }

  join (flush: Flush): void {
    flush.collect()
    this.#flushes.add(flush)
  }

  /** Ends a flush, after a last look at its statements. */
  leave (flush: Flush): void {
    this.#appendExecuted(true)
    this.#flushes.delete(flush)
  }

  /** Appends a change behind the changes that the flushes have made so far. */
  record (change: RowChange): void {
    this.#appendExecuted(true)
    this.log.append(change)
  }

  /** Appends a message behind the changes that the flushes have made so far. @throws RP_ERR_NOT_PUBLISHED */
  send (message: SentMessage): void {
    if (this.#isCommitting) throw new errors.RP_ERR_NOT_PUBLISHED('the transaction is being committed')
    this.#appendExecuted(true)
    this.log.send(message)
  }

  mark (savepoint: string): void {
    this.#appendExecuted(true)
    this.log.mark(savepoint)
  }

  /** Rolls back to a savepoint, or all without a name. */
  rollback (savepoint: string | undefined): void {
    this.#appendExecuted(false)
    this.log.cut(savepoint)
  }

  /** Returns the log with the statements of all flushes, which are not between two statements now. */
  complete (): ChangeLog {
    this.#appendExecuted(false)
    return this.log
  }

  /**
   * Commits the transaction, after statements of its own. If one of them fails, no other attempt can commit it.
   *
   * @param announce runs the statements, then `commit`
   */
  async commit (
    commit: () => Promise<void>, announce: (log: ChangeLog, commit: () => Promise<void>) => Promise<void>
  ): Promise<void> {
    let isSent = false
    const send = () => {
      isSent = true
      return commit()
    }
    this.#isCommitting = true
    try {
      await announce(this.complete(), send)
    } catch (error) {
      this.#isCommitting = false
      // messages may be inserted that another attempt would insert again
      if (!isSent) this.failure = { error }
      throw error
    }
  }

  #appendExecuted (isRunning: boolean): void {
    for (const flush of this.#flushes) {
      for (const change of flush.changes(isRunning)) this.log.append(change)
    }
  }
}

/** Finds the outermost transaction of a transaction or savepoint. */
export class Transactions {
  readonly #outermost = new WeakMap<Transaction, RunningTransaction>()
  /** Transactions in which a savepoint is about to begin, by the EntityManager that begins it. */
  readonly #parents = new WeakMap<EntityManager, Transaction>()
  readonly #running = new Set<Transaction>()
  #idle: PromiseWithResolvers<void> | undefined

  /** `beforeTransactionStart`, the only event that has the transaction around a savepoint. */
  starting ({ em, transaction }: TransactionEventArgs): void {
    if (transaction === undefined) this.#parents.delete(em)
    else this.#parents.set(em, transaction)
  }

  /** `afterTransactionStart`. @returns the transaction, if it is an outermost one */
  started ({ em, transaction }: TransactionEventArgs): RunningTransaction | undefined {
    const parent = this.#parents.get(em)
    const running = parent === undefined ? new RunningTransaction() : this.#outermost.get(parent)
    // a savepoint in a transaction that was not begun through an EntityManager
    if (running === undefined) return

    this.#outermost.set(transaction, running)
    if (transaction?.savepointName !== undefined) {
      running.mark(transaction.savepointName)
      return
    }
    this.#running.add(transaction)
    return running
  }

  find (transaction: Transaction | undefined): RunningTransaction | undefined {
    return this.#outermost.get(transaction)
  }

  /** @throws Error for a transaction that was not begun through an EntityManager, or begun before `connect()` */
  get (transaction: Transaction): RunningTransaction {
    const running = this.find(transaction)
    if (running === undefined) {
      throw new Error(
        'The transaction was not begun through the EntityManager, or before the ChangeSubscriber was connected'
      )
    }
    return running
  }

  /** RELEASE SAVEPOINT. */
  released (transaction: Transaction): void {
    this.#outermost.get(transaction)?.log.release(transaction.savepointName)
    this.#outermost.delete(transaction)
  }

  /** Forgets an outermost transaction that is committed or rolled back. */
  ended (transaction: Transaction): void {
    this.#outermost.delete(transaction)
    this.#running.delete(transaction)
    if (this.#running.size === 0) this.#idle?.resolve()
  }

  /**
   * Cuts the changes since a savepoint, or of an outermost transaction, from the change log.
   *
   * @returns what was cut, if wanted
   */
  rolledBack (transaction: Transaction, isWanted: boolean): LogEntry[] {
    const running = this.#outermost.get(transaction)
    this.#outermost.delete(transaction)
    const before = isWanted ? running?.complete().entries() ?? [] : []
    running?.rollback(transaction.savepointName)
    if (transaction.savepointName === undefined) this.ended(transaction)
    const after = new Set(isWanted ? running?.log.entries() : [])
    return before.filter((entry) => !after.has(entry))
  }

  /** Resolves when no transaction is running. */
  async idle (): Promise<void> {
    if (this.#running.size === 0) return
    this.#idle ??= Promise.withResolvers()
    await this.#idle.promise
  }
}
