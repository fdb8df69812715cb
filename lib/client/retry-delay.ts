/** How long to wait before trying again. */
import { MAX_DELAY } from './option-checks.ts'

/** The shortest and the longest wait, in milliseconds. */
export interface Backoff {
  min: number
  max: number
}

/**
 * A random wait from `min` up to a bound that doubles with every attempt until it is `max`: full jitter, so that the clients of a server
 * that restarts do not come back together.
 *
 * @param attempt how many attempts have failed before, from 0
 * @param least milliseconds that the server wants to pass in any case
 */
export function backoff ({ min, max }: Backoff, attempt: number, least = 0): number {
  const bound = Math.min(max, min * 2 ** (attempt + 1))
  return Math.min(MAX_DELAY, least + min + Math.random() * (bound - min))
}
