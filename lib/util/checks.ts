/** Checks that the options of all parts share. */
import { errors } from '../errors.ts'

/** The longest delay that a timer of Node.js takes, in milliseconds. */
export const MAX_DELAY = 2 ** 31 - 1

export function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Whether a value is a whole number from 1. */
export function isCount (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0
}

/** Whether a value is a number of milliseconds from 1 that a timer takes. */
export function isDelay (value: unknown): value is number {
  return isCount(value) && value <= MAX_DELAY
}

/** Refuses options that there are not. @param where what stands before their names @throws RP_ERR_UNKNOWN_OPTION */
export function checkNames (given: object, names: readonly string[], where = ''): void {
  for (const name of Object.keys(given)) {
    if (!names.includes(name)) throw new errors.RP_ERR_UNKNOWN_OPTION(where + name, names.map((name) => where + name).join(', '))
  }
}
