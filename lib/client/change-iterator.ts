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
  const buffer: (Change<Item> | Resync)[] = []
  const endings: (() => void)[] = []
  let isEnded = false
  let failure: unknown
  let wake = () => {}

  const end = (error?: unknown) => {
    isEnded = true
    failure ??= error
    for (const stop of endings) stop()
    wake()
  }
  const abandon = () => {
    buffer.length = 0
    end()
  }

  endings.push(onAbort(signal, abandon))
  if (!isEnded) {
    endings.push(watch({
      changed (changes) {
        buffer.push(...changes)
        wake()
      },
      missed (resync) {
        if (withResync) buffer.push(resync)
        wake()
      },
      ended: end
    }))
  }

  const iterate = async function * (): AsyncGenerator<Change<Item> | Resync, undefined> {
    // eslint-disable-next-line no-unmodified-loop-condition -- `end` modifies it
    while (buffer[0] || !isEnded) {
      if (buffer[0]) yield buffer.shift() as Change<Item>
      else await new Promise<void>((resolve) => { wake = resolve })
    }
    if (failure) throw failure
  }
  return Object.assign(iterate(), {
    // the method of the generator would wait for the next change first
    async return (): Promise<IteratorReturnResult<undefined>> {
      abandon()
      return { done: true, value: undefined }
    }
  })
}
