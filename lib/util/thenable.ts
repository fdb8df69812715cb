/** Whether a value is a promise or another thenable. Callers handle any other value synchronously, without `await`. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
