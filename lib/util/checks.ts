/** Checks of option values, shared by the options of plugins and brokers. */
import { errors } from '../errors.ts'

/** Maximum delay of a Node.js timer, in milliseconds. */
export const MAX_DELAY = 2 ** 31 - 1

export function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Whether a value is a positive integer. */
export function isCount (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0
}

/** Whether a value is a positive integer that a timer accepts as milliseconds. */
export function isDelay (value: unknown): value is number {
  return isCount(value) && value <= MAX_DELAY
}

/**
 * Throws on unknown option names.
 *
 * @param where prefix of the names in the error message
 * @throws RP_ERR_UNKNOWN_OPTION
 */
export function checkNames (given: object, names: readonly string[], where = ''): void {
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue
    throw new errors.RP_ERR_UNKNOWN_OPTION(where + name, names.map((name) => where + name).join(', '))
  }
}
