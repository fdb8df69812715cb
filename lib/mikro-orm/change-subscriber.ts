/** Listens to the ORM: what is flushed goes into the log of its transaction, and out to the groups when that commits. */
import {
  ChangeSetType,
  wrap,
  type ChangeSet,
  type EntityManager,
  type EventArgs,
  type EventSubscriber,
  type FlushEventArgs,
  type MikroORM,
  type Transaction,
  type TransactionEventArgs,
  type UnitOfWork
} from '@mikro-orm/core'
import { errors } from '../errors.ts'
import type { NotifiedGroups } from '../protocol/group-name.ts'
import { Announcer } from './announce/announcer.ts'
import { ChangeLog, ChangeOrigin, type RowChange, type Sink } from './capture/change-log.ts'
import { Changes } from './capture/row-changes.ts'
import { changedCollections } from './capture/collections.ts'
import { replaceCommit, type CommitResult } from './capture/commit.ts'
import { areDropsObserved, makeReport, makeSafe, tellFailure, type Log } from './announce/drops.ts'
import { Flushes } from './capture/flush.ts'
import type { PublishTarget } from './announce/publish.ts'
import type { Wanted } from './capture/read-back.ts'
import { compileRules, type NotifiedEntity } from './declare/entity-registry.ts'
import { originalData, type Row } from './row.ts'
import { checkRules, type NotifyRule } from './declare/rules.ts'
import { isSilent } from './capture/silence.ts'
import { Transactions } from './capture/transactions.ts'

/** What a subscriber works for while it is connected. */
export interface Connection extends PublishTarget {
  orm: MikroORM
  /** Rules beside the subscriber's own. */
  notify?: readonly NotifyRule[]
  /** Takes the groups that templates name. */
  notified?: (groups: NotifiedGroups) => void
}

/** What a connected subscriber has at hand. */
interface Active {
  readonly orm: MikroORM
  readonly log: Log
  /** The entities whose changes are announced, by class. */
  readonly notifiedEntity: Map<unknown, NotifiedEntity>
  readonly announcer: Announcer
}

/** The change sets whose rows are there before the flush. */
const EXISTING: readonly string[] = [ChangeSetType.UPDATE, ChangeSetType.UPDATE_EARLY, ChangeSetType.DELETE, ChangeSetType.DELETE_EARLY]

/**
 * Announces the changes of entities when they are committed. Give it to `MikroORM.init({ subscribers })` and to `rohrpostMikroOrm`, which
 * connects it.
 */
export class ChangeSubscriber implements EventSubscriber {
  readonly #rules: readonly NotifyRule[]
  #active: Active | undefined
  readonly #transactions = new Transactions()
  readonly #changes = new Changes()
  readonly #flushes = new Flushes({
    notifiedEntity: (entity) => this.#announced(entity),
    write: (written, em, sink) => this.#observe(written.changeSet.entity, em, () => this.#changes.written(written, em), sink)
  })

  /** Rows before deletes that are under way. */
  readonly #deleting = new WeakMap<object, Row>()
  /** What was read before upserts without a transaction. */
  readonly #upserting = new WeakMap<EntityManager, ChangeLog>()
  /** M:N collections that a flush is about to change: nothing is under way yet when the ORM tells. */
  readonly #collections = new WeakMap<EntityManager, Map<object, Set<string>>>()

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
    const { orm, publish, notified } = connection
    const log = makeSafe(connection.log)
    const notifiedEntity = compileRules(rules, orm.getMetadata(), makeReport(log), () => areDropsObserved(log))
    for (const { groups } of [...notifiedEntity.values()].flatMap(({ rules }) => rules)) {
      if (groups !== undefined) notified?.(groups)
    }
    this.#active = { orm, log, notifiedEntity, announcer: new Announcer(orm, { publish, log }) }
    orm.em.getEventManager().registerSubscriber(this)
  }

  /** Resolves when no transaction is running, and all that was committed is handed over. */
  async idle (): Promise<void> {
    await this.#transactions.idle()
    await this.#active?.announcer.idle()
  }

  /** Ends announcing. An ORM has no way to let go of a subscriber, so this one stays and is silent. */
  async disconnect (): Promise<void> {
    const { announcer } = this.#active ?? {}
    this.#active = undefined
    await announcer?.close()
  }

  /**
   * Announces changes by hand: when the transaction of an `EntityManager` commits, or else now. Entities without rules are left out.
   *
   * @throws Error where the transaction is not known; what reading the rows rejects with
   */
  async announce (changes: readonly RowChange[], em: EntityManager, log = this.#transactions.logOf(em.getTransactionContext())): Promise<void> {
    for (const change of changes) {
      const notifiedEntity = this.#active?.notifiedEntity.get((change.before ?? change.after)?.meta.class)
      if (notifiedEntity !== undefined) log.record(change, notifiedEntity)
    }
    if (!em.isInTransaction() && !log.isEmpty) await this.#active?.announcer.announce(em, log)
  }

  beforeTransactionStart (args: TransactionEventArgs): void {
    this.#transactions.starting(args)
  }

  async afterTransactionStart (args: TransactionEventArgs): Promise<void> {
    if (this.#active === undefined) return

    const { em, uow, transaction } = args
    const log = this.#transactions.started(args)
    if (log !== undefined) {
      replaceCommit(em, transaction as Transaction, (plain, send) => this.#commit(em, transaction as Transaction, log, plain, send))
    }
    const running = this.#transactions.running(transaction)
    this.#flushes.join(em, running)
    if (running !== undefined && uow !== undefined) await this.#readBefore(em, uow, running, transaction as Transaction)
  }

  beforeTransactionCommit ({ em }: TransactionEventArgs): void {
    this.#recordCollections(em)
  }

  afterTransactionCommit ({ transaction }: TransactionEventArgs): void {
    if (transaction?.savepointName !== undefined) this.#transactions.released(transaction)
  }

  beforeTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // there is no event after it where the ROLLBACK itself fails
    if (transaction !== undefined && transaction.savepointName === undefined) this.#rolledBack(transaction)
  }

  afterTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // only now: where ROLLBACK TO fails, the rows of the savepoint may stay
    if (transaction?.savepointName !== undefined) this.#rolledBack(transaction)
  }

  async onFlush ({ em, uow }: FlushEventArgs): Promise<void> {
    if (this.#active === undefined) return

    const transaction = em.getTransactionContext<Transaction>()
    const log = this.#transactions.running(transaction)
    this.#collections.set(em, changedCollections(uow, (entity) => this.#announced(entity)))
    this.#flushes.begin(em, uow, log)
    if (log !== undefined) await this.#readBefore(em, uow, log, transaction as Transaction)
  }

  afterFlush ({ em }: FlushEventArgs): void {
    this.#flushes.complete(em)
    this.#recordCollections(em)
  }

  async beforeUpsert ({ entity, meta, em }: EventArgs<object>): Promise<void> {
    const notifiedEntity = this.#active?.notifiedEntity.get(meta.class)
    const key = meta.primaryKeys.map((name) => (entity as Record<string, unknown>)[name])
    if (notifiedEntity === undefined || !notifiedEntity.rules.some(({ needsRowBefore }) => needsRowBefore) || key.includes(undefined) || isSilent()) return

    const transaction = em.getTransactionContext<Transaction>()
    const log = transaction === undefined ? this.#upserting.get(em) ?? new ChangeLog() : this.#transactions.running(transaction)
    const row = this.#changes.before(em.fork().getReference(meta.class, key as never), em)
    if (transaction === undefined && log !== undefined) this.#upserting.set(em, log)
    if (log !== undefined) await this.#active?.announcer.readBefore(em, transaction, log, [{ id: row.id, row, notifiedEntity }])
  }

  async afterUpsert ({ entity, em }: EventArgs<object>): Promise<void> {
    if (this.#announced(entity) === undefined) return
    const changes = () => [this.#changes.touched(entity, em, undefined, ChangeOrigin.Upsert)]
    if (em.isInTransaction()) return this.#observe(entity, em, changes)

    // the row is committed
    try {
      await this.announce(changes(), em, new ChangeLog(this.#upserting.get(em)?.before))
    } catch (error) {
      this.#fail(entity, error)
    }
    this.#upserting.get(em)?.before.delete(this.#changes.before(entity, em).id)
  }

  beforeDelete ({ entity, em }: EventArgs<object>): void {
    if (this.#announced(entity) !== undefined) this.#deleting.set(entity, this.#changes.before(entity, em))
  }

  afterDelete ({ entity, em }: EventArgs<object>): void {
    const before = this.#deleting.get(entity)
    this.#deleting.delete(entity)
    if (before !== undefined) this.#observe(entity, em, () => [{ type: 'delete', before, after: undefined, fields: [] }])
  }

  /** The rules for an entity whose changes are to be announced now. */
  #announced (entity: object): NotifiedEntity | undefined {
    return isSilent() ? undefined : this.#notifiedEntity(entity)
  }

  #notifiedEntity (entity: object): NotifiedEntity | undefined {
    return this.#active?.notifiedEntity.get(wrap(entity, true).__meta.class)
  }

  async #commit (em: EntityManager, transaction: Transaction, log: ChangeLog, plain: () => Promise<void>, send: () => Promise<CommitResult>): Promise<void> {
    const ended = () => this.#transactions.ended(transaction)
    if (log.failure !== undefined) throw log.failure.error
    if (this.#active !== undefined && !log.isEmpty) return this.#active.announcer.commit(em, transaction, log, send, ended)

    // what has nothing to announce is none of our business
    await plain()
    ended()
  }

  /** Reads rows before a flush changes them, where their committed version can't be read at the COMMIT. */
  async #readBefore (em: EntityManager, uow: UnitOfWork, log: ChangeLog, transaction: Transaction): Promise<void> {
    const rows = [...uow.getChangeSets().flatMap((changeSet) => this.#rowBefore(changeSet, em)), ...this.#ownersBefore(em)]
    try {
      await this.#active?.announcer.readBefore(em, transaction, log, rows)
    } catch (error) {
      // a hook that throws after the start of a transaction keeps it open
      log.failure ??= { error }
    }
  }

  #rowBefore ({ type, entity, meta, payload, originalEntity }: ChangeSet<object>, em: EntityManager): Wanted[] {
    const notifiedEntity = this.#notifiedEntity(entity)
    if (notifiedEntity === undefined || !EXISTING.includes(type)) return []
    const isDeleted = type === ChangeSetType.DELETE || type === ChangeSetType.DELETE_EARLY || meta.primaryKeys.some((name) => name in payload)
    if (isDeleted ? !notifiedEntity.needsDeletedRow : !notifiedEntity.needsRowBefore) return []
    const row = this.#changes.before(entity, em, originalEntity)
    return [{ id: row.id, row, notifiedEntity }]
  }

  #ownersBefore (em: EntityManager): Wanted[] {
    return [...this.#collections.get(em)?.keys() ?? []].flatMap((entity) => {
      const notifiedEntity = this.#notifiedEntity(entity)
      if (notifiedEntity?.needsRowBefore !== true || originalData(entity) === undefined) return []
      const row = this.#changes.before(entity, em)
      return [{ id: row.id, row, notifiedEntity }]
    })
  }

  /** The changed collections of a flush: before the COMMIT where the flush makes one, else after all of its statements. */
  #recordCollections (em: EntityManager): void {
    const changes = this.#collections.get(em)
    this.#collections.delete(em)
    for (const [entity, fields] of changes ?? []) {
      if (wrap(entity, true).__managed) this.#observe(entity, em, () => [this.#changes.touched(entity, em, [...fields], ChangeOrigin.Collection)])
    }
  }

  /** Gives changes of an entity to a sink, or else to the log of the transaction; without one they are sent at once. Never throws. */
  #observe (entity: object, em: EntityManager, changes: () => RowChange[], sink?: Sink): void {
    const notifiedEntity = this.#notifiedEntity(entity)
    if (notifiedEntity === undefined) return

    try {
      if (sink !== undefined) {
        for (const change of changes()) sink.add(change, notifiedEntity)
        return
      }
      const transaction = em.getTransactionContext<Transaction>()
      const log = this.#transactions.logOf(transaction)
      for (const change of changes()) log.record(change, notifiedEntity)
      if (transaction === undefined) this.#active?.announcer.announceUnread(log.entries())
    } catch (error) {
      this.#fail(entity, error)
    }
  }

  #fail (entity: object, error: unknown): void {
    const wrapped = wrap(entity, true)
    tellFailure(this.#active?.log, error, { entity: wrapped.__meta.className, key: wrapped.getSerializedPrimaryKey() })
  }

  #rolledBack (transaction: Transaction): void {
    const undone = this.#transactions.rolledBack(transaction, areDropsObserved(this.#active?.log))
    this.#active?.announcer.tellRolledBack(undone)
  }
}
