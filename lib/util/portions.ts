/** Divides lists into portions of limited size. */

/** Limits of a portion. An item that is larger than `size` is a portion of its own. */
export interface PortionLimits {
  readonly count: number
  readonly size: number
}

/** Divides a list into portions, in order. */
export function divide<Item> (
  items: readonly Item[],
  sizeOf: (item: Item) => number,
  limits: PortionLimits
): Item[][] {
  const portions: Item[][] = []
  let size = 0
  for (const item of items) {
    const last = portions.at(-1)
    size += sizeOf(item)
    if (last !== undefined && last.length < limits.count && size <= limits.size) {
      last.push(item)
      continue
    }
    portions.push([item])
    size = sizeOf(item)
  }
  return portions
}
