/** Rows that must be read before a flush or an upsert changes them, because a rule needs the row as it was. */
import { ChangeSetType, type ChangeSet, type EntityManager, type UnitOfWork } from '@mikro-orm/core'
import type { FindNotifiedEntity, NotifiedEntity } from '../declare/entity-registry.ts'
import { originalData } from '../row.ts'
import type { ReadBackRow } from './read-back.ts'
import type { RowChangeBuilder } from './row-changes.ts'

const UPDATES: readonly string[] = [ChangeSetType.UPDATE, ChangeSetType.UPDATE_EARLY]
const DELETES: readonly string[] = [ChangeSetType.DELETE, ChangeSetType.DELETE_EARLY]

/**
 * Lists the rows that a flush changes, as far as a rule needs them.
 *
 * @param owners entities whose M:N collections the flush changes
 */
export function rowsBeforeFlush (
  uow: UnitOfWork,
  owners: Iterable<object>,
  em: EntityManager,
  builder: RowChangeBuilder,
  notifiedEntityOf: FindNotifiedEntity
): ReadBackRow[] {
  return [
    ...rowsOfChangeSets(uow.getChangeSets(), em, builder, notifiedEntityOf),
    ...rowsOfOwners(owners, em, builder, notifiedEntityOf)
  ]
}

function rowsOfChangeSets (
  changeSets: ReadonlyArray<ChangeSet<object>>,
  em: EntityManager,
  builder: RowChangeBuilder,
  notifiedEntityOf: FindNotifiedEntity
): ReadBackRow[] {
  return changeSets.flatMap(({ type, entity, meta, payload, originalEntity }) => {
    const notifiedEntity = notifiedEntityOf(entity)
    const isDelete = DELETES.includes(type)
    if (notifiedEntity === undefined || (!isDelete && !UPDATES.includes(type))) return []

    // an update of the primary key is announced as a delete of the old key
    const isDeleted = isDelete || meta.primaryKeys.some((name) => name in payload)
    if (isDeleted ? !notifiedEntity.needsDeletedRow : !notifiedEntity.needsRowBefore) return []
    const row = builder.rowBefore(entity, em, originalEntity)
    return [{ id: row.id, row, notifiedEntity }]
  })
}

function rowsOfOwners (
  owners: Iterable<object>,
  em: EntityManager,
  builder: RowChangeBuilder,
  notifiedEntityOf: FindNotifiedEntity
): ReadBackRow[] {
  return [...owners].flatMap((entity) => {
    const notifiedEntity = notifiedEntityOf(entity)
    // an owner that the flush inserts has no snapshot
    if (notifiedEntity?.needsRowBefore !== true || originalData(entity) === undefined) return []
    const row = builder.rowBefore(entity, em)
    return [{ id: row.id, row, notifiedEntity }]
  })
}

/**
 * Returns the row that an upsert may replace; `undefined` if its primary key is not given, or if no rule needs the row.
 */
export function rowBeforeUpsert (
  values: Readonly<Record<string, unknown>>,
  em: EntityManager,
  builder: RowChangeBuilder,
  notifiedEntity: NotifiedEntity
): ReadBackRow | undefined {
  const { meta, rules } = notifiedEntity
  const key = meta.primaryKeys.map((name) => values[name])
  if (key.includes(undefined) || !rules.some(({ needsRowBefore }) => needsRowBefore)) return
  const row = builder.rowBefore(em.fork().getReference(meta.class, key as never), em)
  return { id: row.id, row, notifiedEntity }
}
