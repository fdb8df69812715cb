/** A small collection that stays current: a first load, and the changes from then on. */
import { attempt } from './emitter.ts'
import type { Change, Watcher } from './subscription.ts'

/**
 * `loading`: what is there is about to be replaced. `current`: up to date. `stale`: the connection is down, it loads again when it is
 * back. `failed`: `load` or the subscription failed, see `error`. `closed`: nothing changes any more.
 */
export type LiveStatus = 'loading' | 'current' | 'stale' | 'failed' | 'closed'

/** How a collection is filled. */
export interface LiveOptions<Item> {
  /** Loads all objects. Called when the group is joined, so that nothing falls between, and again when changes were missed. */
  load: () => readonly Item[] | Promise<readonly Item[]>
  /** What tells objects apart. @defaultValue `object.id` */
  key?: ((object: Item) => unknown) | undefined
  /** Closes the collection. */
  signal?: AbortSignal | undefined
}

/** See {@link LiveStatus}. Made by `client.live()`. Its functions need no `this`. */
export class Live<Item> {
  readonly #options: LiveOptions<Item>
  readonly #watch: (watcher: Watcher) => () => void
  /** Ends the subscription, while there is one. */
  #stop: (() => void) | undefined
  readonly #listeners = new Set<() => void>()
  #items = new Map<unknown, Item>()
  #snapshot: readonly Item[] = []
  #status: LiveStatus = 'loading'
  #error: unknown
  /** Changes that came while `load` runs. */
  #early: Change<Item>[] | undefined
  /** Whether the objects are those of a load, with all changes since. */
  #isLoaded = false
  /** Which run of `load` counts. */
  #run = 0

  constructor (options: LiveOptions<Item>, watch: (watcher: Watcher) => () => void) {
    this.#options = options
    this.#watch = watch
    if (options.signal?.aborted) {
      this.#status = 'closed'
    } else {
      options.signal?.addEventListener('abort', this.close)
      this.#join()
    }
  }

  /** Whether the objects are up to date. */
  get status (): LiveStatus {
    return this.#status
  }

  /** Why the status is `failed`. */
  get error (): unknown {
    return this.#error
  }

  /** The objects: the same array until something changes, the objects or the status. */
  readonly getSnapshot = (): readonly Item[] => this.#snapshot

  /** Calls back with the objects, now and after each change. @returns ends it */
  readonly subscribe = (listener: (objects: readonly Item[]) => void): () => void => {
    const call = () => attempt(() => listener(this.#snapshot))
    this.#listeners.add(call)
    call()
    return () => { this.#listeners.delete(call) }
  }

  /** Loads again, after a failure too. Does nothing while the connection is down: it loads when that is back. */
  readonly reload = (): void => {
    if (this.#status !== 'current' && this.#status !== 'failed') return
    if (this.#stop !== undefined) this.#load()
    else this.#join()
  }

  /** Ends the subscription; the objects stay as they are. */
  readonly close = (): void => {
    this.#stop?.()
    this.#interrupt('closed')
  }

  #join (): void {
    this.#publish('loading')
    this.#stop = this.#watch({
      joined: () => this.#load(),
      changed: (change) => this.#receive(change),
      lost: () => this.#interrupt('stale'),
      recovered: () => this.#isLoaded ? this.#publish('current') : this.#load(),
      resync: () => this.#load(),
      ended: (error) => {
        this.#stop = undefined
        this.#interrupt(error === undefined ? 'closed' : 'failed', error)
      }
    })
  }

  async #load (): Promise<void> {
    const run = ++this.#run
    const early: Change<Item>[] = []
    this.#early = early
    this.#isLoaded = false
    this.#publish('loading')
    try {
      const objects = await this.#options.load()
      if (run !== this.#run) return
      this.#items = new Map(objects.map((object) => [this.#keyOf(object), object]))
      this.#catchUp(early, 'current')
    } catch (error) {
      if (run === this.#run) this.#catchUp(early, 'failed', error)
    }
  }

  #catchUp (early: Change<Item>[], status: LiveStatus, error?: unknown): void {
    for (const change of early) attempt(() => this.#apply(change))
    this.#early = undefined
    this.#isLoaded = status === 'current'
    this.#publish(status, error)
  }

  #receive (change: Change<Item>): void {
    if (this.#early !== undefined) {
      this.#early.push(change)
      return
    }
    this.#apply(change)
    this.#publish(this.#status, this.#error)
  }

  #apply ({ type, object }: Change<Item>): void {
    const key = this.#keyOf(object)
    if (type === 'delete') this.#items.delete(key)
    else this.#items.set(key, merge(type === 'update' ? this.#items.get(key) : undefined, object))
  }

  /** Nothing that is under way counts any more. */
  #interrupt (status: LiveStatus, error?: unknown): void {
    if (this.#status === 'closed') return
    this.#run++
    this.#early = undefined
    if (status === 'closed') this.#options.signal?.removeEventListener('abort', this.close)
    this.#publish(status, error)
  }

  #keyOf (object: Item): unknown {
    return this.#options.key === undefined ? (object as { id?: unknown }).id : this.#options.key(object)
  }

  #publish (status: LiveStatus, error?: unknown): void {
    this.#status = status
    this.#error = error
    this.#snapshot = Object.freeze([...this.#items.values()])
    for (const call of [...this.#listeners]) call()
  }
}

/** An update may carry some properties only; `updated_fields` is about the change, not about the object. */
function merge<Item> (before: Item | undefined, after: Item): Item {
  if (typeof after !== 'object' || after === null) return after
  const { updated_fields: _, ...properties } = after as Item & { updated_fields?: unknown }
  return { ...before, ...properties } as Item
}
