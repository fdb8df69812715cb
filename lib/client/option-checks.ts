/** Checks of options and of untyped values, and timers that can be off. */

/** The longest delay of a timer, in milliseconds; browsers and Node.js run a timer with a longer one at once. */
export const MAX_DELAY = 2 ** 31 - 1

/** Throws an error that names the option, the rule and the value. @throws RangeError for a number, else TypeError */
export function check (isValid: unknown, option: string, rule: string, value: unknown): void {
  if (isValid) return
  const ErrorType = typeof value === 'number' ? RangeError : TypeError
  const given = typeof value === 'string' ? `'${value}'` : show(value).slice(0, 100)
  throw new ErrorType(`Option '${option}' must be ${rule}, got ${given}`)
}

/** Checks that an option is a function, if it is given. @throws as `check` does */
export function checkFunction (option: string, value: unknown): void {
  check(value === undefined || typeof value === 'function', option, 'a function', value)
}

/** Checks a duration. @returns milliseconds; `Infinity` for 0 and for more than a timer takes: both mean "never" */
export function checkDuration (option: string, value: number): number {
  check(typeof value === 'number' && value >= 0, option, 'milliseconds, 0 or more', value)
  return value > 0 && value <= MAX_DELAY ? value : Infinity
}

/** Checks durations, and adds missing ones. @throws as `check` does */
export function checkDurations<Name extends string> (
  defaults: Record<Name, number>,
  given: { readonly [Each in NoInfer<Name>]?: number | undefined }
): Record<Name, number> {
  for (const name in defaults) {
    const { [name]: value = defaults[name] } = given
    defaults[name] = checkDuration(name, value)
  }
  return defaults
}

/** Calls a function after a delay, or never if that is `Infinity` or `undefined`. */
export function after (delay = Infinity, run: () => void): ReturnType<typeof setTimeout> | undefined {
  return delay < Infinity ? setTimeout(run, delay) : undefined
}

/** The text of any value: an object can have a `toString` that is no function. */
export function show (value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** The value if it is a number, else `undefined`: a server can send anything. */
export function asNumber (value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined
}

/** The value if it is a string, else `undefined`. */
export function asString (value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
