/** Announcement of one transaction: its rows are read before the COMMIT and become notifications after it. */
import { LockMode, type EntityManager, type Transaction } from '@mikro-orm/core'
import { truncateError } from '../../util/truncate.ts'
import {
  ChangeOrigin, changesOf, isMessage, type LogEntry, type RowChange, type SentMessage
} from '../capture/change-log.ts'
import type { CommittedRows } from '../capture/committed-rows.ts'
import type { Logger } from './drops.ts'
import type { CompiledRule } from '../declare/compiled-rule.ts'
import { droppedNotification, type CommittedChange, type Notification } from '../declare/notification.ts'
import { Database, databaseOf, isMySql } from '../../util/platforms.ts'
import { portionsOf, readRows, tableOf, type ReadBackRow } from '../capture/read-back.ts'
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import type { Row } from '../row.ts'

/**
 * Rows before a transaction, by id: `undefined` for a row that did not exist, no entry if that is unknown.
 */
export type RowsBefore = ReadonlyMap<string, Row | undefined>

/** Arguments of `readAnnouncement`. */
interface ReadOptions {
  readonly em: EntityManager
  readonly transaction: Transaction
  readonly committed: CommittedRows
  /** Rows that were read before the statements of the flushes. */
  readonly read: RowsBefore
  readonly log: Logger
}

/** The changes and messages of a transaction, with the rows that were read. */
export class Announcement {
  readonly #entries: readonly LogEntry[]
  /** Rows after the changes, by id. Without it, notifications contain the values that the ORM has. */
  readonly #after: ReadonlyMap<string, Row> | undefined
  readonly #before: RowsBefore
  /** Whether the notifications may miss a group that a row has left. */
  readonly isUncertain: boolean

  constructor (
    entries: readonly LogEntry[],
    after?: ReadonlyMap<string, Row>,
    before: RowsBefore = new Map(),
    isUncertain = false
  ) {
    this.#entries = entries
    this.#after = after
    this.#before = before
    this.isUncertain = isUncertain
  }

  /** The same changes with rows that were read after the announcement was made. */
  withRows (after: ReadonlyMap<string, Row>): Announcement {
    return new Announcement(this.#entries, after)
  }

  /** Ids of the changed rows. */
  get ids (): string[] {
    return changesOf(this.#entries).map(({ id }) => id)
  }

  /** Rows that `app.rohrpost.notify` named and that do not exist. */
  get missing (): Row[] {
    return changesOf(this.#entries).flatMap(({ id, origin, notifiedEntity, before, after }) => {
      if (origin !== ChangeOrigin.Key && origin !== ChangeOrigin.Entity) return []
      if (after !== undefined) return this.#after?.has(id) === false ? [after] : []
      const isMissing = origin === ChangeOrigin.Key && mayMove(notifiedEntity) && this.#isAbsent(id)
      return before !== undefined && isMissing ? [before] : []
    })
  }

  /**
   * Makes the notifications of the changes, in order with the messages.
   *
   * @param withDrops whether to include the changes that are not sent, with the reason
   */
  notifications (withDrops: boolean): Array<Notification | SentMessage> {
    return this.#entries.flatMap<Notification | SentMessage>((entry) => {
      return isMessage(entry) ? [entry] : this.#notificationsOf(entry, withDrops)
    })
  }

  #notificationsOf (entry: RowChange, withDrops: boolean): Notification[] {
    return entry.notifiedEntity.rules.flatMap((rule) => {
      const rows = rule.readsBack || entry.origin !== undefined ? this.#after : undefined
      const change = rows === undefined ? entry : this.#changeOf(entry, rule, rows)
      if (change !== undefined) return rule.notifications(change)
      // the row does not exist: the statement hit no row, or the row was deleted again
      if (!withDrops) return []
      const { meta, key } = (entry.after ?? entry.before) as Row
      return [droppedNotification('missing', meta.className, key, entry.type)]
    })
  }

  #changeOf (entry: RowChange, rule: CompiledRule, rows: ReadonlyMap<string, Row>): CommittedChange | undefined {
    const { id, type, fields } = entry
    if (type === 'delete') return this.#deletionOf(entry, rule)

    const after = rows.get(id)
    if (after === undefined) return
    if (type === 'create') return { type, fields, before: undefined, after }
    if (!rule.needsRowBefore) return { type, fields, before: after, after }
    if (this.#before.has(id)) return { type, fields, before: this.#before.get(id), after }
    // the ORM has no earlier values of a row that no flush changed
    return { type, fields, before: entry.origin === undefined ? entry.before : after, after }
  }

  /**
   * Makes the change of a deletion, with the committed row. Without a committed row only groups that depend on nothing
   * but the key are notified, with the key.
   */
  #deletionOf ({ id, type, fields, before, origin }: RowChange, rule: CompiledRule): CommittedChange | undefined {
    const change = { type, fields, before, after: undefined }
    if (before === undefined || !rule.needsDeletedRow || !this.#before.has(id)) return change
    if (!this.#isAbsent(id) || origin === ChangeOrigin.Entity) {
      return { ...change, before: this.#before.get(id) ?? before }
    }
    return rule.needsRowBefore ? undefined : { ...change, before: before.keyOnly }
  }

  #isAbsent (id: string): boolean {
    return this.#before.has(id) && this.#before.get(id) === undefined
  }
}

/**
 * Reads the rows of a transaction, as its last statements before the COMMIT. A rejection must fail the transaction:
 * PostgreSQL has aborted it then.
 */
export async function readAnnouncement (entries: readonly LogEntry[], sources: ReadOptions): Promise<Announcement> {
  const { em, transaction } = sources
  const database = databaseOf(em.getPlatform())
  const changes = changesOf(entries)
  const changed = changes.flatMap((entry) => {
    return entry.after !== undefined && isRead(entry) ? [toReadBackRow(entry, entry.after)] : []
  })

  if (database === Database.PostgreSql) {
    await lock(em, transaction, changed.filter(({ origin }) => origin !== undefined))
  }
  const after = await (isMySql(database) ? readLocked(em, transaction, changed) : readRows(em, transaction, changed))
  const before = await readBefore(changes, after, sources)
  return new Announcement(entries, after, before ?? sources.read, before === undefined)
}

/** A row to read, with the origin of its change. */
type Changed = ReadBackRow & Pick<RowChange, 'origin'>

function toReadBackRow ({ id, notifiedEntity, origin }: RowChange, row: Row): Changed {
  return { id, notifiedEntity, origin, row }
}

/** Reads the rows before the transaction; `undefined` if the query failed. */
async function readBefore (
  entries: readonly RowChange[],
  after: ReadonlyMap<string, Row>,
  { em, committed, read, log }: ReadOptions
): Promise<RowsBefore | undefined> {
  if (!committed.isReadable(em)) return read

  const known = new Map(read)
  const requested: ReadBackRow[] = []
  for (const entry of entries) {
    const { id, type, before } = entry
    const row = after.get(id)
    if (before === undefined || known.has(id)) continue
    const isNeeded = type === 'delete' ? needsDeletedRow(entry) : row !== undefined && needsRowBefore(entry, row)
    if (isNeeded) requested.push(toReadBackRow(entry, before))
    else if (row !== undefined) known.set(id, row)
  }
  if (requested.length === 0) return known

  try {
    const rows = await committed.read(em, requested)
    for (const { id } of requested) known.set(id, rows.get(id))
    return known
  } catch (err) {
    const consequence = 'what the EntityManager held is taken for them, and the members of the groups load again'
    log.warn({ err: truncateError(err) }, `the rows before a change could not be read: ${consequence}`)
  }
}

/** Whether a row is read back. The ORM has no values of a row that no flush wrote. */
function isRead ({ notifiedEntity, origin }: RowChange): boolean {
  return notifiedEntity.readsBack || origin !== undefined
}

/** Whether the groups of a row depend on more than its key, so that a change can move it to another group. */
function mayMove ({ rules }: NotifiedEntity): boolean {
  return rules.some(({ needsRowBefore }) => needsRowBefore)
}

function needsDeletedRow ({ notifiedEntity, origin }: RowChange): boolean {
  if (origin === undefined) return notifiedEntity.needsDeletedRow
  return notifiedEntity.rules.some(({ needsDeletedRow }) => needsDeletedRow)
}

/**
 * Whether a row may have been in other groups before. Not if the ORM has the same groups, and the update writes no
 * property that they depend on.
 */
function needsRowBefore ({ notifiedEntity, before, fields, origin }: RowChange, after: Row): boolean {
  if (origin !== undefined) return mayMove(notifiedEntity)
  return notifiedEntity.needsRowBefore && notifiedEntity.rules.some((rule) => {
    return rule.readsBack && !rule.keepsGroup(before as Row, after, fields)
  })
}

/**
 * Locks rows that no statement of the transaction has locked. Otherwise another transaction could commit a newer state
 * and publish it first. References to the rows can still be inserted.
 */
async function lock (em: EntityManager, transaction: Transaction, rows: readonly ReadBackRow[]): Promise<void> {
  const platform = em.getPlatform()
  for (const portion of portionsOf(rows)) {
    const [{ row }] = portion as [ReadBackRow]
    const names = row.meta.root.getPrimaryProps().flatMap(({ fieldNames }) => fieldNames)
    const columns = names.map((name) => platform.quoteIdentifier(name)).join(', ')
    const keys = portion.map(({ row: { databaseKey } }) => databaseKey)
    const places = keys.map((key) => `(${key.map(() => '?').join(', ')})`).join(', ')
    const condition = `(${columns}) in (${places})`
    const sql = `select 1 from ${tableOf(em, row)} where ${condition} order by ${columns} for no key update`
    await em.getConnection('write').execute(sql, keys.flat(), 'run', transaction)
  }
}

/**
 * Reads rows on MySQL and MariaDB, where a read without a lock returns the state of the transaction's first read. A
 * lock on a missing key would block its INSERT by others, so rows that no statement has locked are looked up first.
 * Owners of M:N collections are not locked: their new references hold a shared lock, as those of other transactions
 * may.
 */
async function readLocked (
  em: EntityManager,
  transaction: Transaction,
  rows: readonly Changed[]
): Promise<Map<string, Row>> {
  const isFree = ({ origin }: Changed) => origin === ChangeOrigin.Collection
  const isKey = ({ origin }: Changed) => origin === ChangeOrigin.Key || origin === ChangeOrigin.Entity
  const found = await readRows(em, transaction, rows.filter((row) => isFree(row) || isKey(row)))
  const lockable = rows.filter((row) => !isFree(row) && (!isKey(row) || found.has(row.id)))
  const locked = await readRows(em, transaction, lockable, LockMode.PESSIMISTIC_WRITE)
  return new Map([...found, ...locked])
}
