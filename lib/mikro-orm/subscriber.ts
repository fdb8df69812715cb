/** Listens to the ORM: what is flushed goes into the log of its transaction, and out to the groups when that commits. */
import {
  wrap,
  type ChangeSet,
  type EntityManager,
  type EntityMetadata,
  type EventArgs,
  type EventSubscriber,
  type FlushEventArgs,
  type MikroORM,
  type Transaction,
  type TransactionEventArgs
} from '@mikro-orm/core'
import { ChangeLog, type Change } from './change-log.ts'
import { changedCollections } from './collections.ts'
import type { Frame, Notifier, Report } from './notifier.ts'
import { isAlive } from './probe.ts'
import { compileRules } from './registry.ts'
import { NotLoadedError, Row, type RowData } from './row.ts'
import { checkRules, type NotifyRule } from './rules.ts'

/** Where failures are reported; a Fastify logger is one. */
export interface Log {
  error (context: object, message: string): void
  warn (context: object, message: string): void
}

/** What a subscriber works for while it is connected. */
export interface Connection {
  orm: MikroORM
  /** Rules beside the subscriber's own. */
  notify?: readonly NotifyRule[]
  /** Whether to ask the database before a COMMIT if it still has the transaction; `true` by default. */
  probe?: boolean
  /** Hands a message to a group. Called once the change is committed; must not wait, and reports its own failures. */
  publish: (group: string, payload: string) => void
  log: Log
}

/** What a connected subscriber has at hand. */
interface Active extends Connection {
  notifiers: Map<unknown, Notifier[]>
}

/**
 * Announces the changes of entities when they are committed. Give it to `MikroORM.init({ subscribers })` as the first one, so that no other
 * can keep it from hearing a commit, and to `rohrpostMikroOrm`, which connects it.
 */
export class ChangeSubscriber implements EventSubscriber {
  readonly #rules: readonly NotifyRule[]
  #active: Active | undefined
  /** The logs of running transactions; savepoints share that of the outermost one. */
  readonly #logs = new WeakMap<Transaction, ChangeLog>()
  /** The transactions in which savepoints are about to begin, by the `EntityManager` that begins them. */
  readonly #parents = new WeakMap<EntityManager, Transaction>()
  /** Rows as they were before deletes that are under way. */
  readonly #deleting = new WeakMap<object, Row>()
  /** M:N collections that a flush is about to change: nothing is under way yet when the ORM tells. */
  readonly #collections = new WeakMap<EntityManager, Map<object, Set<string>>>()
  /** What was changed in the tables of an entity so far, by what the ORM held of it before. */
  readonly #payloads = new WeakMap<RowData, RowData>()
  /** Entities that began here: what they lack is `null`, where those from the database may be loaded in parts. */
  readonly #created = new WeakSet<object>()
  /** What the ORM believes of rows though it was rolled back, and what is true instead; nothing for no row. */
  readonly #undone = new WeakMap<RowData, RowData | undefined>()

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
   * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
   */
  connect (connection: Connection): void {
    const notifiers = compileRules([...this.#rules, ...connection.notify ?? []], connection.orm.getMetadata(), makeReport(connection.log))
    this.#active = { ...connection, notifiers }
    connection.orm.em.getEventManager().registerSubscriber(this)
  }

  /** Ends announcing. An ORM has no way to let go of a subscriber, so this one stays and is silent. */
  disconnect (): void {
    this.#active = undefined
  }

  beforeTransactionStart ({ em, transaction }: TransactionEventArgs): void {
    if (transaction === undefined) this.#parents.delete(em)
    else this.#parents.set(em, transaction)
  }

  afterTransactionStart ({ em, transaction }: TransactionEventArgs): void {
    const parent = this.#parents.get(em)
    this.#parents.delete(em)
    if (this.#active === undefined || transaction === undefined) return

    const log = parent === undefined ? new ChangeLog() : this.#logs.get(parent)
    if (log === undefined) return
    if (transaction.savepointName !== undefined) log.mark(transaction.savepointName)
    this.#logs.set(transaction, log)
  }

  async beforeTransactionCommit ({ em, transaction }: TransactionEventArgs): Promise<void> {
    this.#recordCollections(em)
    const log = this.#logs.get(transaction)
    if (log === undefined || log.isEmpty || transaction?.savepointName !== undefined || this.#active?.probe === false) return
    if (await isAlive(em, transaction)) return

    this.#rollBack(transaction)
    this.#active?.log.warn({}, 'the database had rolled back a transaction before its commit: its changes are not announced')
  }

  afterTransactionCommit ({ transaction }: TransactionEventArgs): void {
    const log = this.#logs.get(transaction)
    if (log === undefined) return

    this.#logs.delete(transaction)
    if (transaction?.savepointName === undefined) this.#publish(log.frames())
    else log.release(transaction.savepointName)
  }

  beforeTransactionRollback ({ em, transaction }: TransactionEventArgs): void {
    if (transaction === undefined || transaction.savepointName !== undefined) return

    // the COMMIT went well, and a subscriber before this one threw when it heard of it
    if (transaction.isCommitted === true) this.afterTransactionCommit({ em, transaction })
    // there is no event after it where the ROLLBACK itself fails
    else this.#rollBack(transaction)
  }

  afterTransactionRollback ({ transaction }: TransactionEventArgs): void {
    // only now: where ROLLBACK TO fails, the rows of the savepoint may stay
    if (transaction?.savepointName !== undefined) this.#rollBack(transaction, transaction.savepointName)
  }

  onFlush ({ em, uow }: FlushEventArgs): void {
    if (this.#active !== undefined) this.#collections.set(em, changedCollections(uow))
  }

  afterFlush ({ em }: FlushEventArgs): void {
    this.#recordCollections(em)
  }

  afterCreate ({ entity, em, meta }: EventArgs<object>): void {
    // with a table for each class there is an event for each, and the first is too early where nothing can be taken back
    if (em.getTransactionContext() === undefined && meta !== wrap(entity, true).__meta) return

    this.#observe(entity, em, () => {
      const believed = wrap(entity, true).__originalEntityData as RowData
      this.#created.add(entity)
      return [{ type: 'create', before: undefined, after: new Row(entity, believed, em, true), fields: NONE, belief: { believed, actual: undefined } }]
    })
  }

  afterUpdate ({ entity, em, changeSet }: EventArgs<object>): void {
    this.#observe(entity, em, () => {
      const original: RowData = changeSet?.originalEntity ?? {}
      const payload = this.#payloadOf(changeSet, original)
      const believed = wrap(entity, true).__originalEntityData as RowData
      const actual = this.#truth(original)
      const flushed = actual && { ...actual, ...payload }
      if (actual !== original) this.#undone.set(believed, flushed)
      if (actual === undefined || flushed === undefined) return []

      const isComplete = this.#created.has(entity)
      const before = new Row(entity, actual, em, isComplete)
      const after = new Row(entity, flushed, em, isComplete)
      if (before.key !== after.key) {
        return [
          { type: 'delete', before, after: undefined, fields: NONE },
          { type: 'create', before: undefined, after, fields: NONE, belief: { believed, actual } }
        ]
      }
      return [{ type: 'update', before, after, fields: changedProperties(payload, actual, before.meta), belief: { believed, actual } }]
    })
  }

  afterUpsert ({ entity, em }: EventArgs<object>): void {
    this.#observe(entity, em, () => {
      const row = new Row(entity, wrap(entity, true).__originalEntityData as RowData, em, false)
      return [{ type: 'update', before: row, after: row, fields: undefined }]
    })
  }

  beforeDelete ({ entity, em }: EventArgs<object>): void {
    if (!this.#concerns(entity)) return

    const actual = this.#truth(wrap(entity, true).__originalEntityData as RowData | undefined ?? {})
    if (actual === undefined) return
    this.#deleting.set(entity, new Row(entity, actual, em, this.#created.has(entity)))
  }

  afterDelete ({ entity, em }: EventArgs<object>): void {
    const before = this.#deleting.get(entity)
    this.#deleting.delete(entity)
    if (before !== undefined) this.#observe(entity, em, () => [{ type: 'delete', before, after: undefined, fields: NONE }])
  }

  /** Puts changes of an entity into the log of the transaction, or out at once where there is none. Never throws. */
  #observe (entity: object, em: EntityManager, changes: () => Change[]): void {
    const notifiers = this.#active?.notifiers.get(wrap(entity, true).__meta.class)
    if (notifiers === undefined) return

    try {
      const transaction: Transaction | undefined = em.getTransactionContext()
      const log = transaction === undefined ? new ChangeLog() : this.#logs.get(transaction)
      if (log === undefined) throw new Error('The transaction was not begun through the EntityManager, or before this subscriber was connected')

      for (const change of changes()) {
        const row = (change.before ?? change.after) as Row
        const { meta: { root }, key } = row
        log.record(`${root._id}:${wrap(entity, true).__schema ?? ''}:${key}`, change, (outcome) => notifiers.flatMap((notifier) => notifier.frames(outcome)))
      }
      if (transaction === undefined) this.#publish(log.frames())
    } catch (err) {
      const { className } = wrap(entity, true).__meta
      this.#active?.log.error({ err, entity: className, key: wrap(entity, true).getSerializedPrimaryKey() }, 'a change is not announced')
    }
  }

  /** The changed collections of a flush: before the COMMIT where the flush makes one, else after all of its statements. */
  #recordCollections (em: EntityManager): void {
    const changes = this.#collections.get(em)
    this.#collections.delete(em)
    for (const [entity, fields] of changes ?? []) {
      this.#observe(entity, em, () => {
        const actual = this.#truth(wrap(entity, true).__originalEntityData as RowData | undefined ?? {})
        if (actual === undefined || !wrap(entity, true).__managed) return []

        const row = new Row(entity, actual, em, this.#created.has(entity))
        return [{ type: 'update', before: row, after: row, fields }]
      })
    }
  }

  #concerns (entity: object): boolean {
    return this.#active?.notifiers.has(wrap(entity, true).__meta.class) === true
  }

  #rollBack (transaction: Transaction | undefined, savepoint?: string): void {
    const log = this.#logs.get(transaction)
    this.#logs.delete(transaction)
    for (const { belief } of log?.rollback(savepoint) ?? []) {
      if (belief !== undefined) this.#undone.set(belief.believed, belief.actual)
    }
  }

  /** What an update changes. With a table for each class there is an event for each table: what the earlier ones changed is part of it. */
  #payloadOf (changeSet: ChangeSet<object> | undefined, original: RowData): RowData {
    if (changeSet?.meta.inheritanceType !== 'tpt') return changeSet?.payload ?? {}

    const payload = { ...this.#payloads.get(original), ...changeSet.payload }
    this.#payloads.set(original, payload)
    return payload
  }

  /** What a row really holds where the ORM believes in something that was rolled back; `undefined` for no row. */
  #truth (believed: RowData): RowData | undefined {
    let row: RowData | undefined = believed
    while (row !== undefined && this.#undone.has(row)) row = this.#undone.get(row)
    return row
  }

  #publish (frames: Frame[]): void {
    for (const { group, type, object } of frames) {
      const id = Math.floor(Math.random() * 2 ** 31)
      try {
        this.#active?.publish(group, `{"id":${id},"type":"subscription-update","data":{"group":${JSON.stringify(group)},"type":"${type}","object":${object}}}`)
      } catch (err) {
        this.#active?.log.error({ err, group }, 'a change could not be handed over')
      }
    }
  }
}

const NONE: ReadonlySet<string> = new Set()

/** The properties that an update changed; a part of an embeddable stands for the whole. */
function changedProperties (payload: RowData, original: RowData, meta: EntityMetadata): Set<string> {
  const names = new Set<string>()
  for (const name of Object.keys(payload)) {
    // drivers add what the database returned
    if (payload[name] === original[name]) continue

    let prop = meta.properties[name]
    if (prop?.embedded !== undefined && prop.hidden === true) continue
    while (prop?.embedded !== undefined) prop = meta.properties[prop.embedded[0]]
    if (prop !== undefined) names.add(prop.name)
  }
  return names
}

/** Reports failures with entity and key; what is not loaded once for each rule. */
function makeReport (log: Log): Report {
  const warned = new WeakSet<NotifyRule>()

  return (err, row, rule) => {
    const context = { entity: row.meta.className, key: row.key }
    if (!(err instanceof NotLoadedError)) {
      log.error({ err, ...context }, 'a change is not announced')
    } else if (!warned.has(rule)) {
      warned.add(rule)
      log.warn({ property: err.property, ...context }, `a change is not announced: load '${err.property}' before the flush`)
    }
  }
}
