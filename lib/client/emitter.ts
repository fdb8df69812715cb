/** Listeners of the client's events and of groups; the part of Node's `EventEmitter` that rohrpost-js offers. */
import type { ClientEvents, EventName } from './client-types.ts'
import type { RohrpostError } from './error.ts'
import type { Change } from './subscribed-group.ts'

type AnyListener = (...args: never) => void

type ListenerEntry = readonly [name: string, listener: AnyListener, once: boolean]

/** Calls listeners in the order in which they were added. One that throws harms neither the others nor the client. */
export class Emitter {
  /** Replaced at each change, so that a running `emit` keeps the list with which it began. */
  #entries: readonly ListenerEntry[] = []

  /** Adds a listener, permanently or for the next time only. */
  add (name: string, listener: AnyListener, once = false): void {
    this.#entries = [...this.#entries, [name, listener, once]]
  }

  /** Removes a listener: the last added registration, if there are several. */
  remove (name: string, listener: AnyListener): void {
    this.#drop(this.#entries.findLast((entry) => entry[0] === name && entry[1] === listener))
  }

  /** Emits an event of the client. */
  emit<Name extends EventName> (name: Name, ...args: ClientEvents[Name]): void {
    for (const entry of this.#entries) {
      const [own, listener, once] = entry
      if (own !== name) continue
      if (once) this.#drop(entry)
      callSafely(listener, ...args as never)
    }
  }

  /** Emits the event `error` for a failure that rejects no promise. */
  readonly report = (error: unknown): void => {
    this.emit('error', String(error), error)
  }

  /**
   * Calls the listeners of a group. A group with the name of an event has none: they would be called with other
   * arguments.
   */
  emitToGroup (group: string, error: RohrpostError | null, change?: Change<never>): void {
    if (/^(open|closed|reconnecting|ping|pong|message|error|log|state|resync)$/.test(group)) return
    this.emit(group as 'state', error as never, change as never)
  }

  #drop (dropped: ListenerEntry | undefined): void {
    this.#entries = this.#entries.filter((entry) => entry !== dropped)
  }
}

/**
 * Calls code of the application. What it throws becomes an uncaught exception, as in any event listener, and interrupts
 * nothing else.
 */
export function callSafely<Args extends readonly unknown[]> (
  run: ((...args: Args) => void) | undefined,
  ...args: Args
): void {
  try {
    run?.(...args)
  } catch (error) {
    queueMicrotask(() => { throw error })
  }
}
