/** Builds row changes from the change sets, entities and snapshots (`__originalEntityData`) of MikroORM. */
import { wrap, type ChangeSet, type EntityManager } from '@mikro-orm/core'
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import { originalData, Row, RowSource, type RowData } from '../row.ts'
import type { ChangeOrigin, RowChange } from './change-log.ts'

const NO_FIELDS: readonly string[] = []

/**
 * Builds row changes. It remembers which entities this process inserted: a property that is missing in their snapshot
 * is `null` in the database, while an entity that was loaded in part lacks properties that are not known.
 */
export class RowChangeBuilder {
  readonly #inserted = new WeakSet<object>()

  /**
   * Builds the changes of an executed INSERT or UPDATE. An UPDATE of the primary key is a `delete` and a `create`.
   *
   * @param original snapshot of the entity before the statement; `undefined` for an INSERT
   */
  written (
    { entity, meta }: ChangeSet<object>,
    payload: RowData,
    original: RowData | undefined,
    em: EntityManager,
    notifiedEntity: NotifiedEntity
  ): RowChange[] {
    if (original === undefined) {
      const isComplete = meta.comparableProps.every(({ name }) => name in payload)
      if (!isComplete) this.#inserted.add(entity)
      return [created(new Row(meta, entity, payload, em, RowSource.Insert), notifiedEntity)]
    }

    const isInserted = this.#inserted.has(entity)
    const nulls = isInserted ? Object.fromEntries(meta.comparableProps.map(({ name }) => [name, null])) : {}
    const before = new Row(meta, entity, isInserted ? { ...nulls, ...original } : original, em, RowSource.Original)
    const source = isInserted ? RowSource.Insert : RowSource.Flush
    const after = new Row(meta, entity, { ...nulls, ...original, ...payload }, em, source)
    if (before.key !== after.key) return [deleted(before, notifiedEntity), created(after, notifiedEntity)]
    const fields = changedProperties(payload, before)
    return [{ id: after.id, notifiedEntity, type: 'update', before, after, fields, origin: undefined }]
  }

  /** Row of an entity before a statement changes it. It has only the primary key if MikroORM holds no snapshot. */
  rowBefore (entity: object, em: EntityManager, original: unknown = originalData(entity)): Row {
    const { __meta: meta } = wrap(entity, true)
    if (original !== undefined) return new Row(meta, entity, original as RowData, em, RowSource.Original)
    return new Row(meta, entity, em.getComparator().prepareEntity(entity), em, RowSource.Original).keyOnly
  }

  /**
   * Update of a row by an upsert or of an M:N collection, which leaves no change set: the snapshot is the row before
   * and after.
   */
  touched (
    entity: object,
    em: EntityManager,
    notifiedEntity: NotifiedEntity,
    origin: ChangeOrigin,
    fields?: readonly string[]
  ): RowChange {
    const source = this.#inserted.has(entity) ? RowSource.Insert : RowSource.Flush
    const row = new Row(wrap(entity, true).__meta, entity, originalData(entity) as RowData, em, source)
    return { id: row.id, notifiedEntity, type: 'update', before: row, after: row, fields, origin }
  }
}

/** Change of a row that a flush deleted. */
export function deleted (before: Row, notifiedEntity: NotifiedEntity): RowChange {
  const { id } = before
  return { id, notifiedEntity, type: 'delete', before, after: undefined, fields: NO_FIELDS, origin: undefined }
}

function created (after: Row, notifiedEntity: NotifiedEntity): RowChange {
  const { id } = after
  return { id, notifiedEntity, type: 'create', before: undefined, after, fields: NO_FIELDS, origin: undefined }
}

/** Properties that an UPDATE changed. A part of an embeddable counts as the property that holds the embeddable. */
function changedProperties (payload: RowData, { data, meta }: Row): string[] {
  const names: string[] = []
  for (const name in payload) {
    // drivers add to the payload what the database returned
    if (payload[name] === data[name]) continue

    let prop = meta.properties[name]
    if (prop?.embedded !== undefined && prop.hidden === true) continue
    while (prop?.embedded !== undefined) prop = meta.properties[prop.embedded[0]]
    if (prop !== undefined && !names.includes(prop.name)) names.push(prop.name)
  }
  return names
}
