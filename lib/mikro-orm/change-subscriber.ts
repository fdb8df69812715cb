/**
 * The MikroORM event subscriber: records events with capture/, and passes the change log to announce/ at the COMMIT.
 */
import {
  wrap, type EntityManager, type EventArgs, type EventSubscriber, type FlushEventArgs,
  type MikroORM, type Transaction, type TransactionEventArgs, type UnitOfWork
} from '@mikro-orm/core'
import { errors } from '../errors.ts'
import type { NotifiedGroups } from '../protocol/group-name.ts'
import { Announcer } from './announce/announcer.ts'
import { areDropsObserved, makeErrorReporter, makeSafeLogger, reportFailure, type Logger } from './announce/drops.ts'
import type { PublishTarget } from './announce/publish.ts'
import { ChangeLog, ChangeOrigin, type ManualChange, type RowChange, type SentMessage } from './capture/change-log.ts'
import { changedCollections } from './capture/collections.ts'
import { replaceCommit } from './capture/commit.ts'
import { Flush } from './capture/flush.ts'
import { deleted, RowChangeBuilder } from './capture/row-changes.ts'
import { rowBeforeUpsert, rowsBeforeFlush } from './capture/rows-before.ts'
import { RunningFlushes } from './capture/running-flushes.ts'
import { isSilent } from './capture/silence.ts'
import { Transactions, type RunningTransaction } from './capture/transactions.ts'
import { compileRules, type NotifiedEntity } from './declare/entity-registry.ts'
import { checkRules, type NotifyRule } from './declare/rules.ts'
import type { Row } from './row.ts'

/** Options of `connect()`. */
export interface ConnectOptions extends PublishTarget {
  orm: MikroORM
  /** Rules in addition to those of the subscriber. */
  notify?: readonly NotifyRule[]
  /** Called with the groups that each template names. */
  notified?: (groups: NotifiedGroups) => void
}

/** State of a subscriber between `connect()` and `disconnect()`. */
interface ConnectedState {
  readonly orm: MikroORM
  readonly log: Logger
  /** Entities with rules, by class. */
  readonly entities: ReadonlyMap<unknown, NotifiedEntity>
  readonly announcer: Announcer
}

/**
 * Publishes the changes of entities when they are committed. Pass it to `MikroORM.init({ subscribers })` and to
 * `rohrpostMikroOrm`, which connects it.
 */
export class ChangeSubscriber implements EventSubscriber {
  readonly #rules: readonly NotifyRule[]
  #connected: ConnectedState | undefined
  readonly #builder = new RowChangeBuilder()
  readonly #transactions = new Transactions()
  readonly #flushes = new RunningFlushes(
    (em, uow) => new Flush(em, uow, this.#builder, this.#notifiedEntityOf),
    (change, em) => this.#record(change, em)
  )

  /** Rows of entities between `beforeDelete` and `afterDelete`. */
  readonly #deleting = new WeakMap<object, Row>()
  /** Rows that were read before an upsert without a transaction. */
  readonly #upserting = new WeakMap<EntityManager, ChangeLog>()
  /** Changed M:N collections, by the EntityManager whose flush executes them later. */
  readonly #collections = new WeakMap<EntityManager, Map<object, Set<string>>>()

  /** @throws RP_ERR_INVALID_OPTION */
  constructor ({ notify = [] }: { notify?: readonly NotifyRule[] } = {}) {
    this.#rules = checkRules(notify)
  }

  /** Whether the subscriber publishes changes now. */
  get isConnected (): boolean {
    return this.#connected !== undefined
  }

  /**
   * Starts publishing. Transactions that are running already are not covered.
   *
   * @throws RP_ERR_ORM_ALREADY_REGISTERED if it is connected to an ORM, RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE,
   * RP_ERR_UNKNOWN_PROPERTY
   */
  connect (options: ConnectOptions): void {
    if (this.#connected !== undefined) {
      throw new errors.RP_ERR_ORM_ALREADY_REGISTERED(this.#connected.orm.config.get('contextName'))
    }

    const rules = [...this.#rules, ...options.notify ?? []]
    const { orm, publish, usesStamps = false, transactionLog, outbox, notified } = options
    const log = makeSafeLogger(options.log)
    const entities = compileRules(rules, orm.getMetadata(), makeErrorReporter(log), () => areDropsObserved(log))
    for (const { groups } of [...entities.values()].flatMap(({ rules }) => rules)) {
      if (groups !== undefined) notified?.(groups)
    }
    const announcer = new Announcer(orm, { publish, usesStamps, transactionLog, outbox, log })
    this.#connected = { orm, log, entities, announcer }
    orm.em.getEventManager().registerSubscriber(this)
  }

  /** Number of commits whose notifications are not yet all with the broker. */
  get publishing (): number {
    return this.#connected?.announcer.publishing ?? 0
  }

  /** Resolves when no transaction is running and the notifications of all commits are with the broker. */
  async idle (): Promise<void> {
    await this.#transactions.idle()
    await this.#connected?.announcer.idle()
  }

  /** Stops publishing. MikroORM cannot remove a subscriber, so this one stays registered and ignores all events. */
  async disconnect (): Promise<void> {
    const { announcer } = this.#connected ?? {}
    this.#connected = undefined
    await announcer?.close()
  }

  /**
   * Publishes changes that no event reports: when the transaction of `em` commits, or at once without a transaction.
   * Entities without rules are left out.
   *
   * @throws Error if the transaction is not known; the error of the database if reading the rows fails
   */
  async announce (changes: readonly ManualChange[], em: EntityManager): Promise<void> {
    const transaction = em.getTransactionContext<Transaction>()
    const running = transaction === undefined ? undefined : this.#transactions.get(transaction)
    const log = new ChangeLog()
    const add = (change: RowChange) => running === undefined ? log.append(change) : running.record(change)
    for (const change of changes) {
      const row = (change.before ?? change.after) as Row
      const notifiedEntity = this.#connected?.entities.get(row.meta.class)
      if (notifiedEntity !== undefined) add({ ...change, id: row.id, notifiedEntity })
    }
    if (!log.isEmpty) await this.#connected?.announcer.announce(em, log)
  }

  /**
   * Sends a message when the transaction of `em` commits, in order with its changes. Returns `false` without one.
   *
   * @throws RP_ERR_NOT_PUBLISHED; Error if the transaction is not known
   */
  send (message: SentMessage, em: EntityManager): boolean {
    const transaction = em.getTransactionContext<Transaction>()
    if (transaction === undefined) return false
    if (this.#connected === undefined) throw new errors.RP_ERR_NOT_PUBLISHED('the app is closed')
    this.#connected.announcer.check(message)
    this.#transactions.get(transaction).send(message)
    return true
  }

  beforeTransactionStart (args: TransactionEventArgs): void {
    this.#transactions.starting(args)
  }

  async afterTransactionStart (args: TransactionEventArgs): Promise<void> {
    if (this.#connected === undefined) return
    const { em, uow } = args
    const transaction = args.transaction as Transaction
    const outermost = this.#transactions.started(args)
    if (outermost !== undefined) {
      replaceCommit(transaction, (commit) => this.#commit(em, transaction, outermost, commit))
    }
    const running = this.#transactions.find(transaction)
    this.#flushes.join(em, running)
    if (running !== undefined && uow !== undefined) await this.#readRowsBefore(em, uow, running, transaction)
  }

  beforeTransactionCommit ({ em }: TransactionEventArgs): void {
    this.#recordCollections(em)
  }

  afterTransactionCommit ({ transaction }: TransactionEventArgs): void {
    if (transaction?.savepointName !== undefined) this.#transactions.released(transaction)
  }

  beforeTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // MikroORM sends no later event if the ROLLBACK itself fails
    if (transaction !== undefined && transaction.savepointName === undefined) this.#rolledBack(transaction)
  }

  afterTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // if ROLLBACK TO SAVEPOINT fails, the rows of the savepoint may stay
    if (transaction?.savepointName !== undefined) this.#rolledBack(transaction)
  }

  async onFlush ({ em, uow }: FlushEventArgs): Promise<void> {
    if (this.#connected === undefined) return
    const transaction = em.getTransactionContext<Transaction>()
    const running = this.#transactions.find(transaction)
    this.#collections.set(em, changedCollections(uow, this.#notifiedEntityOf))
    this.#flushes.begin(em, uow, running)
    if (running !== undefined) await this.#readRowsBefore(em, uow, running, transaction as Transaction)
  }

  afterFlush ({ em }: FlushEventArgs): void {
    this.#flushes.complete(em)
    this.#recordCollections(em)
  }

  async beforeUpsert ({ entity, meta, em }: EventArgs<object>): Promise<void> {
    const notifiedEntity = this.#connected?.entities.get(meta.class)
    if (notifiedEntity === undefined || isSilent()) return
    const requested = rowBeforeUpsert(entity as Record<string, unknown>, em, this.#builder, notifiedEntity)
    if (requested === undefined) return

    const transaction = em.getTransactionContext<Transaction>()
    const running = this.#transactions.find(transaction)
    const log = transaction === undefined ? this.#upserting.get(em) ?? new ChangeLog() : running?.log
    if (transaction === undefined && log !== undefined) this.#upserting.set(em, log)
    if (log !== undefined) await this.#connected?.announcer.readBefore(em, transaction, log, [requested])
  }

  async afterUpsert ({ entity, em }: EventArgs<object>): Promise<void> {
    const notifiedEntity = isSilent() ? undefined : this.#notifiedEntityOf(entity)
    if (notifiedEntity === undefined) return
    const change = this.#builder.touched(entity, em, notifiedEntity, ChangeOrigin.Upsert)
    if (em.isInTransaction()) return this.#record(change, em)

    // the row is committed already
    const before = this.#upserting.get(em)?.before
    const log = new ChangeLog(before)
    log.append(change)
    try {
      await this.#connected?.announcer.announce(em, log)
    } catch (error) {
      this.#fail(change, error)
    }
    before?.delete(change.id)
  }

  beforeDelete ({ entity, em }: EventArgs<object>): void {
    if (isSilent() || this.#notifiedEntityOf(entity) === undefined) return
    this.#deleting.set(entity, this.#builder.rowBefore(entity, em))
  }

  afterDelete ({ entity, em }: EventArgs<object>): void {
    const before = this.#deleting.get(entity)
    this.#deleting.delete(entity)
    const notifiedEntity = this.#notifiedEntityOf(entity)
    if (before !== undefined && notifiedEntity !== undefined) this.#record(deleted(before, notifiedEntity), em)
  }

  readonly #notifiedEntityOf = (entity: object): NotifiedEntity | undefined => {
    return this.#connected?.entities.get(wrap(entity, true).__meta.class)
  }

  async #commit (em: EntityManager, transaction: Transaction, running: RunningTransaction, send: () => Promise<void>) {
    const ended = () => this.#transactions.ended(transaction)
    const { announcer } = this.#connected ?? {}
    if (running.failure !== undefined) throw running.failure.error
    if (announcer !== undefined && !running.isEmpty) {
      return running.commit(send, (log, commit) => announcer.commit(em, transaction, log, commit, ended))
    }
    // without changes to publish, the COMMIT is sent as without the plugin
    await send()
    ended()
  }

  async #readRowsBefore (em: EntityManager, uow: UnitOfWork, running: RunningTransaction, transaction: Transaction) {
    const owners = this.#collections.get(em)?.keys() ?? []
    const rows = rowsBeforeFlush(uow, owners, em, this.#builder, this.#notifiedEntityOf)
    try {
      await this.#connected?.announcer.readBefore(em, transaction, running.log, rows)
    } catch (error) {
      // MikroORM never closes a transaction whose `afterTransactionStart` throws
      running.failure ??= { error }
    }
  }

  /** Records changed M:N collections: before the COMMIT of the flush's own transaction, or after the flush. */
  #recordCollections (em: EntityManager): void {
    const changed = this.#collections.get(em)
    this.#collections.delete(em)
    for (const [entity, fields] of changed ?? []) {
      const notifiedEntity = this.#notifiedEntityOf(entity)
      if (notifiedEntity !== undefined && wrap(entity, true).__managed) {
        this.#record(this.#builder.touched(entity, em, notifiedEntity, ChangeOrigin.Collection, [...fields]), em)
      }
    }
  }

  /** Appends a change to the log of its transaction, or publishes it at once without a transaction. Never throws. */
  #record (change: RowChange, em: EntityManager): void {
    try {
      const transaction = em.getTransactionContext<Transaction>()
      if (transaction === undefined) this.#connected?.announcer.announceUnread([change])
      else this.#transactions.get(transaction).record(change)
    } catch (error) {
      this.#fail(change, error)
    }
  }

  #fail ({ before, after }: RowChange, error: unknown): void {
    const { meta, key } = (before ?? after) as Row
    reportFailure(this.#connected?.log, error, { entity: meta.className, key })
  }

  #rolledBack (transaction: Transaction): void {
    const undone = this.#transactions.rolledBack(transaction, areDropsObserved(this.#connected?.log))
    this.#connected?.announcer.reportRolledBack(undone)
  }
}
