/**
 * A running flush of the unit of work. It reads executed INSERTs and UPDATEs from the change sets when they are needed:
 * an `afterCreate` event for each row would cost as much as all other work on the row.
 */
import { ChangeSetType, wrap, type ChangeSet, type EntityManager, type UnitOfWork } from '@mikro-orm/core'
import type { FindNotifiedEntity } from '../declare/entity-registry.ts'
import { originalData, type RowData } from '../row.ts'
import type { RowChange } from './change-log.ts'
import type { RowChangeBuilder } from './row-changes.ts'
import { isSilent } from './silence.ts'

/** An UPDATE after the INSERT of a row, with values that the INSERT could not have yet, such as a cyclic reference. */
type ExtraUpdate = ReturnType<UnitOfWork['getExtraUpdates']> extends Set<infer Extra> ? Extra : never

/** Order in which the unit of work executes change sets. DELETEs are not listed: they have events. */
const ORDER: Readonly<Record<string, number>> = {
  [ChangeSetType.UPDATE_EARLY]: 0,
  [ChangeSetType.CREATE]: 1,
  [ChangeSetType.UPDATE]: 2
}

/** The change sets of one flush, and which of them are executed. */
export class Flush {
  readonly #em: EntityManager
  readonly #uow: UnitOfWork
  readonly #builder: RowChangeBuilder
  readonly #notifiedEntityOf: FindNotifiedEntity
  /** Change sets of the unit of work at the last look. */
  #known: ReadonlyArray<ChangeSet<object>> = []
  /** Change sets of notified entities that were not executed at the last look. */
  #pending: Array<ChangeSet<object>> = []
  /** Extra updates, and whether `changes()` has yielded them. */
  readonly #extras = new Map<ExtraUpdate, boolean>()

  constructor (em: EntityManager, uow: UnitOfWork, builder: RowChangeBuilder, notifiedEntityOf: FindNotifiedEntity) {
    this.#em = em
    this.#uow = uow
    this.#builder = builder
    this.#notifiedEntityOf = notifiedEntityOf
    this.collect()
    // the unit of work still lists the extra updates of the flush before, if this one was queued behind it
    for (const extra of this.#extras.keys()) this.#extras.set(extra, isExecuted(extra))
  }

  /** Whether a change set of a notified entity is not executed yet, or not yielded by `changes()`. */
  get hasPending (): boolean {
    return this.#pending.length > 0
  }

  isPending (changeSet: ChangeSet<object>): boolean {
    return this.#pending.includes(changeSet)
  }

  /** Looks up the change sets of the unit of work. Other subscribers may add change sets in their `onFlush`. */
  collect (): void {
    this.#collectExtras()
    const all = this.#uow.getChangeSets() as Array<ChangeSet<object>>
    if (all.length === this.#known.length && all.every((changeSet, i) => changeSet === this.#known[i])) return

    const known = new Set(this.#known)
    this.#known = all
    for (const changeSet of all) {
      const { type, entity } = changeSet
      if (!(type in ORDER) || known.has(changeSet)) continue
      if (!isSilent() && this.#notifiedEntityOf(entity) !== undefined) this.#pending.push(changeSet)
    }
    this.#pending.sort((a, b) => Number(ORDER[a.type]) - Number(ORDER[b.type]))
  }

  /**
   * Yields the changes of the statements that were executed since the last call. It must be iterated to its end.
   *
   * @param isRunning `true` while the flush may execute further statements: then rows whose generated values MikroORM
   * has not merged into the entity yet are left for a later call
   */
  * changes (isRunning: boolean): Generator<RowChange, void> {
    const pending = this.#pending
    this.#pending = []
    for (const changeSet of pending) {
      const { payload, isComplete } = executedPayload(changeSet)
      const isYielded = payload !== undefined && !(isRunning && isUnmerged(changeSet))
      if (isYielded) yield * this.#written(changeSet, payload, changeSet.originalEntity)
      if (!isYielded || !isComplete) this.#pending.push(changeSet)
    }

    this.#collectExtras()
    for (const [extra, isYielded] of this.#extras) {
      if (isYielded || !isExecuted(extra)) continue

      this.#extras.set(extra, true)
      const changeSet = extra[3] as ChangeSet<object>
      const { payload, originalEntity } = changeSet
      const nulls = Object.fromEntries(executedNames(extra).map((name) => [name, null]))
      yield * this.#written(changeSet, payload, originalEntity ?? { ...payload, ...nulls })
    }
  }

  #written (changeSet: ChangeSet<object>, payload: RowData, original: unknown): readonly RowChange[] {
    const notifiedEntity = this.#notifiedEntityOf(changeSet.entity)
    if (notifiedEntity === undefined) return []
    return this.#builder.written(changeSet, payload, original as RowData | undefined, this.#em, notifiedEntity)
  }

  #collectExtras (): void {
    for (const extra of this.#uow.getExtraUpdates()) {
      if (!this.#extras.has(extra)) this.#extras.set(extra, false)
    }
  }
}

/**
 * Payload of the executed statements of a change set. An entity with a table for each class (TPT) has several
 * statements.
 */
function executedPayload (changeSet: ChangeSet<object>): { payload: RowData | undefined, isComplete: boolean } {
  const { type, payload, persisted, tptChangeSets } = changeSet
  if (tptChangeSets === undefined) return { payload: persisted ? payload : undefined, isComplete: persisted }

  const parts = [...tptChangeSets, changeSet].filter(({ payload }) => Object.keys(payload).length > 0)
  const executed = parts.filter(({ persisted }) => persisted)
  const isComplete = executed.length === parts.length
  if (executed.length === 0 || (type === ChangeSetType.CREATE && !isComplete)) return { payload: undefined, isComplete }
  return { payload: Object.assign({}, ...executed.map(({ payload }) => payload)) as RowData, isComplete }
}

/** Whether MikroORM has executed a statement and not yet merged its generated values into the entity. */
function isUnmerged ({ entity, originalEntity }: ChangeSet<object>): boolean {
  return wrap(entity, true).__processing === true && originalData(entity) === originalEntity
}

/** Properties of an extra update that are in the payload: MikroORM merges them into the entity after the last row. */
function executedNames ([, names, , changeSet]: ExtraUpdate): string[] {
  return [names].flat().filter((name) => changeSet !== undefined && name in changeSet.payload)
}

function isExecuted (extra: ExtraUpdate): boolean {
  return executedNames(extra).length > 0
}
