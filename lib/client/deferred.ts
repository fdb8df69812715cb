/** Promises that are settled from outside. React Native has neither `Promise.withResolvers` nor `signal.throwIfAborted`. */
import { after, check } from './option-checks.ts'
import type { RohrpostError } from './error.ts'

/** A promise with the functions that settle it. */
export interface Deferred<Value> {
  readonly promise: Promise<Value>
  readonly resolve: (value: Value) => void
  readonly reject: (reason: unknown) => void
}

/** Makes a promise that somebody else settles. */
export function deferred<Value> (): Deferred<Value> {
  let functions: Pick<Deferred<Value>, 'resolve' | 'reject'> | undefined
  const promise = new Promise<Value>((resolve, reject) => { functions = { resolve, reject } })
  return { promise, ...functions as NonNullable<typeof functions> }
}

/** Checks a signal that may be missing. @throws TypeError if it is no signal */
export function checkSignal (signal: AbortSignal | undefined): void {
  check(signal === undefined || typeof signal?.addEventListener === 'function', 'signal', 'an AbortSignal', signal)
}

/** Throws the reason of a signal that has aborted. */
export function throwIfAborted (signal: AbortSignal | undefined): void {
  checkSignal(signal)
  if (signal?.aborted) throw reasonOf(signal)
}

/** Calls back when a signal aborts. @returns ends it */
export function onAbort (signal: AbortSignal | undefined, abort: (reason: unknown) => void): () => void {
  throwIfAborted(signal)
  const listener = () => abort(signal && reasonOf(signal))
  signal?.addEventListener('abort', listener)
  return () => signal?.removeEventListener('abort', listener)
}

/**
 * Waits until a promise is settled by what `begin` starts, by the signal, or by the time-out with the error `late`.
 *
 * @param end called once the promise is settled
 */
export async function waitFor<Value> (
  signal: AbortSignal | undefined,
  timeout: number,
  late: RohrpostError | undefined,
  begin: (waiting: Deferred<Value>) => void,
  end: (waiting: Deferred<Value>) => void
): Promise<Value> {
  const waiting = deferred<Value>()
  const stop = onAbort(signal, waiting.reject)
  const timer = after(timeout, () => waiting.reject(late))
  try {
    begin(waiting)
    return await waiting.promise
  } finally {
    stop()
    clearTimeout(timer)
    end(waiting)
  }
}

/** The polyfill of React Native has no reasons. */
function reasonOf ({ reason }: AbortSignal): unknown {
  return reason ?? Object.assign(new Error('aborted'), { name: 'AbortError' })
}
