/** What the ORM believes of rows, and what is true where a rollback proved it wrong. */
import { wrap, type EntityManager } from '@mikro-orm/core'
import type { Belief, Change, HeldBelief } from './change-log.ts'
import type { Written } from './flush.ts'
import { Row, type Held, type RowData } from './row.ts'

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

  /** What became of a row that was inserted or updated; nothing where there was no row to update. */
  written ({ changeSet, payload, original, held }: Written, em: EntityManager): Change[] {
    const { entity, meta } = changeSet
    const belief = { entity, before: changeSet.originalEntity as RowData | undefined }
    if (original === undefined) {
      const isComplete = meta.comparableProps.every(({ name }) => name in payload)
      if (!isComplete) this.#created.add(entity)
      return [{ type: 'create', before: undefined, after: new Row(meta, entity, payload, em, true), fields: [], belief }]
    }

    const before = this.#truth(original)
    const after = before && { ...before, ...payload }
    if (before !== original) this.#correct(entity, after)
    if (before === undefined || after === undefined) return []

    const isCreated = this.#created.has(entity)
    const left = new Row(meta, entity, before, em, isCreated, held)
    const entered = new Row(meta, entity, after, em, isCreated)
    if (left.key === entered.key) return [{ type: 'update', before: left, after: entered, fields: changedProperties(payload, left), belief }]
    return [
      { type: 'delete', before: left, after: undefined, fields: [] },
      { type: 'create', before: undefined, after: entered, fields: [], belief }
    ]
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

  /** What is believed once an entity is deleted: to be asked before. */
  deleting (entity: object): Belief {
    return { entity, before: this.#remembered(entity) }
  }

  /**
   * Notes what is true after a rollback took these back, in the order in which they came to be.
   *
   * @param isOver whether the transaction is over: what came before a savepoint may be taken back later
   */
  undo (beliefs: readonly HeldBelief[], isOver: boolean): void {
    for (const { entity, now, before } of beliefs) {
      // the ORM did not get so far
      if (now === before) continue
      if (now !== undefined) this.#truths.set(now, { at: { ...now }, instead: isOver && before !== undefined ? this.#truth(before) : before })
      else if (before !== undefined) this.#forgotten.set(entity, before)
    }
  }

  /** The ORM goes on from what it believed before. */
  #correct (entity: object, instead: RowData | undefined): void {
    const now = believed(entity)
    if (now !== undefined) this.#truths.set(now, { at: { ...now }, instead })
  }

  #row (entity: object, data: RowData, em: EntityManager, held?: Held): Row {
    return new Row(wrap(entity, true).__meta, entity, data, em, this.#created.has(entity), held)
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
