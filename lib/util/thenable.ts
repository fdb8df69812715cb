/** Whether a value is to be waited for. Looks before it leaps: what is no promise stays on the synchronous path. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
