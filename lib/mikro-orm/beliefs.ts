/** What the ORM believes of rows, and what is true where a rollback proved it wrong. */
import { wrap, type ChangeSet, type EntityManager } from '@mikro-orm/core'
import type { Belief } from './change-log.ts'
import { Row, type RowData } from './row.ts'

/** An update of a row. */
interface Update {
  before: Row
  after: Row
  payload: RowData
  belief: Belief
}

/** Makes rows of what the ORM knows of entities. */
export class Beliefs {
  /** What is true instead of what the ORM holds after a rollback; `undefined` for no row. */
  readonly #truths = new WeakMap<RowData, RowData | undefined>()
  /** Entities that began here: what they lack is `null`, where those from the database may be loaded in parts. */
  readonly #created = new WeakSet<object>()
  /** What was changed in the tables of an entity so far, by what the ORM held of it before. */
  readonly #payloads = new WeakMap<RowData, RowData>()

  /** The row of an entity that was inserted. */
  created (entity: object, em: EntityManager): Row {
    this.#created.add(entity)
    return new Row(entity, believed(entity), em, true)
  }

  /** The row of an entity as the ORM has it. A row that was taken back counts too: what is done to it finds whatever has the key now. */
  current (entity: object, em: EntityManager): Row {
    const data = believed(entity)
    return this.#row(entity, this.#truth(data) ?? data, em)
  }

  /** The row that an entity says it is. */
  inMemory (entity: object, em: EntityManager): Row {
    return this.#row(entity, em.getComparator().prepareEntity(entity), em)
  }

  /** The row of an entity before and after it was updated; nothing where there was no row to update. */
  updated (entity: object, em: EntityManager, changeSet: ChangeSet<object>): Update | undefined {
    const original = changeSet.originalEntity as RowData
    const payload = this.#payload(changeSet, original)
    const before = this.#truth(original)
    const after = before && { ...before, ...payload }
    // the ORM goes on from what it believed before
    if (before !== original) this.#truths.set(believed(entity), after)

    return before && after && {
      before: this.#row(entity, before, em),
      after: this.#row(entity, after, em),
      payload,
      belief: { now: believed(entity), before: original }
    }
  }

  /** Notes what is true after a rollback took these back. */
  undo (beliefs: readonly Belief[]): void {
    for (const { now, before } of beliefs) this.#truths.set(now, before)
  }

  #row (entity: object, data: RowData, em: EntityManager): Row {
    return new Row(entity, data, em, this.#created.has(entity))
  }

  #truth (believed: RowData): RowData | undefined {
    let data: RowData | undefined = believed
    while (data !== undefined && this.#truths.has(data)) data = this.#truths.get(data)
    return data
  }

  /** With a table for each class there is an event for each table: what the earlier ones changed is part of the update. */
  #payload (changeSet: ChangeSet<object>, original: RowData): RowData {
    if (changeSet.meta.inheritanceType !== 'tpt') return changeSet.payload

    const payload = { ...this.#payloads.get(original), ...changeSet.payload }
    this.#payloads.set(original, payload)
    return payload
  }
}

/** What the ORM compares an entity with to find what changed. */
export function believed (entity: object): RowData {
  return wrap(entity, true).__originalEntityData as RowData | undefined ?? {}
}
