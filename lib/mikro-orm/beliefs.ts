/** What the ORM believes of rows, and what is true where a rollback proved it wrong. */
import { wrap, type ChangeSet, type EntityManager } from '@mikro-orm/core'
import type { Belief } from './change-log.ts'
import { Row, type Held, type RowData } from './row.ts'

/** An update of a row. */
interface Update {
  before: Row
  after: Row
  fields: ReadonlySet<string>
  belief: Belief
}

/** A correction of what the ORM holds. */
interface Truth {
  /** What the ORM held when it became wrong: what differs from it now was loaded since, and is right. */
  readonly at: RowData
  /** What is true instead; `undefined` for no row. */
  readonly instead: RowData | undefined
}

/** Makes rows of what the ORM knows of entities. */
export class Beliefs {
  /** Corrections, by what the ORM holds after a rollback. */
  readonly #truths = new WeakMap<RowData, Truth>()
  /** What the ORM held of entities whose delete was taken back: it forgets, and does not remember. */
  readonly #forgotten = new WeakMap<object, RowData>()
  /** Entities that began here: what they lack is `null`, where those from the database may be loaded in parts. */
  readonly #created = new WeakSet<object>()
  /** What was changed in the tables of an entity so far, by what the ORM held of it before. */
  readonly #payloads = new WeakMap<RowData, RowData>()

  /** The row of an entity that was inserted. */
  created (entity: object, em: EntityManager): Row {
    this.#created.add(entity)
    return new Row(entity, believed(entity) as RowData, em, true)
  }

  /** The row of an entity as the ORM has it. A row that was taken back counts too: what is done to it finds whatever has the key now. */
  current (entity: object, em: EntityManager, held?: Held): Row {
    const data = this.#remembered(entity)
    return this.#row(entity, this.#truth(data) ?? data, em, held)
  }

  /** The row that an entity says it is. */
  inMemory (entity: object, em: EntityManager): Row {
    return this.#row(entity, em.getComparator().prepareEntity(entity), em)
  }

  /** The row of an entity before and after it was updated; nothing where there was no row to update. */
  updated (entity: object, em: EntityManager, changeSet: ChangeSet<object>, held: Held | undefined): Update | undefined {
    const original = changeSet.originalEntity as RowData
    const payload = this.#payload(changeSet, original)
    const before = this.#truth(original)
    const after = before && { ...before, ...payload }
    const now = believed(entity) as RowData
    // the ORM goes on from what it believed before
    if (before !== original) this.#truths.set(now, { at: { ...now }, instead: after })

    if (before === undefined || after === undefined) return undefined
    const row = this.#row(entity, before, em, held)
    return {
      before: row,
      after: this.#row(entity, after, em),
      fields: changedProperties(payload, row),
      belief: { entity, now, before: original }
    }
  }

  /** What is believed once an entity is deleted: to be asked before. */
  deleting (entity: object): Belief {
    return { entity, now: undefined, before: this.#remembered(entity) }
  }

  /**
   * Notes what is true after a rollback took these back, in the order in which they came to be.
   *
   * @param isOver whether the transaction is over: what came before a savepoint may be taken back later
   */
  undo (beliefs: readonly Belief[], isOver: boolean): void {
    for (const { entity, now, before } of beliefs) {
      if (now !== undefined) this.#truths.set(now, { at: { ...now }, instead: isOver && before !== undefined ? this.#truth(before) : before })
      else if (before !== undefined) this.#forgotten.set(entity, before)
    }
  }

  #row (entity: object, data: RowData, em: EntityManager, held?: Held): Row {
    return new Row(entity, data, em, this.#created.has(entity), held)
  }

  #remembered (entity: object): RowData {
    return believed(entity) ?? this.#forgotten.get(entity) ?? {}
  }

  #truth (data: RowData): RowData | undefined {
    const truth = this.#truths.get(data)
    if (truth === undefined) return data

    const instead = truth.instead && this.#truth(truth.instead)
    return instead && { ...instead, ...loadedSince(truth.at, data) }
  }

  /** With a table for each class there is an event for each table: what the earlier ones changed is part of the update. */
  #payload (changeSet: ChangeSet<object>, original: RowData): RowData {
    if (changeSet.meta.inheritanceType !== 'tpt') return changeSet.payload

    const payload = { ...this.#payloads.get(original), ...changeSet.payload }
    this.#payloads.set(original, payload)
    return payload
  }
}

/** What the ORM compares an entity with to find what changed; nothing once it is deleted. */
export function believed (entity: object): RowData | undefined {
  return wrap(entity, true).__originalEntityData as RowData | undefined
}

/** What the ORM loaded into an entity: it writes into what it held before. */
function loadedSince (at: RowData, data: RowData): RowData {
  return Object.fromEntries(Object.entries(data).filter(([name, value]) => value !== at[name]))
}

/** The properties that an update changed; a part of an embeddable stands for the whole. */
function changedProperties (payload: RowData, { data, meta }: Row): Set<string> {
  const names = new Set<string>()
  for (const name of Object.keys(payload)) {
    // drivers add what the database returned
    if (payload[name] === data[name]) continue

    let prop = meta.properties[name]
    if (prop?.embedded !== undefined && prop.hidden === true) continue
    while (prop?.embedded !== undefined) prop = meta.properties[prop.embedded[0]]
    if (prop !== undefined) names.add(prop.name)
  }
  return names
}
