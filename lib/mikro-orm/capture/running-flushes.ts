/** The running flushes, by the EntityManager that makes them, and the transaction that each of them is part of. */
import type { ChangeSet, EntityManager, EventArgs, EventSubscriber, UnitOfWork } from '@mikro-orm/core'
import type { RowChange } from './change-log.ts'
import type { Flush } from './flush.ts'
import type { RunningTransaction } from './transactions.ts'

interface RunningFlush {
  readonly flush: Flush
  transaction: RunningTransaction | undefined
}

/** Lets the change log of a transaction read from the flushes in it. */
export class RunningFlushes {
  readonly #makeFlush: (em: EntityManager, uow: UnitOfWork) => Flush
  readonly #record: (change: RowChange, em: EntityManager) => void
  readonly #running = new WeakMap<EntityManager, RunningFlush>()
  /**
   * Events of single rows, used without transactions only: there, a flush that fails keeps its rows, and no event
   * follows.
   */
  readonly #untransacted: EventSubscriber = {
    afterCreate: (args) => this.#executed(args),
    afterUpdate: (args) => this.#executed(args)
  }

  /** @param record takes the changes of a flush that is in no known transaction; must not throw */
  constructor (
    makeFlush: (em: EntityManager, uow: UnitOfWork) => Flush,
    record: (change: RowChange, em: EntityManager) => void
  ) {
    this.#makeFlush = makeFlush
    this.#record = record
  }

  /** `onFlush`. @param transaction the transaction around the flush */
  begin (em: EntityManager, uow: UnitOfWork, transaction: RunningTransaction | undefined): void {
    // a flush that failed has no `afterFlush`
    this.#end(em)
    this.#running.set(em, { flush: this.#makeFlush(em, uow), transaction: undefined })

    const isUntransacted = !em.config.get('implicitTransactions') || !em.getPlatform().supportsTransactions()
    if (em.isInTransaction()) this.join(em, transaction)
    else if (isUntransacted) em.getEventManager().registerSubscriber(this.#untransacted)
  }

  /** `afterTransactionStart`: the transaction may be the implicit one of a flush. */
  join (em: EntityManager, transaction: RunningTransaction | undefined): void {
    const running = this.#running.get(em)
    if (running === undefined || transaction === undefined) return
    running.transaction = transaction
    transaction.join(running.flush)
  }

  /** `afterFlush`. */
  complete (em: EntityManager): void {
    this.#running.get(em)?.flush.collect()
    this.#end(em)
    this.#running.delete(em)
  }

  #end (em: EntityManager): void {
    const running = this.#running.get(em)
    if (running?.transaction !== undefined) running.transaction.leave(running.flush)
    else if (running !== undefined) this.#recordAll(running.flush, em)
  }

  #executed ({ em, changeSet }: EventArgs<object>): void {
    const flush = this.#running.get(em)?.flush
    if (!em.isInTransaction() && flush?.isPending(changeSet as ChangeSet<object>) === true) this.#recordAll(flush, em)
  }

  #recordAll (flush: Flush, em: EntityManager): void {
    for (const change of flush.changes(false)) this.#record(change, em)
  }
}
