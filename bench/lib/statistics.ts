/** From single runs to what is told of them. */

/** A median with the smallest and the largest value. */
export interface Spread {
  median: number
  min: number
  max: number
}

/** Sums up values; nothing where there are none. */
export function spread (values: readonly number[]): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const [min, max, upper] = [sorted[0], sorted.at(-1), sorted[middle]]
  if (min === undefined || max === undefined || upper === undefined) return undefined

  const lower = sorted.length % 2 === 0 ? sorted[middle - 1] ?? upper : upper
  return { median: (lower + upper) / 2, min, max }
}

/** A number with three digits that count, and a separator for thousands. */
export function format (value: number): string {
  const rounded = value < 1000 ? Number(value.toPrecision(3)) : Math.round(value)
  return rounded.toLocaleString('en', { maximumFractionDigits: 10 })
}
