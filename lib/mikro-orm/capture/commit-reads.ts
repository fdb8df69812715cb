/**
 * Reads of rows that PostgreSQL receives in the message of the COMMIT, which saves a round trip: for changes whose rows
 * are needed after the COMMIT only.
 */
import type { EntityManager, EntityMetadata } from '@mikro-orm/core'
import { Database, databaseOf } from '../../util/platforms.ts'
import type { Row } from '../row.ts'
import { changesOf, type LogEntry, type RowChange } from './change-log.ts'
import { columnQuery, portionsOf, toRow, type ColumnValues, type ReadBackRow } from './read-back.ts'

/** Reads of the rows of one transaction. */
export interface CommitReads {
  readonly requested: readonly ReadBackRow[]
  readonly queries: readonly string[]
  /** Returns the existing rows, by `id`. @param results rows of each query */
  rows (results: ReadonlyArray<readonly ColumnValues[]>): Map<string, Row>
}

/** Column types whose values have one form only, so that the key of a row that was read equals the requested one. */
const EXACT = /^((small|big)?(int|serial)|integer|int[248]|(small|big)serial|serial[248])$/i

/**
 * Makes the reads of a transaction; `undefined` if there are none, or if the rows must be read before the COMMIT is
 * sent: to lock them, to compare them with the row before the change, or to look a row up again whose key the database
 * has in another form.
 */
export function commitReadsOf (em: EntityManager, entries: readonly LogEntry[]): CommitReads | undefined {
  const changes = changesOf(entries)
  if (databaseOf(em.getPlatform()) !== Database.PostgreSql || !changes.every(isReadableLast)) return

  const requested = changes.flatMap(({ id, notifiedEntity, after }) => {
    return after !== undefined && notifiedEntity.readsBack ? [{ id, notifiedEntity, row: after }] : []
  })
  const onQuery = em.config.get('onQuery')
  const reads: Array<{ query: string, portion: readonly ReadBackRow[] }> = []
  for (const portion of portionsOf(requested)) {
    const query = columnQuery(em, portion)
    const [{ row: { meta } }] = portion as [ReadBackRow]
    // a query that the application changes may become several statements
    if (query === undefined || (portion.length > 1 && !hasExactKey(meta)) || onQuery(query, []) !== query) return
    reads.push({ query, portion })
  }
  if (reads.length === 0) return
  return {
    requested,
    queries: reads.map(({ query }) => query),
    rows: (results) => new Map(reads.flatMap(({ query, portion }, i) => {
      const found = results[i] as readonly ColumnValues[]
      logQuery(em, query, found.length)
      const [{ id }] = portion as [ReadBackRow]
      return found.map((values) => {
        const row = toRow(values, portion)
        return [portion.length === 1 ? id : row.id, row] as const
      })
    }))
  }
}

/** Whether the rules need the row of a change after the COMMIT only. */
function isReadableLast ({ type, origin, before, notifiedEntity }: RowChange): boolean {
  if (origin !== undefined) return false
  if (type === 'delete') return !notifiedEntity.needsDeletedRow
  return before === undefined || !notifiedEntity.needsRowBefore
}

function hasExactKey (meta: EntityMetadata): boolean {
  return meta.getPrimaryProps().every(({ columnTypes }) => columnTypes.every((type) => EXACT.test(type)))
}

/** Logs a query as the connection of MikroORM does. */
function logQuery (em: EntityManager, query: string, results: number): void {
  const connection = em.getConnection('write') as unknown as { logQuery (query: string, context: object): void }
  connection.logQuery(query, { results })
}
