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
  type TransactionEventArgs
} from '@mikro-orm/core'
import { errors } from '../errors.ts'
import { believed, Beliefs } from './beliefs.ts'
import type { Belief, Change, ChangeLog } from './change-log.ts'
import { changedCollections, type CollectionChange } from './collections.ts'
import { isWatched, makeReport, tellFailure, tellRolledBack } from './drops.ts'
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
  /** What entities hold which the flush under way updates. */
  readonly #updating = new WeakMap<EntityManager, Map<object, Held>>()
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
    const { orm, log } = connection
    this.#active = { ...connection, watched: compileRules(rules, orm.getMetadata(), makeReport(log), () => isWatched(log)) }
    orm.em.getEventManager().registerSubscriber(this)
  }

  /** Ends announcing. An ORM has no way to let go of a subscriber, so this one stays and is silent. */
  disconnect (): void {
    this.#active = undefined
  }

  /** Announces an entity as it is now, whatever the ORM knows of it. Outside of a transaction it is sent at once. */
  announce (entity: object, em: EntityManager, type: ChangeType, fields: ReadonlySet<string> | undefined): void {
    this.#observe(entity, em, () => {
      const row = this.#beliefs.inMemory(entity, em)
      return [{ type, before: type === 'create' ? undefined : row, after: type === 'delete' ? undefined : row, fields }]
    })
  }

  beforeTransactionStart (args: TransactionEventArgs): void {
    this.#transactions.starting(args)
  }

  afterTransactionStart (args: TransactionEventArgs): void {
    if (this.#active !== undefined) this.#transactions.started(args)
  }

  async beforeTransactionCommit ({ em, transaction }: TransactionEventArgs): Promise<void> {
    this.#recordCollections(em)
    if (this.#active?.probe === false || this.#transactions.pending(transaction) === undefined) return
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

    // not when each update begins: with a listener for that the ORM compares the entity once more
    const updating = new Map<object, Held>()
    for (const { type, entity } of uow.getChangeSets()) {
      if (type !== ChangeSetType.UPDATE && type !== ChangeSetType.UPDATE_EARLY) continue
      const held = heldBy(entity, this.#watched(entity)?.held ?? [])
      if (held !== undefined) updating.set(entity, held)
    }
    this.#updating.set(em, updating)
  }

  afterFlush ({ em }: FlushEventArgs): void {
    this.#recordCollections(em)
    this.#updating.delete(em)
  }

  afterCreate ({ entity, em, meta }: EventArgs<object>): void {
    // with a table for each class there is an event for each, and the first is too early where nothing can be taken back
    if (em.getTransactionContext() === undefined && meta !== wrap(entity, true).__meta) return

    this.#observe(entity, em, () => {
      const after = this.#beliefs.created(entity, em)
      return [{ type: 'create', before: undefined, after, fields: NONE, belief: { entity, now: believed(entity), before: undefined } }]
    })
  }

  afterUpdate ({ entity, em, changeSet }: EventArgs<object>): void {
    this.#observe(entity, em, ({ held: props }) => {
      // what a subscriber after this one adds to a flush is not seen before
      const held = this.#updating.get(em)?.get(entity) ?? heldBy(entity, props, true)
      const update = this.#beliefs.updated(entity, em, changeSet as ChangeSet<object>, held)
      if (update === undefined) return []

      const { before, after, fields, belief } = update
      if (before.key === after.key) return [{ type: 'update', before, after, fields, belief }]
      return [
        { type: 'delete', before, after: undefined, fields: NONE },
        { type: 'create', before: undefined, after, fields: NONE, belief }
      ]
    })
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
    if (deleting !== undefined) this.#observe(entity, em, () => [{ type: 'delete', after: undefined, fields: NONE, ...deleting }])
  }

  #watched (entity: object): Watched | undefined {
    return this.#active?.watched.get(wrap(entity, true).__meta.class)
  }

  /** The changed collections of a flush: before the COMMIT where the flush makes one, else after all of its statements. */
  #recordCollections (em: EntityManager): void {
    const changes = this.#collections.get(em)
    this.#collections.delete(em)
    for (const [entity, { fields, held }] of changes ?? []) {
      if (wrap(entity, true).__managed) this.#observe(entity, em, () => this.#touch(entity, em, fields, held))
    }
  }

  /** An update that leaves the columns of the row as they are, or of which no more is known. */
  #touch (entity: object, em: EntityManager, fields: ReadonlySet<string> | undefined, held?: Held): Change[] {
    const after = this.#beliefs.current(entity, em)
    const before = held === undefined ? after : this.#beliefs.current(entity, em, held)
    return [{ type: 'update', before, after, fields }]
  }

  /** Puts changes of an entity into the log of the transaction, or out at once where there is none. Never throws. */
  #observe (entity: object, em: EntityManager, changes: (watched: Watched) => Change[]): void {
    const watched = this.#watched(entity)
    if (watched === undefined) return

    const wrapped = wrap(entity, true)
    const { className, root } = wrapped.__meta
    try {
      const transaction = em.getTransactionContext<Transaction>()
      const log = this.#transactions.logOf(transaction)
      for (const change of changes(watched)) {
        const { key } = (change.before ?? change.after) as Row
        log.record(`${root._id}:${wrapped.__schema ?? ''}:${key}`, change, watched.notifiers)
      }
      if (transaction === undefined) this.#publish(log)
    } catch (err) {
      tellFailure(this.#active?.log, err, { entity: className, key: wrapped.getSerializedPrimaryKey() })
    }
  }

  #publish (log: ChangeLog | undefined): void {
    if (log !== undefined && this.#active !== undefined) handOver(log.frames(), this.#active)
  }

  /** Takes changes back, and tells of them. */
  #rolledBack (transaction: Transaction | undefined): Belief[] {
    const log = this.#active?.log
    return this.#transactions.rolledBack(transaction, isWatched(log) ? (undone) => tellRolledBack(log, undone) : undefined)
  }
}

const NONE: ReadonlySet<string> = new Set()
