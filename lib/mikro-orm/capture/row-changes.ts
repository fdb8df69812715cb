/** Makes changes of what the ORM knows of entities. */
import { wrap, type EntityManager } from '@mikro-orm/core'
import type { RowChange, ChangeOrigin } from './change-log.ts'
import type { Written } from './flush.ts'
import { originalData, Row, RowSource, type RowData } from '../row.ts'

/** Makes changes, and keeps which entities began here: what those lack is `null`, where others may be loaded in parts. */
export class Changes {
  readonly #created = new WeakSet<object>()

  /** What a flush inserted or updated. */
  written ({ changeSet: { entity, meta }, payload, original }: Written, em: EntityManager): RowChange[] {
    if (original === undefined) {
      const isComplete = meta.comparableProps.every(({ name }) => name in payload)
      if (!isComplete) this.#created.add(entity)
      return [{ type: 'create', before: undefined, after: new Row(meta, entity, payload, em, RowSource.Insert), fields: [] }]
    }

    const isCreated = this.#created.has(entity)
    const nothing = isCreated ? Object.fromEntries(meta.comparableProps.map(({ name }) => [name, null])) : {}
    const before = new Row(meta, entity, isCreated ? { ...nothing, ...original } : original, em, RowSource.Original)
    const after = new Row(meta, entity, { ...nothing, ...original, ...payload }, em, isCreated ? RowSource.Insert : RowSource.Flush)
    if (before.key === after.key) return [{ type: 'update', before, after, fields: changedProperties(payload, before) }]
    return [
      { type: 'delete', before, after: undefined, fields: [] },
      { type: 'create', before: undefined, after, fields: [] }
    ]
  }

  /** The row of an entity before a statement changes it: its key alone where the ORM holds no more. */
  before (entity: object, em: EntityManager, original: unknown = originalData(entity)): Row {
    const { __meta: meta } = wrap(entity, true)
    if (original !== undefined) return new Row(meta, entity, original as RowData, em, RowSource.Original)
    return new Row(meta, entity, em.getComparator().prepareEntity(entity), em, RowSource.Original).keyOnly
  }

  /** A row of which a statement left the columns as they are, or of which no more is known. */
  touched (entity: object, em: EntityManager, fields: readonly string[] | undefined, origin: ChangeOrigin): RowChange {
    const row = new Row(wrap(entity, true).__meta, entity, originalData(entity) as RowData, em, this.#created.has(entity) ? RowSource.Insert : RowSource.Flush)
    return { type: 'update', before: row, after: row, fields, origin }
  }
}

/** The properties that an update changed; a part of an embeddable stands for the whole. */
function changedProperties (payload: RowData, { data, meta }: Row): string[] {
  const names: string[] = []
  for (const name in payload) {
    // drivers add what the database returned
    if (payload[name] === data[name]) continue

    let prop = meta.properties[name]
    if (prop?.embedded !== undefined && prop.hidden === true) continue
    while (prop?.embedded !== undefined) prop = meta.properties[prop.embedded[0]]
    if (prop !== undefined && !names.includes(prop.name)) names.push(prop.name)
  }
  return names
}
