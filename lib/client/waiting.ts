/**
 * Waiting with a time limit and an `AbortSignal`. React Native has neither `Promise.withResolvers` nor
 * `signal.throwIfAborted`.
 */
import { after, check } from './option-checks.ts'

/** The part of an event target that the client uses; in some runtimes it is missing. */
export interface ListenerTarget {
  addEventListener? (type: string, listener: () => void): void
  removeEventListener? (type: string, listener: () => void): void
}

/** Adds an event listener where the target can have one. @returns a function that removes it */
export function listen (target: ListenerTarget | undefined, type: string, listener: () => void): () => void {
  target?.addEventListener?.(type, listener)
  return () => target?.removeEventListener?.(type, listener)
}

/**
 * Calls back when a signal aborts, at once if it has aborted before.
 *
 * @returns a function that removes the listener
 * @throws TypeError, RangeError if it is no signal
 */
export function onAbort (signal: AbortSignal | undefined, abort: (reason: unknown) => void): () => void {
  check(!signal || signal.addEventListener, 'signal', 'an AbortSignal', signal)
  // the polyfill of React Native has no reasons
  const notify = () => abort(signal?.reason ?? Object.assign(new Error('aborted'), { name: 'AbortError' }))
  if (signal?.aborted) notify()
  return listen(signal, 'abort', notify)
}

/**
 * Waits until `begin` resolves or rejects, the signal aborts, or the time is over.
 *
 * @param begin starts the work, unless the signal has aborted; returns a function that is called once the promise is
 * settled
 * @param late makes the error for the end of the time
 */
export function waitFor<Value> (
  signal: AbortSignal | undefined,
  begin: (resolve: (value: Value) => void, reject: (reason: unknown) => void) => () => unknown,
  timeout?: number,
  late?: () => unknown
): Promise<Value> {
  const endings: (() => unknown)[] = []
  return new Promise<Value>((resolve, reject) => {
    endings.push(onAbort(signal, reject))
    if (signal?.aborted) return
    const timer = after(timeout, () => reject(late?.()))
    endings.push(() => clearTimeout(timer), begin(resolve, reject))
  }).finally(() => {
    for (const end of endings) end()
  })
}
