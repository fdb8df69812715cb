/** Random delay before a retry. */
import { check, MAX_DELAY } from './option-checks.ts'

/** The shortest and the longest delay, in milliseconds. */
export interface DelayBounds {
  min: number
  max: number
}

/**
 * A random delay between `min` and a bound that doubles with every attempt up to `max`: full jitter, so that the
 * clients of a restarted server do not come back together.
 *
 * @param attempt number of failed attempts before, from 0
 * @param least milliseconds that the server wants to pass in any case
 */
export function retryDelay ({ min, max }: DelayBounds, attempt: number, least = 0): number {
  return Math.min(MAX_DELAY, least + min + Math.random() * (Math.min(max, min * 2 ** (attempt + 1)) - min))
}

/** Checks the option `backoff`, and adds missing bounds. @throws as `check` does */
export function checkBackoff (given: Partial<DelayBounds> = {}): DelayBounds {
  const { min = Math.min(500, given.max ?? 500), max = Math.max(20_000, min) } = given
  check(min > 0 && min <= MAX_DELAY, 'backoff.min', 'milliseconds above 0', min)
  check(max >= min && max <= MAX_DELAY, 'backoff.max', 'milliseconds from backoff.min', max)
  return { min, max }
}
