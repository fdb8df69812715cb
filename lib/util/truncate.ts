/** Truncation of log texts: an id, a type, or an error that quotes client input may be as large as a message. */
import { show } from '../errors.ts'
import { hasToJSON } from '../protocol/encode.ts'

/** Maximum characters of a field. */
const MAX_TEXT = 200
/** Maximum characters of an error's message. */
const MAX_MESSAGE = 1000
/** Maximum characters of an error's stack. The message in it is truncated first. */
const MAX_STACK = 4000
/** Maximum characters of an error with its causes and fields. */
const MAX_ERROR = 10_000
/** Maximum depth of causes and fields of an error. */
const MAX_LEVELS = 4

/** Truncates a string to 200 characters. Any other value is returned as it is. */
export function truncate<Value> (value: Value): Value {
  return typeof value === 'string' && value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` as Value : value
}

/**
 * Returns an error for the log, with the texts of the error, its causes and its fields truncated. A small error is
 * returned as it is, and an error that cannot be read is replaced by its short text. Never throws.
 */
export function truncateError (err: unknown): unknown {
  const budget: Budget = { left: MAX_ERROR, isTruncated: false }
  try {
    const copy = copyOf(err, budget, 0)
    return budget.isTruncated ? copy : err
  } catch {
    return { message: show(err) }
  }
}

interface Budget {
  /** Characters that may still be copied. */
  left: number
  /** Whether any text was truncated. */
  isTruncated: boolean
}

function copyOf (value: unknown, budget: Budget, level: number): unknown {
  if (typeof value === 'string') return spend(value, MAX_TEXT, budget)
  if (typeof value !== 'object' || value === null) return value
  if (level === MAX_LEVELS || ArrayBuffer.isView(value)) {
    budget.isTruncated = true
    return '…'
  }
  if (value instanceof Error) return copyOfError(value, budget, level)
  if (hasToJSON(value)) return copyOf(value.toJSON(''), budget, level + 1)

  const copy: Record<string, unknown> = Object.create(null)
  for (const key in value) {
    if (budget.left <= 0) break
    copy[spend(key, MAX_TEXT, budget)] = copyOf((value as Record<string, unknown>)[key], budget, level + 1)
  }
  return Array.isArray(value) ? Object.values(copy) : copy
}

function copyOfError (error: Error, budget: Budget, level: number): Error {
  const message = spend(error.message, MAX_MESSAGE, budget)
  const stack = spend(String(error.stack).replace(error.message, () => message), MAX_STACK, budget)
  const properties = { message: { value: message }, stack: { value: stack } }
  const copy: Error = Object.create(Object.getPrototypeOf(error), properties)
  for (const key of Object.getOwnPropertyNames(error)) {
    if (key === 'message' || key === 'stack' || budget.left <= 0) continue
    const name = spend(key, MAX_TEXT, budget)
    const value = copyOf(error[key as keyof Error], budget, level + 1)
    const enumerable = Object.prototype.propertyIsEnumerable.call(error, key)
    Object.defineProperty(copy, name, { value, configurable: true, enumerable })
  }
  return copy
}

/** Takes at most `max` characters of a text out of the budget. */
function spend (text: string, max: number, budget: Budget): string {
  const length = Math.max(0, Math.min(text.length, max, budget.left))
  budget.left -= length
  if (length === text.length) return text
  budget.isTruncated = true
  return `${text.slice(0, length)}…`
}
