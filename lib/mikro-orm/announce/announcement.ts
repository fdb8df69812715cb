/** What is announced of a transaction: read before its COMMIT, turned into messages after it. */
import { LockMode, type EntityManager, type Transaction } from '@mikro-orm/core'
import { cutError } from '../../util/cut.ts'
import { errors } from '../../errors.ts'
import { Touch, type Entry } from '../capture/change-log.ts'
import type { CommittedRows } from '../capture/committed-rows.ts'
import type { Log } from './drops.ts'
import { dropped, type Frame, type Notifier, type RowChange } from './notifier.ts'
import { Database, databaseOf } from '../platforms.ts'
import { portionsOf, readRows, tableOf, type Wanted } from '../capture/read-back.ts'
import type { Watched } from '../declare/entity-registry.ts'
import type { Row } from './row.ts'

/** Rows before a transaction: `undefined` for one that is not there; no entry where that is not known. */
export type RowsBefore = ReadonlyMap<string, Row | undefined>

/** What is needed to read the rows. */
interface Sources {
  readonly em: EntityManager
  readonly transaction: Transaction
  readonly committed: CommittedRows
  /** The rows that were read before the statements of the flushes. */
  readonly read: RowsBefore
  readonly log: Log
}

/** The changes of a transaction, with the rows that were read. */
export class Announcement {
  readonly #entries: readonly Entry[]
  /** Nothing where no rows were read: then the changes are announced as the ORM knows them. */
  readonly #after: ReadonlyMap<string, Row> | undefined
  readonly #before: RowsBefore
  /** Whether groups that had a row may be missing among those that are told. */
  readonly isUncertain: boolean

  constructor (entries: readonly Entry[], after?: ReadonlyMap<string, Row>, before: RowsBefore = new Map(), isUncertain = false) {
    this.#entries = entries
    this.#after = after
    this.#before = before
    this.isUncertain = isUncertain
  }

  /** The rows that changed. */
  get ids (): string[] {
    return this.#entries.map(({ id }) => id)
  }

  /** Rows that `notify` was asked to announce and that are not there. */
  get missing (): Row[] {
    return this.#entries.flatMap(({ id, touch, watched, before, after }) => {
      if (touch !== Touch.Key && touch !== Touch.Entity) return []
      if (after !== undefined) return this.#after?.has(id) === false ? [after] : []
      return before !== undefined && touch === Touch.Key && mayMove(watched) && this.#isAbsent(id) ? [before] : []
    })
  }

  /** What the groups are told, in order. @param isWatched whether somebody wants to know what is not sent */
  frames (isWatched: boolean): Frame[] {
    return this.#entries.flatMap((entry) => entry.watched.notifiers.flatMap((notifier) => {
      const change = (notifier.readsBack || entry.touch !== undefined) && this.#after !== undefined ? this.#changeOf(entry, notifier, this.#after) : entry
      if (change !== undefined) return notifier.frames(change)
      // the row is not there: nothing was changed, or it is gone again
      return isWatched ? [dropped('missing', (entry.after ?? entry.before) as Row, entry.type)] : []
    }))
  }

  #changeOf (entry: Entry, notifier: Notifier, rows: ReadonlyMap<string, Row>): RowChange | undefined {
    const { id, type, fields } = entry
    if (type === 'delete') return this.#deletionOf(entry, notifier)

    const after = rows.get(id)
    if (after === undefined) return
    if (type === 'create') return { type, fields, before: undefined, after }
    if (!notifier.needsBefore) return { type, fields, before: after, after }
    if (this.#before.has(id)) return { type, fields, before: this.#before.get(id), after }
    // of a row that no flush changed, the ORM knows nothing that was before
    return { type, fields, before: entry.touch === undefined ? entry.before : after, after }
  }

  /** A delete tells the row as it was committed. Where there was none, the key is told to groups that depend on nothing else. */
  #deletionOf ({ id, type, fields, before, touch }: Entry, notifier: Notifier): RowChange | undefined {
    if (before === undefined || !notifier.needsDeleted || !this.#before.has(id)) return { type, fields, before, after: undefined }
    if (!this.#isAbsent(id) || touch === Touch.Entity) return { type, fields, before: this.#before.get(id) ?? before, after: undefined }
    return notifier.needsBefore ? undefined : { type, fields, before: before.keyOnly, after: undefined }
  }

  #isAbsent (id: string): boolean {
    return this.#before.has(id) && this.#before.get(id) === undefined
  }
}

/**
 * Reads the rows of a transaction, as its last statements before the COMMIT. What fails rejects, and must fail the transaction: PostgreSQL
 * has aborted it then.
 */
export async function readAnnouncement (entries: readonly Entry[], sources: Sources): Promise<Announcement> {
  const { em, transaction } = sources
  const database = databaseOf(em)
  const changed = entries.flatMap((entry) => entry.after !== undefined && isRead(entry) ? [wantedOf(entry, entry.after)] : [])

  if (database === Database.PostgreSql) await lock(em, transaction, changed.filter(({ touch }) => touch !== undefined))
  const after = await (isMySql(database) ? readLocked(em, transaction, changed) : readRows(em, transaction, changed))
  const before = await readBefore(entries, after, sources)
  // a deadlock rolls back all of a transaction, and what follows it is committed by itself
  if (database === Database.MariaDb) await checkAlive(em, transaction)
  return new Announcement(entries, after, before ?? sources.read, before === undefined)
}

/** A row to be read, and how it came into the log. */
type Changed = Wanted & Pick<Entry, 'touch'>

function wantedOf ({ id, watched, touch }: Entry, row: Row): Changed {
  return { id, watched, touch, row }
}

function isMySql (database: Database): boolean {
  return database === Database.MariaDb || database === Database.MySql
}

/** The rows as they were before the transaction; nothing where they could not be read. */
async function readBefore (entries: readonly Entry[], after: ReadonlyMap<string, Row>, { em, committed, read, log }: Sources): Promise<RowsBefore | undefined> {
  if (!committed.isReadable(em)) return read

  const known = new Map(read)
  const wanted: Wanted[] = []
  for (const entry of entries) {
    const { id, type, before } = entry
    const row = after.get(id)
    if (before === undefined || known.has(id)) continue
    if (type === 'delete' ? needsDeleted(entry) : row !== undefined && needsBefore(entry, row)) wanted.push(wantedOf(entry, before))
    else if (row !== undefined) known.set(id, row)
  }
  if (wanted.length === 0) return known

  try {
    const rows = await committed.read(em, wanted)
    for (const { id } of wanted) known.set(id, rows.get(id))
    return known
  } catch (err) {
    const consequence = 'what the EntityManager held is taken for them, and the members of the groups load again'
    log.warn({ err: cutError(err) }, `the rows before a change could not be read: ${consequence}`)
  }
}

/** Whether a row is read: what no flush wrote is not known otherwise. */
function isRead ({ watched, touch }: Entry): boolean {
  return watched.readsBack || touch !== undefined
}

/** Whether a rule sends a row to groups that depend on more than its key. */
function mayMove ({ notifiers }: Watched): boolean {
  return notifiers.some(({ needsBefore }) => needsBefore)
}

function needsDeleted ({ watched, touch }: Entry): boolean {
  return touch === undefined ? watched.needsDeleted : watched.notifiers.some(({ needsDeleted }) => needsDeleted)
}

/** Whether a row may have been in other groups before: not where the ORM held the same groups, and the update writes nothing that they depend on. */
function needsBefore ({ watched, before, fields, touch }: Entry, after: Row): boolean {
  if (touch !== undefined) return mayMove(watched)
  return watched.needsBefore && watched.notifiers.some((notifier) => notifier.readsBack && !notifier.isInPlace(before as Row, after, fields))
}

/**
 * Locks rows that no statement of the transaction has locked: else another transaction could commit a newer state that is announced before
 * this one. References to the rows can still be inserted.
 */
async function lock (em: EntityManager, transaction: Transaction, rows: readonly Wanted[]): Promise<void> {
  const platform = em.getPlatform()
  for (const portion of portionsOf(rows)) {
    const [{ row }] = portion as [Wanted]
    const columns = row.meta.root.getPrimaryProps().flatMap(({ fieldNames }) => fieldNames).map((name) => platform.quoteIdentifier(name)).join(', ')
    const keys = portion.map(({ row: { databaseKey } }) => databaseKey)
    const places = keys.map((key) => `(${key.map(() => '?').join(', ')})`).join(', ')
    const sql = `select 1 from ${tableOf(em, row)} where (${columns}) in (${places}) order by ${columns} for no key update`
    await em.getConnection('write').execute(sql, keys.flat(), 'run', transaction)
  }
}

/**
 * Reads rows on MySQL and MariaDB, where a read without a lock gives the state in which the transaction began to read. A lock on a key that
 * is not there would keep others from inserting it, so what no statement has locked is looked up first; the owners of M:N collections
 * are not locked at all, as their new references hold a shared lock that others may hold, too.
 */
async function readLocked (em: EntityManager, transaction: Transaction, rows: readonly Changed[]): Promise<Map<string, Row>> {
  const isFree = ({ touch }: Changed) => touch === Touch.Collection
  const isKey = ({ touch }: Changed) => touch === Touch.Key || touch === Touch.Entity
  const found = await readRows(em, transaction, rows.filter((row) => isFree(row) || isKey(row)))
  const locked = await readRows(em, transaction, rows.filter((row) => !isFree(row) && (!isKey(row) || found.has(row.id))), LockMode.PESSIMISTIC_WRITE)
  return new Map([...found, ...locked])
}

async function checkAlive (em: EntityManager, transaction: Transaction): Promise<void> {
  const answer = await em.getConnection('write').execute('select @@in_transaction as alive', [], 'get', transaction) as { alive: unknown }
  if (Number(answer.alive) !== 1) throw new errors.RP_ERR_ROLLED_BACK()
}
