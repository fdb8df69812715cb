/** A small collection that stays current: a first load, and the changes from then on. */
import { backoff, type Backoff } from './retry-delay.ts'
import { check, checkFunction, MAX_DELAY, show } from './option-checks.ts'
import { checkSignal } from './deferred.ts'
import { attempt } from './emitter.ts'
import type { Change, Watcher } from './subscribed-group.ts'

/**
 * `loading`: what is there is about to be replaced, or asked for again after an `error` that says `retry`. `current`: up to date. `stale`: the connection is down, it loads again when it is
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

/** What a collection needs of its client. */
export interface LiveContext {
  readonly watch: (watcher: Watcher) => () => void
  readonly backoff: Backoff
  /** Something failed that no caller hears of. */
  readonly report: (error: unknown) => void
}

/** Milliseconds between two rounds of calls of the listeners: a frame. */
const FRAME = 16

/** See {@link LiveStatus}. Made by `client.live()`. Its functions need no `this`. */
export class Live<Item> {
  readonly #options: LiveOptions<Item>
  readonly #context: LiveContext
  /** Ends the subscription, while there is one. */
  #stop: (() => void) | undefined
  readonly #listeners = new Set<() => void>()
  #items = new Map<unknown, Item>()
  /** Made when it is asked for. */
  #snapshot: readonly Item[] | undefined
  #status: LiveStatus = 'loading'
  #error: unknown
  /** Changes that came while `load` runs. */
  #early: Change<Item>[] | undefined
  /** Whether the objects are those of a load, with all changes since. */
  #isLoaded = false
  /** Which run of `load` counts. */
  #run = 0
  /** Loads that failed since the last that did not. */
  #failures = 0
  /** Waits for the next load. */
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Runs for a frame after the listeners were called. */
  #frame: ReturnType<typeof setTimeout> | undefined
  /** Whether something changed since. */
  #isChanged = false

  constructor (options: LiveOptions<Item>, context: LiveContext) {
    const { load, key, signal } = options
    check(typeof load === 'function', 'load', 'a function', load)
    checkFunction('key', key)
    checkSignal(signal)
    this.#options = options
    this.#context = context
    if (signal?.aborted) {
      this.#status = 'closed'
    } else {
      signal?.addEventListener('abort', this.close)
      this.#join()
    }
  }

  /** Whether the objects are up to date. */
  get status (): LiveStatus {
    return this.#status
  }

  /** Why the status is `failed`, or why it is still `loading`. */
  get error (): unknown {
    return this.#error
  }

  /** The objects: the same array until something changes, the objects or the status. */
  readonly getSnapshot = (): readonly Item[] => {
    this.#snapshot ??= Object.freeze([...this.#items.values()])
    return this.#snapshot
  }

  /**
   * Calls back with the objects, now, at once after a change, and once for all changes that come within a frame after that.
   *
   * @returns ends it
   */
  readonly subscribe = (listener: (objects: readonly Item[]) => void): () => void => {
    const call = () => attempt(() => listener(this.getSnapshot()))
    this.#listeners.add(call)
    call()
    return () => { this.#listeners.delete(call) }
  }

  /** Loads again, after a failure too. Does nothing while the connection is down: it loads when that is back. */
  readonly reload = (): void => {
    if (this.#status !== 'current' && this.#status !== 'failed') return
    if (this.#stop) this.#load()
    else this.#join()
  }

  /** Ends the subscription; the objects stay as they are. */
  readonly close = (): void => {
    this.#stop?.()
    this.#interrupt('closed')
  }

  #join (): void {
    this.#publish('loading')
    this.#stop = this.#context.watch({
      joined: () => this.#load(),
      changed: (change) => this.#receive(change),
      lost: () => this.#interrupt('stale'),
      recovered: () => this.#isLoaded ? this.#publish('current') : this.#load(),
      resync: (_, spread) => this.#loadLater(Math.random() * spread),
      ended: (error) => {
        this.#stop = undefined
        // what the server does not show any more is not shown any more
        if (error) this.#items.clear()
        this.#interrupt(error ? 'failed' : 'closed', error)
      }
    })
  }

  /** Loads after a delay: clients that load at once would all do so at the same time. */
  #loadLater (delay: number, error?: unknown): void {
    if (!delay) {
      this.#load()
      return
    }
    this.#run++
    this.#early = undefined
    this.#isLoaded = false
    this.#timer ??= setTimeout(() => this.#load(), Math.min(delay, MAX_DELAY))
    this.#publish('loading', error)
  }

  async #load (): Promise<void> {
    this.#rest()
    const run = ++this.#run
    const early: Change<Item>[] = this.#early = []
    this.#isLoaded = false
    this.#publish('loading')
    try {
      const objects = await this.#options.load()
      if (run !== this.#run) return
      check(Array.isArray(objects), 'load', 'a function that gives an array', objects)
      this.#items = new Map(objects.map((object) => [this.#keyOf(object), object]))
      this.#isChanged = true
      this.#failures = 0
      this.#catchUp(early, 'current')
    } catch (error) {
      if (run !== this.#run) return
      const { retry, retryAfter } = Object(error)
      this.#catchUp(early, retry === true ? 'loading' : 'failed', error)
      if (retry === true) this.#loadLater(backoff(this.#context.backoff, this.#failures++, retryAfter), error)
    }
  }

  #catchUp (early: Change<Item>[], status: LiveStatus, error?: unknown): void {
    for (const change of early) this.#apply(change)
    this.#early = undefined
    this.#isLoaded = status === 'current'
    this.#publish(status, error)
  }

  #receive (change: Change<Item>): void {
    if (this.#early) {
      this.#early.push(change)
      return
    }
    this.#apply(change)
    this.#publish(this.#status, this.#error)
  }

  #apply ({ type, object }: Change<Item>): void {
    try {
      const key = this.#keyOf(object)
      if (type === 'delete') this.#items.delete(key)
      else this.#items.set(key, merge(type === 'update' ? this.#items.get(key) : undefined, object))
      this.#isChanged = true
    } catch (error) {
      this.#context.report(error)
    }
  }

  /** Nothing that is under way counts any more. */
  #interrupt (status: LiveStatus, error?: unknown): void {
    if (this.#status === 'closed') return
    this.#rest()
    this.#run++
    this.#early = undefined
    if (status === 'closed') this.#options.signal?.removeEventListener('abort', this.close)
    this.#publish(status, error)
  }

  #rest (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #keyOf (object: Item): unknown {
    const { key } = this.#options
    const value = key ? key(object) : (object as { id?: unknown } | null | undefined)?.id
    if (value === undefined || value === null) throw new TypeError(`Option 'key' (by default object.id) gives no key for ${show(object).slice(0, 100)}`)
    return value
  }

  #publish (status: LiveStatus, error?: unknown): void {
    if (status !== this.#status || error !== this.#error) this.#isChanged = true
    if (!this.#isChanged) return
    this.#status = status
    this.#error = error
    this.#snapshot = undefined
    if (status === 'closed' || !this.#frame) this.#notify()
  }

  /** Calls the listeners, and again after a frame if something has changed by then. */
  #notify (): void {
    this.#isChanged = false
    this.#startFrame()
    for (const call of [...this.#listeners]) call()
    // what they did took its time, and messages need some too
    this.#startFrame()
  }

  #startFrame (): void {
    clearTimeout(this.#frame)
    if (this.#status === 'closed') return
    this.#frame = setTimeout(() => {
      this.#frame = undefined
      if (this.#isChanged) this.#notify()
    }, FRAME)
  }
}

/** An update may carry some properties only; `updated_fields` is about the change, not about the object. */
function merge<Item> (before: Item | undefined, after: Item): Item {
  if (typeof after !== 'object' || after === null) return after
  const { updated_fields: _, ...properties } = after as Item & { updated_fields?: unknown }
  return { ...before, ...properties } as Item
}
