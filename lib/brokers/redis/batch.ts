/** What goes through a channel: `offset epoch lengths payloads`, messages of one group that were published one after another. */

/** Messages of one group in the order of their offsets, which begin at `first`. */
export interface Run {
  epoch: string
  first: number
  payloads: string[]
}

/** What tells the payloads of a run apart: their lengths in UTF-16 code units. */
export function head (payloads: readonly string[]): string {
  let lengths = ''
  for (const { length } of payloads) lengths += lengths === '' ? length : `,${length}`
  return lengths
}

/** Takes an envelope apart, the payloads unparsed; `undefined` for what is none. */
export function open (text: string): Run | undefined {
  const epochAt = text.indexOf(' ') + 1
  const lengthsAt = text.indexOf(' ', epochAt) + 1
  let at = text.indexOf(' ', lengthsAt) + 1
  const first = Number(text.slice(0, epochAt))
  if (epochAt === 0 || lengthsAt === 0 || at === 0 || !Number.isSafeInteger(first)) return undefined

  const payloads: string[] = []
  for (const length of text.slice(lengthsAt, at - 1).split(',')) payloads.push(text.slice(at, at += Number(length)))
  return at === text.length ? { epoch: text.slice(epochAt, lengthsAt - 1), first, payloads } : undefined
}
