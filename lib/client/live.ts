/** A collection of objects that stays current: an initial load, and the changes from then on. */
import { callSafely } from './emitter.ts'
import { check, checkFunction, MAX_DELAY } from './option-checks.ts'
import { retryDelay, type DelayBounds } from './retry-delay.ts'
import type { Change, Watcher } from './subscribed-group.ts'
import { onAbort } from './waiting.ts'

/** Milliseconds between two rounds of calls of the listeners: a frame. */
const FRAME = 16

/**
 * `loading`: the objects are about to be replaced, also while a load or a subscription that failed with `retry` is
 * repeated. `current`: up to date. `stale`: the connection is down; the objects are brought up to date when it is back.
 * `failed`: `load` or the subscription failed, see `error`. `closed`: nothing changes any more.
 */
export type LiveStatus = 'loading' | 'current' | 'stale' | 'failed' | 'closed'

/** Options of a live collection. */
export interface LiveOptions<Item> {
  /**
   * Loads all objects. Called when the group is joined, so that no change falls between, and again when changes were
   * missed.
   */
  load: () => readonly Item[] | Promise<readonly Item[]>
  /** Identifies an object. @defaultValue `object.id` */
  key?: ((object: Item) => unknown) | undefined
  /** Closes the collection. */
  signal?: AbortSignal | undefined
}

/** The options, and the parts of the client that a live collection needs. */
export interface LiveSettings<Item> extends LiveOptions<Item> {
  readonly watch: (watcher: Watcher) => () => void
  readonly backoff: DelayBounds
  /** Reports a failure that rejects no promise. */
  readonly report: (error: unknown) => void
}

/** See {@link LiveStatus}. Made by `client.live()`. Its functions need no `this`. */
export class Live<Item> {
  readonly #settings: LiveSettings<Item>
  #stopListening: (() => void) | undefined
  /** Ends the subscription, while there is one. */
  #unwatch: (() => void) | undefined
  readonly #listeners = new Set<() => void>()
  #items = new Map<unknown, Item>()
  /** Made on demand, after each change. */
  #snapshot: readonly Item[] | undefined
  #status: LiveStatus = 'loading'
  #error: unknown
  /** Changes that arrived during the running load, which has lost its effect once this is replaced. */
  #buffer: Change<Item>[] | undefined
  /** Whether the objects are those of a load with all changes since. */
  #isLoaded = false
  /** Loads that failed since the last successful one. */
  #failures = 0
  /** Delay before the next load. */
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Whether the listeners were called less than a frame ago. */
  #isResting = false

  constructor (settings: LiveSettings<Item>) {
    const { load } = settings
    check(typeof load === 'function', 'load', 'a function', load)
    checkFunction('key', settings.key)
    this.#settings = settings
    this.#stopListening = onAbort(settings.signal, this.close)
    if (this.#status !== 'closed') this.#join()
  }

  /** Whether the objects are up to date. */
  get status (): LiveStatus {
    return this.#status
  }

  /** The error behind the status `failed`, or behind a repeated `loading`. */
  get error (): unknown {
    return this.#error
  }

  /** The objects: the same array until something changes, the objects or the status. */
  readonly getSnapshot = (): readonly Item[] => {
    return (this.#snapshot ??= Object.freeze([...this.#items.values()]))
  }

  /** The snapshot of the last call of the listeners. */
  #notified = this.getSnapshot()

  /**
   * Calls back with the objects, now, immediately after a change, and once for all changes within a frame after that.
   *
   * @returns a function that ends it
   */
  readonly subscribe = (listener: (objects: readonly Item[]) => void): () => void => {
    const call = () => callSafely(listener, this.getSnapshot())
    this.#listeners.add(call)
    call()
    return () => { this.#listeners.delete(call) }
  }

  /**
   * Loads again, also after a failure. Does nothing while the connection is down: the collection loads when it is back.
   */
  readonly reload = (): void => {
    if (this.#status !== 'current' && this.#status !== 'failed') return
    if (this.#unwatch) this.#load()
    else this.#join()
  }

  /** Ends the subscription; the objects stay as they are. */
  readonly close = (): void => {
    this.#unwatch?.()
    this.#interrupt('closed')
  }

  #join (): void {
    this.#publish('loading')
    this.#unwatch = this.#settings.watch({
      joined: () => this.#isLoaded ? this.#publish('current') : this.#load(),
      takesBatches: true,
      changed: (changes) => {
        if (this.#buffer) {
          this.#buffer.push(...changes)
        } else {
          this.#apply(changes)
          this.#publish(this.#status, this.#error)
        }
      },
      missed: (_, spread) => this.#loadLater(Math.random() * spread),
      lost: () => this.#interrupt('stale'),
      ended: (error) => {
        this.#unwatch = undefined
        // objects to which access is lost are no longer shown
        if (error) this.#items.clear()
        this.#interrupt(error ? 'failed' : 'closed', error)
      }
    })
  }

  /** Loads after a delay, so that not all clients load at the same time. */
  #loadLater (delay: number, error?: unknown): void {
    if (!delay) {
      this.#load()
      return
    }
    this.#buffer = undefined
    this.#timer ??= setTimeout(() => this.#load(), Math.min(delay, MAX_DELAY))
    this.#publish('loading', error)
  }

  async #load (): Promise<void> {
    const buffer: Change<Item>[] = []
    this.#reset(buffer)
    this.#publish('loading')
    let status: LiveStatus = 'current'
    let failure: unknown
    try {
      const objects = await this.#settings.load()
      check(Array.isArray(objects), 'load', 'a function that gives an array', objects)
      const items = new Map(objects.map((object) => [this.#keyOf(object), object]))
      if (buffer === this.#buffer) this.#items = items
    } catch (error) {
      status = 'failed'
      failure = error
    }
    if (buffer !== this.#buffer) return

    this.#buffer = this.#snapshot = undefined
    this.#apply(buffer)
    const { retry, retryAfter } = Object(failure)
    if (retry === true) {
      this.#loadLater(retryDelay(this.#settings.backoff, this.#failures++, retryAfter), failure)
    } else {
      this.#failures = 0
      this.#publish(status, failure)
    }
  }

  /** Applies all changes. Code of the application runs before the first one, so that it sees all of them or none. */
  #apply (changes: readonly Change<Item>[]): void {
    const keyed: [key: unknown, change: Change<Item>][] = []
    for (const change of changes) {
      try {
        keyed.push([this.#keyOf(change.object), change])
      } catch (error) {
        this.#settings.report(error)
      }
    }
    for (const [key, { type, object }] of keyed) {
      if (type === 'delete') this.#items.delete(key)
      else this.#items.set(key, merge(type === 'update' ? this.#items.get(key) : undefined, object))
      this.#snapshot = undefined
    }
  }

  #interrupt (status: LiveStatus, error?: unknown): void {
    if (this.#status === 'closed') return
    this.#reset()
    if (status === 'closed') this.#stopListening?.()
    this.#publish(status, error)
  }

  /** Ends a load, or the delay before it. @param buffer for the changes during the next load */
  #reset (buffer?: Change<Item>[]): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#buffer = buffer
  }

  #keyOf (object: Item): unknown {
    const { key } = this.#settings
    const value = key ? key(object) : (object as { id?: unknown } | null | undefined)?.id
    check(value !== undefined && value !== null, 'key', 'a function that gives a key', object)
    return value
  }

  #publish (status: LiveStatus, error?: unknown): void {
    if (status !== 'stale') this.#isLoaded = status === 'current'
    if (status !== this.#status || error !== this.#error) this.#snapshot = undefined
    this.#status = status
    this.#error = error
    if (status === 'closed' || !this.#isResting) this.#notify()
  }

  /** Calls the listeners if anything has changed, and again after a frame. */
  #notify (): void {
    const snapshot = this.getSnapshot()
    if (snapshot === this.#notified) return
    this.#notified = snapshot
    this.#isResting = true
    for (const call of [...this.#listeners]) call()
    // the frame begins after the listeners, which may be slow: messages need some time too
    setTimeout(() => {
      this.#isResting = false
      this.#notify()
    }, FRAME)
  }
}

/** Merges an update, which may carry only some properties; `updated_fields` describes the change, not the object. */
function merge<Item> (before: Item | undefined, after: Item): Item {
  if (Object(after) !== after) return after
  const { updated_fields: _, ...properties } = after as Item & { updated_fields?: unknown }
  return { ...before, ...properties } as Item
}
