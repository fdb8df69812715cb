/** Checks of options, and timers that can be off. */

/** The longest delay that a timer takes, in milliseconds; browsers and Node.js run a longer one at once. */
export const MAX_DELAY = 2 ** 31 - 1

/** Throws an error that names the option, the rule and the value. @throws RangeError for a number, else TypeError */
export function check (isValid: boolean, option: string, rule: string, value: unknown): void {
  if (isValid) return
  const ErrorType = typeof value === 'number' ? RangeError : TypeError
  throw new ErrorType(`Option '${option}' must be ${rule}, got ${typeof value === 'string' ? `'${value}'` : show(value).slice(0, 100)}`)
}

/** Checks that an option is a function, if it is given. @throws as `check` does */
export function checkFunction (option: string, value: unknown): void {
  check(value === undefined || typeof value === 'function', option, 'a function', value)
}

/** Checks a duration. @returns milliseconds; `Infinity` for 0 and for more than a timer takes: both mean "never" */
export function checkDuration (option: string, value: number): number {
  check(typeof value === 'number' && value >= 0, option, 'milliseconds from 0 (0 and Infinity: never)', value)
  return value === 0 || value > MAX_DELAY ? Infinity : value
}

/** Calls a function after a delay, or never if that is `Infinity`. */
export function after (delay: number, run: () => void): ReturnType<typeof setTimeout> | undefined {
  return delay === Infinity ? undefined : setTimeout(run, delay)
}

/** The text of any value: an object can have a `toString` that is none. */
export function show (value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
