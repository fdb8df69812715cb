/** What flushes insert and update: looked up when it is needed, as an event for each row costs as much as all that is done with it. */
import { ChangeSetType, wrap, type ChangeSet, type EntityManager, type EventArgs, type EventSubscriber, type UnitOfWork } from '@mikro-orm/core'
import type { ChangeLog, Sink, Pending } from './change-log.ts'
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import { originalData, type RowData } from '../row.ts'

/** An INSERT or UPDATE of a row that was executed. */
export interface Written {
  readonly changeSet: ChangeSet<object>
  /** What was flushed of the row. */
  readonly payload: RowData
  /** What the ORM held of it before; nothing where there was no row. */
  readonly original: RowData | undefined
}

/** What flushes need to know of their surroundings. */
interface FlushContext {
  notifiedEntity: (entity: object) => NotifiedEntity | undefined
  /** Told of each row; must not throw. Without a sink where the flush is in no transaction that is known. */
  write: (written: Written, em: EntityManager, sink: Sink | undefined) => void
}

/** An UPDATE after the first statement of a row, of values that it could not have yet. */
type ExtraUpdate = ReturnType<UnitOfWork['getExtraUpdates']> extends Set<infer Extra> ? Extra : never

/** In what order the ORM works; deletes have events. */
const ORDER: Readonly<Record<string, number>> = { [ChangeSetType.UPDATE_EARLY]: 0, [ChangeSetType.CREATE]: 1, [ChangeSetType.UPDATE]: 2 }

/** The flushes under way, by the `EntityManager` that makes them. */
export class Flushes {
  readonly #context: FlushContext
  readonly #running = new WeakMap<EntityManager, Flush>()
  /** Hears of each row where there are no transactions: what a flush wrote before it failed stays then, and there is no event after that. */
  readonly #untransacted: EventSubscriber = {
    afterCreate: (args) => this.#written(args),
    afterUpdate: (args) => this.#written(args)
  }

  constructor (context: FlushContext) {
    this.#context = context
  }

  /** `onFlush`. @param log that of the transaction around it */
  begin (em: EntityManager, uow: UnitOfWork, log: ChangeLog | undefined): void {
    // one that failed
    this.#running.get(em)?.end()
    this.#running.set(em, new Flush(em, uow, this.#context))

    if (em.isInTransaction()) this.join(em, log)
    else if (!em.config.get('implicitTransactions') || !em.getPlatform().supportsTransactions()) em.getEventManager().registerSubscriber(this.#untransacted)
  }

  /** A transaction has begun, of the flush perhaps. */
  join (em: EntityManager, log: ChangeLog | undefined): void {
    if (log !== undefined) this.#running.get(em)?.join(log)
  }

  /** `afterFlush`. */
  complete (em: EntityManager): void {
    this.#running.get(em)?.complete()
    this.#running.delete(em)
  }

  #written ({ em, changeSet }: EventArgs<object>): void {
    const flush = this.#running.get(em)
    if (!em.isInTransaction() && flush?.isWaitingFor(changeSet as ChangeSet<object>) === true) flush.drain()
  }
}

/** The inserts and updates of one flush. */
class Flush implements Pending {
  readonly #em: EntityManager
  readonly #uow: UnitOfWork
  readonly #context: FlushContext
  #log: ChangeLog | undefined
  /** Its changes when last looked at. */
  #known: ReadonlyArray<ChangeSet<object>> = []
  /** Those of them that were not executed then. */
  #waiting: Array<ChangeSet<object>> = []
  /** Whether they were executed. */
  readonly #extras = new Map<ExtraUpdate, boolean>()

  constructor (em: EntityManager, uow: UnitOfWork, context: FlushContext) {
    this.#em = em
    this.#uow = uow
    this.#context = context
    this.#collect()
    // a flush that waited for another one still finds those of that
    for (const extra of this.#extras.keys()) this.#extras.set(extra, isDone(extra))
  }

  /** It is part of a transaction, whose log asks from now on. */
  join (log: ChangeLog): void {
    this.#collect()
    this.#log = log
    log.begin(this)
  }

  /** All is done. */
  complete (): void {
    this.#collect()
    this.end()
  }

  /** Nothing more will be done. */
  end (): void {
    if (this.#log === undefined) this.drain()
    else this.#log.end(this)
  }

  get isWaiting (): boolean {
    return this.#waiting.length > 0
  }

  isWaitingFor (changeSet: ChangeSet<object>): boolean {
    return this.#waiting.includes(changeSet)
  }

  /**
   * Tells what was executed since the last time.
   *
   * @param isRunning whether the flush may go on: then what the ORM has not taken note of is left for later, as it knows its values only then
   */
  drain (sink?: Sink, isRunning = false): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const changeSet of waiting) {
      const { payload, isComplete } = executed(changeSet)
      const isTaken = payload !== undefined && !(isRunning && isInHand(changeSet))
      if (isTaken) this.#write(changeSet, payload, changeSet.originalEntity, sink)
      if (!isTaken || !isComplete) this.#waiting.push(changeSet)
    }

    this.#collectExtras()
    for (const [extra, isExecuted] of this.#extras) {
      if (isExecuted || !isDone(extra)) continue

      this.#extras.set(extra, true)
      const { payload, originalEntity } = extra[3] as ChangeSet<object>
      const nothing = Object.fromEntries(namesOf(extra).map((name) => [name, null]))
      this.#write(extra[3] as ChangeSet<object>, payload, originalEntity ?? { ...payload, ...nothing }, sink)
    }
  }

  /** Looks up what the flush is about to do; other subscribers may add to it. */
  #collect (): void {
    this.#collectExtras()
    const all = this.#uow.getChangeSets() as Array<ChangeSet<object>>
    if (all.length === this.#known.length && all.every((changeSet, i) => changeSet === this.#known[i])) return

    const known = new Set(this.#known)
    this.#known = all
    for (const changeSet of all) {
      const { type, entity } = changeSet
      if (!(type in ORDER) || known.has(changeSet)) continue
      if (this.#context.notifiedEntity(entity) !== undefined) this.#waiting.push(changeSet)
    }
    this.#waiting.sort((a, b) => Number(ORDER[a.type]) - Number(ORDER[b.type]))
  }

  #write (changeSet: ChangeSet<object>, payload: RowData, original: unknown, sink: Sink | undefined): void {
    this.#context.write({ changeSet, payload, original: original as RowData | undefined }, this.#em, sink)
  }

  #collectExtras (): void {
    for (const extra of this.#uow.getExtraUpdates()) {
      if (!this.#extras.has(extra)) this.#extras.set(extra, false)
    }
  }
}

/** What was executed of a change: with a table for each class there is a statement for each. */
function executed (changeSet: ChangeSet<object>): { payload: RowData | undefined, isComplete: boolean } {
  const { type, payload, persisted, tptChangeSets } = changeSet
  if (tptChangeSets === undefined) return { payload: persisted ? payload : undefined, isComplete: persisted }

  const parts = [...tptChangeSets, changeSet].filter(({ payload }) => Object.keys(payload).length > 0)
  const done = parts.filter(({ persisted }) => persisted)
  const isComplete = done.length === parts.length
  if (done.length === 0 || (type === ChangeSetType.CREATE && !isComplete)) return { payload: undefined, isComplete }
  return { payload: Object.assign({}, ...done.map(({ payload }) => payload)) as RowData, isComplete }
}

/** Whether the ORM has yet to take note of what it executed. */
function isInHand ({ entity, originalEntity }: ChangeSet<object>): boolean {
  return wrap(entity, true).__processing === true && originalData(entity) === originalEntity
}

/** Those of its properties that a later UPDATE has written: the ORM adds their values to what it wrote before once it is done with all rows. */
function namesOf ([, names, , changeSet]: ExtraUpdate): string[] {
  return [names].flat().filter((name) => changeSet !== undefined && name in changeSet.payload)
}

function isDone (extra: ExtraUpdate): boolean {
  return namesOf(extra).length > 0
}
