/** What both sides of the soak know. */

/** Lists of rows, and the rows that each begins with. */
export const LISTS = 20
export const ROWS = 10

/** By this a message proves to be the one that was sent. */
export function checksum (group: string, n: number): number {
  let sum = n
  for (const char of group) sum = Math.imul(sum, 31) + char.charCodeAt(0) | 0
  return sum
}

/** Who is there, in a soak of so many connections. */
export interface Cast {
  /** They stay from start to end. */
  steady: number
  /** They come and go. */
  fleeting: number
  /** They don't read. */
  slow: number
  /** They send rubbish. */
  garbage: number
  /** Groups that they join. */
  rooms: number
}

/** Most are well-behaved. Each client that does not read fills buffers of the kernel, so there are not many of them. */
export function castOf (connections: number): Cast {
  const slow = Math.min(20, Math.ceil(connections * 0.02))
  const garbage = Math.ceil(connections * 0.05)
  const fleeting = Math.ceil(connections * 0.2)
  return { steady: connections - slow - garbage - fleeting, fleeting, slow, garbage, rooms: Math.ceil(connections / 50) }
}
