/** The changes of one transaction: one entry for each row; savepoints are marks, to which rollbacks cut the log. */
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import type { Row } from '../row.ts'
import type { ChangeType } from '../declare/rules.ts'

/** How a row that no statement of a flush wrote came into the log. */
export const ChangeOrigin = {
  /** An M:N collection of the row changed. */
  Collection: 'collection',
  /** `em.upsert`, which may have refused what it was given. */
  Upsert: 'upsert',
  /** `notify`, by key. */
  Key: 'key',
  /** `notify`, with an entity: it counts where the row is gone. */
  Entity: 'entity'
} as const
export type ChangeOrigin = typeof ChangeOrigin[keyof typeof ChangeOrigin]

/** One change of one row. */
export interface RowChange {
  readonly type: ChangeType
  /** The row as the ORM held it; nothing for a new one. */
  readonly before: Row | undefined
  /** The row as it was flushed; nothing for a deleted one. */
  readonly after: Row | undefined
  /** The changed properties; nothing where the ORM does not tell. */
  readonly fields: readonly string[] | undefined
  readonly origin?: ChangeOrigin | undefined
}

/** All changes of one row in a transaction, taken together. */
export interface LogEntry extends RowChange {
  /** What tells the row from all others. */
  readonly id: string
  readonly notifiedEntity: NotifiedEntity
}

/** An entry in the log. */
interface LogStep extends LogEntry {
  /** The step that this one replaced; it counts again when the change is rolled back. */
  readonly previous: LogStep | undefined
  /** The place among all that is sent: that of the first change, for a `delete` that of the last. */
  readonly order: number
  /** The entry of a row with the same key that was deleted before in this transaction. */
  readonly predecessor: LogStep | undefined
}

/** Takes changes, one after the other. */
export interface Sink {
  add (change: RowChange, notifiedEntity: NotifiedEntity): void
}

/** A running flush. Its changes are pulled with `drain`. */
export interface Pending {
  /** Whether there may be changes that were not pulled. */
  readonly isWaiting: boolean
  /** Gives the changes since the last call. @param isRunning whether the flush may be between two of its statements */
  drain (sink: Sink, isRunning: boolean): void
}

/** The changes of one outermost transaction. */
export class ChangeLog implements Sink {
  readonly #pending = new Set<Pending>()
  readonly #last = new Map<string, LogStep>()
  /** One for each change, in order. */
  readonly #steps: LogStep[] = []
  readonly #marks: Array<{ savepoint: string, at: number }> = []
  /** Rows that were read before the transaction changed them; `undefined` for one that was not there. */
  readonly before: Map<string, Row | undefined>
  /** Why a statement of ours failed in a hook that must not throw: the COMMIT rejects with it. */
  failure: { readonly error: unknown } | undefined

  constructor (before: ReadonlyMap<string, Row | undefined> = new Map()) {
    this.before = new Map(before)
  }

  /** Pulls the changes of a flush from now on. */
  begin (flush: Pending): void {
    this.#pending.add(flush)
  }

  /** Pulls the changes of a flush for the last time. */
  end (flush: Pending): void {
    this.#drain()
    this.#pending.delete(flush)
  }

  /** Whether there is nothing to send. */
  get isEmpty (): boolean {
    return this.#last.size === 0 && ![...this.#pending].some(({ isWaiting }) => isWaiting)
  }

  /** Adds a change after those that the flushes made so far. */
  record (change: RowChange, notifiedEntity: NotifiedEntity): void {
    this.#drain()
    this.add(change, notifiedEntity)
  }

  add (change: RowChange, notifiedEntity: NotifiedEntity): void {
    const { id } = (change.before ?? change.after) as Row
    const step = coalesce(id, this.#last.get(id), change, this.#steps.length, notifiedEntity)
    this.#last.set(id, step)
    this.#steps.push(step)
  }

  /** SAVEPOINT: a name may be used several times. */
  mark (savepoint: string): void {
    this.#drain()
    this.#marks.push({ savepoint, at: this.#steps.length })
  }

  /** RELEASE SAVEPOINT: ends the last one of this name and all that came after it. */
  release (savepoint: string): void {
    this.#marks.splice(this.#find(savepoint))
  }

  /** ROLLBACK TO SAVEPOINT; without a name, ROLLBACK. */
  rollback (savepoint?: string): void {
    this.#drain(false)
    const index = savepoint === undefined ? -1 : this.#find(savepoint)
    const undone = this.#steps.splice(this.#marks[index]?.at ?? 0)
    this.#marks.splice(index + 1)
    for (const { id, previous } of undone.toReversed()) {
      if (previous === undefined) this.#last.delete(id)
      else this.#last.set(id, previous)
    }
  }

  /** The changes by row, in the order in which they are sent. */
  entries (): LogEntry[] {
    this.#drain(false)
    const entries: LogStep[] = []
    for (let step of this.#last.values() as Iterable<LogStep | undefined>) {
      for (; step !== undefined; step = step.predecessor) entries.push(step)
    }
    return entries.sort((a, b) => a.order - b.order)
  }

  #drain (isRunning = true): void {
    for (const flush of this.#pending) flush.drain(this, isRunning)
  }

  #find (savepoint: string): number {
    return this.#marks.findLastIndex((mark) => mark.savepoint === savepoint)
  }
}

/** Takes a change together with those of the same row before it, as a reader of committed rows would see them. */
function coalesce (id: string, previous: LogStep | undefined, change: RowChange, at: number, notifiedEntity: NotifiedEntity): LogStep {
  const isAlive = previous !== undefined && previous.type !== 'delete'
  const first = isAlive ? previous : undefined
  const type = first === undefined || change.type === 'delete' ? change.type : first.type
  return {
    id,
    notifiedEntity,
    type,
    before: first === undefined ? change.before : first.before,
    // a collection leaves the columns as they were flushed
    after: change.origin === ChangeOrigin.Collection && first !== undefined ? first.after : change.after,
    fields: first === undefined ? change.fields : union(first.fields, change.fields),
    // a statement that wrote the row holds its lock
    origin: first === undefined || first.origin !== undefined ? change.origin : undefined,
    order: first === undefined || type === 'delete' ? at : first.order,
    previous,
    predecessor: isAlive ? previous.predecessor : previous
  }
}

function union (a: readonly string[] | undefined, b: readonly string[] | undefined): readonly string[] | undefined {
  return a === undefined || b === undefined ? undefined : [...new Set([...a, ...b])]
}
