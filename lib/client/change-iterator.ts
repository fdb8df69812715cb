/** The changes of a group as an async iterator. */
import { checkSignal, deferred, type Deferred } from './deferred.ts'
import type { RohrpostError } from './error.ts'
import type { Change, Resync, Watcher } from './subscribed-group.ts'

/** Follows a group from the call on; what comes while nobody asks is kept. Ends with `return()`, the signal or the client. */
export function iterateChanges<Item> (
  watch: (watcher: Watcher) => () => void,
  signal: AbortSignal | undefined,
  resync: boolean | undefined
): AsyncIterableIterator<Change<Item> | Resync, undefined> {
  checkSignal(signal)
  const kept: (Change<Item> | Resync)[] = []
  const takers: Deferred<IteratorResult<Change<Item> | Resync, undefined>>[] = []
  let ended = false
  let failure: RohrpostError | undefined

  const end = (error?: RohrpostError) => {
    if (ended) return
    ended = true
    failure = error
    signal?.removeEventListener('abort', abandon)
    stop?.()
    for (const taker of takers.splice(0)) settle(taker)
  }
  const abandon = () => {
    kept.length = 0
    end()
  }
  /** Nothing is kept, and nothing will come: the error is told once. */
  const settle = ({ resolve, reject }: typeof takers[number]) => {
    const error = failure
    failure = undefined
    if (error) reject(error)
    else resolve({ done: true, value: undefined })
  }

  const tell = (change: Change<never> | Resync) => {
    const taker = takers.shift()
    if (taker) taker.resolve({ done: false, value: change })
    else kept.push(change)
  }

  let stop: (() => void) | undefined
  if (signal?.aborted) end()
  else {
    stop = watch({
      resync (missed) {
        if (resync) tell(missed)
      },
      changed: tell,
      ended: end
    })
    signal?.addEventListener('abort', abandon)
  }

  return {
    next () {
      const change = kept.shift()
      if (change) return Promise.resolve({ done: false, value: change })
      const taker: typeof takers[number] = deferred()
      if (ended) settle(taker)
      else takers.push(taker)
      return taker.promise
    },
    async return () {
      abandon()
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator] () {
      return this
    }
  }
}
