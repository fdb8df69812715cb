/** The changes of a group as an async iterator. */
import type { Change, Resync, Watcher } from './subscribed-group.ts'
import { onAbort } from './waiting.ts'

/**
 * Follows a group from the call on, and buffers its changes between two calls of `next()`. Ends with `return()`, the
 * signal or the client.
 *
 * @param withResync whether a {@link Resync} is among the items
 */
export function iterateChanges<Item> (
  watch: (watcher: Watcher) => () => void,
  signal: AbortSignal | undefined,
  withResync: boolean | undefined
): AsyncIterableIterator<Change<Item> | Resync, undefined> {
  type Settlers = [
    resolve: (result: IteratorResult<Change<Item> | Resync, undefined>) => void,
    reject: (reason: unknown) => void
  ]
  const buffer: (Change<Item> | Resync)[] = []
  const waiting: Settlers[] = []
  let isEnded = false
  let failure: unknown
  const endings: (() => void)[] = []

  /** Settles calls of `next()`, as far as there is something for them. */
  const settle = () => {
    for (const [resolve, reject] of waiting.splice(0, isEnded ? waiting.length : buffer.length)) {
      const value = buffer.shift()
      if (value) resolve({ done: false, value })
      else if (failure) reject(failure)
      else resolve({ done: true, value })
      // an error is thrown once
      if (!value) failure = undefined
    }
  }
  const end = (error?: unknown) => {
    isEnded = true
    failure ??= error
    for (const stop of endings) stop()
    settle()
  }
  const abandon = () => {
    buffer.length = 0
    end()
  }

  endings.push(onAbort(signal, abandon))
  if (!isEnded) {
    endings.push(watch({
      changed (change) {
        if (withResync || change.type !== 'resync') buffer.push(change)
        settle()
      },
      ended: end
    }))
  }

  return {
    next: () => new Promise((resolve, reject) => {
      waiting.push([resolve, reject])
      settle()
    }),
    async return () {
      abandon()
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator] () {
      return this
    }
  }
}
