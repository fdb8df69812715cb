/** A time limit for promises. */

/**
 * Settles as a promise does, or rejects after some milliseconds. A later result of the promise is ignored.
 *
 * @param makeError called when the time is over; returns the error
 */
export async function within<Value> (
  milliseconds: number,
  promise: Promise<Value>,
  makeError: () => Error
): Promise<Value> {
  const limit = Promise.withResolvers<never>()
  const timer = setTimeout(() => limit.reject(makeError()), milliseconds)
  try {
    return await Promise.race([promise, limit.promise])
  } finally {
    clearTimeout(timer)
  }
}
