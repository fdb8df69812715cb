/** Listens to the ORM: what is flushed goes into the log of its transaction, and out to the groups when that commits. */
import {
  wrap,
  type EntityManager,
  type EventArgs,
  type EventSubscriber,
  type FlushEventArgs,
  type MikroORM,
  type Transaction,
  type TransactionEventArgs
} from '@mikro-orm/core'
import { errors } from '../errors.ts'
import type { NotifiedGroups } from '../protocol/group-name.ts'
import { Beliefs } from './beliefs.ts'
import type { Belief, Change, ChangeLog, HeldBelief, Sink } from './change-log.ts'
import { changedCollections, type CollectionChange } from './collections.ts'
import { isWatched, makeReport, tellFailure, tellRolledBack } from './drops.ts'
import { Flushes } from './flush.ts'
import { handOver, type Outlet } from './hand-over.ts'
import { isAlive } from './probe.ts'
import { compileRules, type Watched } from './registry.ts'
import { heldBy, type Held, type Row } from './row.ts'
import { checkRules, type ChangeType, type NotifyRule } from './rules.ts'
import { Transactions } from './transactions.ts'

/** What a subscriber works for while it is connected. */
export interface Connection extends Outlet {
  orm: MikroORM
  /** Rules beside the subscriber's own. */
  notify?: readonly NotifyRule[]
  /** Whether to ask the database before a COMMIT if it still has the transaction; `true` by default. */
  probe?: boolean
  /** Takes the groups that templates name. */
  notified?: (groups: NotifiedGroups) => void
}

/** What a connected subscriber has at hand. */
interface Active extends Connection {
  /** By class. */
  watched: Map<unknown, Watched>
}

/**
 * Announces the changes of entities when they are committed. Give it to `MikroORM.init({ subscribers })` as the first one, so that no other
 * can keep it from hearing a commit, and to `rohrpostMikroOrm`, which connects it.
 */
export class ChangeSubscriber implements EventSubscriber {
  readonly #rules: readonly NotifyRule[]
  #active: Active | undefined
  readonly #transactions = new Transactions()
  readonly #beliefs = new Beliefs()
  readonly #flushes = new Flushes({
    watched: (entity) => this.#watched(entity),
    write: (written, em, sink) => this.#observe(written.changeSet.entity, em, () => this.#beliefs.written(written, em), sink)
  })

  /** Rows as they were before deletes that are under way. */
  readonly #deleting = new WeakMap<object, { before: Row, belief: Belief }>()
  /** M:N collections that a flush is about to change: nothing is under way yet when the ORM tells. */
  readonly #collections = new WeakMap<EntityManager, Map<object, CollectionChange>>()

  /** @throws RP_ERR_INVALID_OPTION */
  constructor ({ notify = [] }: { notify?: readonly NotifyRule[] } = {}) {
    this.#rules = checkRules(notify)
  }

  /** Whether the subscriber announces changes now. */
  get isConnected (): boolean {
    return this.#active !== undefined
  }

  /**
   * Begins to announce. Transactions that run already are not covered.
   *
   * @throws RP_ERR_ORM_ALREADY_REGISTERED where it announces changes of another ORM, RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
   */
  connect (connection: Connection): void {
    if (this.#active !== undefined) throw new errors.RP_ERR_ORM_ALREADY_REGISTERED(this.#active.orm.config.get('contextName'))

    const rules = [...this.#rules, ...connection.notify ?? []]
    const { orm, log, notified } = connection
    const watched = compileRules(rules, orm.getMetadata(), makeReport(log), () => isWatched(log))
    for (const { groups } of [...watched.values()].flatMap(({ notifiers }) => notifiers)) {
      if (groups !== undefined) notified?.(groups)
    }
    this.#active = { ...connection, watched }
    orm.em.getEventManager().registerSubscriber(this)
  }

  /** Ends announcing. An ORM has no way to let go of a subscriber, so this one stays and is silent. */
  disconnect (): void {
    this.#active = undefined
  }

  /** Announces an entity as it is now, whatever the ORM knows of it. Outside of a transaction it is sent at once. */
  announce (entity: object, em: EntityManager, type: ChangeType, fields: readonly string[] | undefined): void {
    this.#observe(entity, em, () => {
      const row = this.#beliefs.inMemory(entity, em)
      return [{ type, before: type === 'create' ? undefined : row, after: type === 'delete' ? undefined : row, fields }]
    })
  }

  beforeTransactionStart (args: TransactionEventArgs): void {
    this.#transactions.starting(args)
  }

  afterTransactionStart (args: TransactionEventArgs): void {
    if (this.#active === undefined) return

    this.#transactions.started(args)
    this.#flushes.join(args.em, this.#transactions.running(args.transaction))
  }

  async beforeTransactionCommit ({ em, transaction }: TransactionEventArgs): Promise<void> {
    this.#recordCollections(em)
    if (this.#transactions.pending(transaction) === undefined || this.#active?.probe === false) return
    if (await isAlive(em, transaction)) return

    this.#beliefs.undo(this.#rolledBack(transaction), true)
    this.#active?.log.warn({}, 'the database had rolled back a transaction before its commit: its changes are not announced')
  }

  afterTransactionCommit ({ transaction }: TransactionEventArgs): void {
    this.#publish(this.#transactions.committed(transaction))
  }

  beforeTransactionRollback ({ transaction }: TransactionEventArgs): void {
    if (transaction?.savepointName !== undefined) return

    // the COMMIT went well, and a subscriber before this one threw when it heard of it
    if (transaction?.isCommitted === true) this.#publish(this.#transactions.committed(transaction))
    // there is no event after it where the ROLLBACK itself fails
    else this.#beliefs.undo(this.#rolledBack(transaction), true)
  }

  afterTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // only now: where ROLLBACK TO fails, the rows of the savepoint may stay
    if (transaction?.savepointName !== undefined) this.#beliefs.undo(this.#rolledBack(transaction), false)
  }

  onFlush ({ em, uow }: FlushEventArgs): void {
    if (this.#active === undefined) return

    this.#collections.set(em, changedCollections(uow, (entity) => this.#watched(entity)))
    this.#flushes.begin(em, uow, this.#transactions.running(em.getTransactionContext()))
  }

  afterFlush ({ em }: FlushEventArgs): void {
    this.#flushes.complete(em)
    this.#recordCollections(em)
  }

  afterUpsert ({ entity, em }: EventArgs<object>): void {
    this.#observe(entity, em, () => this.#touch(entity, em, undefined))
  }

  beforeDelete ({ entity, em }: EventArgs<object>): void {
    const watched = this.#watched(entity)
    if (watched === undefined) return

    const before = this.#beliefs.current(entity, em, heldBy(entity, watched.held))
    this.#deleting.set(entity, { before, belief: this.#beliefs.deleting(entity) })
  }

  afterDelete ({ entity, em }: EventArgs<object>): void {
    const deleting = this.#deleting.get(entity)
    this.#deleting.delete(entity)
    if (deleting !== undefined) this.#observe(entity, em, () => [{ type: 'delete', after: undefined, fields: [], ...deleting }])
  }

  #watched (entity: object): Watched | undefined {
    return this.#active?.watched.get(wrap(entity, true).__meta.class)
  }

  /** The changed collections of a flush: before the COMMIT where the flush makes one, else after all of its statements. */
  #recordCollections (em: EntityManager): void {
    const changes = this.#collections.get(em)
    this.#collections.delete(em)
    for (const [entity, { fields, held }] of changes ?? []) {
      if (wrap(entity, true).__managed) this.#observe(entity, em, () => this.#touch(entity, em, [...fields], held))
    }
  }

  /** An update that leaves the columns of the row as they are, or of which no more is known. */
  #touch (entity: object, em: EntityManager, fields: readonly string[] | undefined, held?: Held): Change[] {
    const after = this.#beliefs.current(entity, em)
    const before = held === undefined ? after : this.#beliefs.current(entity, em, held)
    return [{ type: 'update', before, after, fields }]
  }

  /** Gives changes of an entity to whom asked for them, else to the log of the transaction; sends them at once where there is none. Never throws. */
  #observe (entity: object, em: EntityManager, changes: () => Change[], sink?: Sink): void {
    const watched = this.#watched(entity)
    if (watched === undefined) return

    try {
      if (sink !== undefined) {
        for (const change of changes()) sink.add(change, watched.notifiers)
        return
      }
      const transaction = em.getTransactionContext<Transaction>()
      const log = this.#transactions.logOf(transaction)
      for (const change of changes()) log.record(change, watched.notifiers)
      if (transaction === undefined) this.#publish(log)
    } catch (err) {
      const wrapped = wrap(entity, true)
      tellFailure(this.#active?.log, err, { entity: wrapped.__meta.className, key: wrapped.getSerializedPrimaryKey() })
    }
  }

  #publish (log: ChangeLog | undefined): void {
    const active = this.#active
    if (log === undefined || active === undefined) return

    const isForwarded = log.forward({
      add (change, announcers) {
        for (const announcer of announcers) handOver(announcer.frames(change), active)
      }
    })
    if (!isForwarded) handOver(log.frames(), active)
  }

  /** Takes changes back, and tells of them. */
  #rolledBack (transaction: Transaction | undefined): HeldBelief[] {
    const log = this.#active?.log
    return this.#transactions.rolledBack(transaction, isWatched(log) ? (undone) => tellRolledBack(log, undone) : undefined)
  }
}
