/**
 * Change log of one transaction. It merges the changes of each row, and a savepoint is a mark in it, back to which a
 * ROLLBACK TO SAVEPOINT cuts.
 */
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import type { ChangeType } from '../declare/rules.ts'
import type { Row } from '../row.ts'

/** How a change that no statement of a flush made came into the change log. */
export const ChangeOrigin = {
  /** An M:N collection of the row changed. */
  Collection: 'collection',
  /** `em.upsert`, whose values the database may have refused. */
  Upsert: 'upsert',
  /** `app.rohrpost.notify` with a primary key. */
  Key: 'key',
  /** `app.rohrpost.notify` with an entity, which replaces the row if that is gone. */
  Entity: 'entity'
} as const
export type ChangeOrigin = typeof ChangeOrigin[keyof typeof ChangeOrigin]

/** A change of one row. */
export interface RowChange {
  /** Identity of the row: table, schema and primary key. */
  readonly id: string
  readonly notifiedEntity: NotifiedEntity
  readonly type: ChangeType
  /** Row before the change, as the ORM held it; `undefined` for a new row. */
  readonly before: Row | undefined
  /** Row after the change, as it was flushed; `undefined` for a deleted row. */
  readonly after: Row | undefined
  /** Changed properties; `undefined` if the ORM does not name them. */
  readonly fields: readonly string[] | undefined
  /** `undefined` if a statement of a flush made the change. */
  readonly origin: ChangeOrigin | undefined
}

/** A message of `app.rohrpost.sendToGroup` that is sent when the transaction commits. */
export interface SentMessage {
  readonly group: string
  readonly payload: string
}

/** A change of a row, or a message between the changes. */
export type LogEntry = RowChange | SentMessage

/** A change that `app.rohrpost.notify` announces, before the rules of its entity are known. */
export type ManualChange = Omit<RowChange, 'id' | 'notifiedEntity'>

/** A change in the log, merged with the earlier changes of its row. */
interface LogStep extends RowChange {
  /** Step that this one replaced. It becomes current again when a rollback cuts this one. */
  readonly previous: LogStep | undefined
  /** Place in the publishing order: the first change of the row, but the last one for a `delete`. */
  readonly order: number
  /** Step of a row with the same key that was deleted earlier in the transaction. */
  readonly predecessor: LogStep | undefined
}

/** A message in the log. */
interface MessageStep extends SentMessage {
  /** Place in the publishing order. */
  readonly order: number
}

/** The changes and messages of one outermost transaction, in order. */
export class ChangeLog {
  readonly #current = new Map<string, LogStep>()
  readonly #steps: Array<LogStep | MessageStep> = []
  readonly #marks: Array<{ savepoint: string, at: number }> = []
  /** Rows that were read before the transaction changed them; `undefined` for a row that did not exist. */
  readonly before: Map<string, Row | undefined>

  constructor (before: ReadonlyMap<string, Row | undefined> = new Map()) {
    this.before = new Map(before)
  }

  get isEmpty (): boolean {
    return this.#steps.length === 0
  }

  append (change: RowChange): void {
    const step = merge(this.#current.get(change.id), change, this.#steps.length)
    this.#current.set(change.id, step)
    this.#steps.push(step)
  }

  /** Appends a message behind the changes so far. */
  send ({ group, payload }: SentMessage): void {
    this.#steps.push({ group, payload, order: this.#steps.length })
  }

  /** SAVEPOINT. Several marks may have the same name. */
  mark (savepoint: string): void {
    this.#marks.push({ savepoint, at: this.#steps.length })
  }

  /** RELEASE SAVEPOINT: removes the last mark of this name and all later marks. */
  release (savepoint: string): void {
    this.#marks.splice(this.#find(savepoint))
  }

  /** ROLLBACK TO SAVEPOINT: cuts the log back to the mark, which stays. Without a name, ROLLBACK: cuts everything. */
  cut (savepoint?: string): void {
    const index = savepoint === undefined ? -1 : this.#find(savepoint)
    const undone = this.#steps.splice(this.#marks[index]?.at ?? 0)
    this.#marks.splice(index + 1)
    for (const step of undone.toReversed()) {
      if (isMessage(step)) continue
      if (step.previous === undefined) this.#current.delete(step.id)
      else this.#current.set(step.id, step.previous)
    }
  }

  /** Returns the merged changes, one for each row, and the messages, in publishing order. */
  entries (): LogEntry[] {
    const entries: Array<LogStep | MessageStep> = this.#steps.filter(isMessage)
    for (let step of this.#current.values() as Iterable<LogStep | undefined>) {
      for (; step !== undefined; step = step.predecessor) entries.push(step)
    }
    return entries.sort((a, b) => a.order - b.order)
  }

  #find (savepoint: string): number {
    return this.#marks.findLastIndex((mark) => mark.savepoint === savepoint)
  }
}

/** Whether an entry, or what was made of it, is a message. */
export function isMessage<Entry extends object> (entry: Entry): entry is Extract<Entry, SentMessage> {
  return 'payload' in entry
}

export function changesOf (entries: readonly LogEntry[]): RowChange[] {
  return entries.flatMap((entry) => isMessage(entry) ? [] : [entry])
}

/** Merges a change with the earlier changes of its row, as a reader of committed rows sees them. */
function merge (previous: LogStep | undefined, change: RowChange, at: number): LogStep {
  const isAlive = previous !== undefined && previous.type !== 'delete'
  const first = isAlive ? previous : undefined
  const type = first === undefined || change.type === 'delete' ? change.type : first.type
  return {
    id: change.id,
    notifiedEntity: change.notifiedEntity,
    type,
    before: first === undefined ? change.before : first.before,
    // a changed collection leaves the columns as the flush wrote them
    after: change.origin === ChangeOrigin.Collection && first !== undefined ? first.after : change.after,
    fields: first === undefined ? change.fields : union(first.fields, change.fields),
    // a row that a statement of a flush wrote is locked, whatever else changed it
    origin: first === undefined || first.origin !== undefined ? change.origin : undefined,
    order: first === undefined || type === 'delete' ? at : first.order,
    previous,
    predecessor: isAlive ? previous.predecessor : previous
  }
}

function union (a: readonly string[] | undefined, b: readonly string[] | undefined): readonly string[] | undefined {
  return a === undefined || b === undefined ? undefined : [...new Set([...a, ...b])]
}
