/** What a transaction changed so far: one outcome for each row, savepoints as marks, taken back by rollbacks. */
import { believed } from './beliefs.ts'
import type { Frame, Outcome } from './notifier.ts'
import type { Row, RowData } from './row.ts'
import type { ChangeType } from './rules.ts'

/** One change of one row, as the ORM made it. */
export interface Change {
  readonly type: ChangeType
  readonly before: Row | undefined
  readonly after: Row | undefined
  readonly fields: readonly string[] | undefined
  readonly belief?: Belief | undefined
}

/** What the ORM believed of a row before a change, which is true again after a rollback: `undefined` for no row. */
export interface Belief {
  readonly entity: object
  readonly before: RowData | undefined
}

/** And what it believes from then on. */
export interface HeldBelief extends Belief {
  readonly now: RowData | undefined
}

/** All changes of one row taken together, as of one of them. */
interface Entry {
  readonly key: string
  /** What stood in its place, and does again when the last change is taken back. */
  readonly previous: Entry | undefined
  readonly belief: HeldBelief | undefined
  readonly type: ChangeType
  readonly before: Row | undefined
  readonly fields: readonly string[] | undefined
  /** The place among all that is sent: that of the first change, for a `delete` of the last. */
  readonly order: number
  readonly frames: Frame[]
  /** What was sent of a row of the same key that had been deleted before. */
  readonly predecessor: Entry | undefined
}

/** Knows what is sent of an outcome. */
export interface Announcer {
  frames (outcome: Outcome): Frame[]
}

/** Takes changes, one after the other. */
export interface Sink {
  /** Adds a change. The announcers tell what is sent of the outcome. */
  add (change: Change, announcers: readonly Announcer[]): void
}

/** Something under way, whose changes are there when they are asked for. */
export interface Source {
  /** Whether there may be changes that nobody has asked for. */
  readonly isWaiting: boolean
  /** Whether no two of them are of one row. */
  readonly isSimple: boolean
  /** Gives those that are not given yet. @param isRunning whether it may be in the midst of them */
  drain (sink: Sink, isRunning: boolean): void
}

/** The changes of one outermost transaction. */
export class ChangeLog implements Sink {
  readonly #sources = new Set<Source>()
  readonly #entries = new Map<string, Entry>()
  /** One for each change, in order. */
  readonly #steps: Entry[] = []
  readonly #marks: Array<{ savepoint: string, at: number }> = []

  /** Asks a source from now on, before whatever comes next. */
  begin (source: Source): void {
    this.#sources.add(source)
  }

  /** Asks a source for the last time. */
  end (source: Source): void {
    this.#drain()
    this.#sources.delete(source)
  }

  /** Whether there is nothing to send. */
  get isEmpty (): boolean {
    return this.#entries.size === 0 && ![...this.#sources].some(({ isWaiting }) => isWaiting)
  }

  /** Adds a change to those that the sources have so far. */
  record (change: Change, announcers: readonly Announcer[]): void {
    this.#drain()
    this.add(change, announcers)
  }

  add (change: Change, announcers: readonly Announcer[]): void {
    const { id: key } = (change.before ?? change.after) as Row
    const entry = coalesce(key, this.#entries.get(key), change, this.#steps.length, announcers)
    this.#entries.set(key, entry)
    this.#steps.push(entry)
  }

  /** SAVEPOINT: names may be taken several times. */
  mark (savepoint: string): void {
    this.#drain()
    this.#marks.push({ savepoint, at: this.#steps.length })
  }

  /** RELEASE SAVEPOINT: ends the last one of this name and all that came after it. */
  release (savepoint: string): void {
    this.#marks.splice(this.#find(savepoint))
  }

  /** ROLLBACK TO SAVEPOINT, or without a name that of all. Gives the beliefs that it took back, the first one first. */
  rollback (savepoint?: string): HeldBelief[] {
    this.#drain(false)
    const index = savepoint === undefined ? -1 : this.#find(savepoint)
    const undone = this.#steps.splice(this.#marks[index]?.at ?? 0)
    this.#marks.splice(index + 1)
    for (const { key, previous } of undone.toReversed()) {
      if (previous === undefined) this.#entries.delete(key)
      else this.#entries.set(key, previous)
    }
    return undone.flatMap(({ belief }) => belief ?? [])
  }

  /** What is to be sent, in order. */
  frames (): Frame[] {
    this.#drain(false)
    const entries: Entry[] = []
    for (let entry of this.#entries.values() as Iterable<Entry | undefined>) {
      for (; entry !== undefined; entry = entry.predecessor) entries.push(entry)
    }
    return entries.sort((a, b) => a.order - b.order).flatMap(({ frames }) => frames)
  }

  /**
   * Gives the changes to somebody else instead of taking them in: most transactions are one flush, of which nothing need be kept.
   *
   * @returns false where there is more to it, and `frames` has what is to be sent
   */
  forward (sink: Sink): boolean {
    const [source, ...more] = this.#sources
    if (this.#steps.length > 0 || source?.isSimple !== true || more.length > 0) return false

    source.drain(sink, false)
    return true
  }

  #drain (isRunning = true): void {
    for (const source of this.#sources) source.drain(this, isRunning)
  }

  #find (savepoint: string): number {
    return this.#marks.findLastIndex((mark) => mark.savepoint === savepoint)
  }
}

/** The one rule: `before` is the row at the first change, the outcome what a reader of committed rows would see. */
function coalesce (key: string, previous: Entry | undefined, change: Change, at: number, announcers: readonly Announcer[]): Entry {
  const isAlive = previous !== undefined && previous.type !== 'delete'
  const first = isAlive ? previous : undefined
  const predecessor = isAlive ? previous.predecessor : previous

  const type = first === undefined || change.type === 'delete' ? change.type : first.type
  const before = first === undefined ? change.before : first.before
  const fields = first === undefined ? change.fields : union(first.fields, change.fields)
  const order = first === undefined || type === 'delete' ? at : first.order

  // of a row that began and ended here nothing was known before: nothing is told
  const outcome = { type, before, after: change.after, fields }
  const [only] = announcers
  const frames = announcers.length === 1 && only !== undefined ? only.frames(outcome) : announcers.flatMap((announcer) => announcer.frames(outcome))
  const belief = change.belief && { ...change.belief, now: believed(change.belief.entity) }
  return { key, previous, belief, type, before, fields, order, frames, predecessor }
}

function union (a: readonly string[] | undefined, b: readonly string[] | undefined): readonly string[] | undefined {
  return a === undefined || b === undefined ? undefined : [...new Set([...a, ...b])]
}
