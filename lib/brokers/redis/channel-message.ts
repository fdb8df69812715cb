/** The text of a message on a Redis channel: `offset epoch lengths payloads`, any number of messages of one group. */

/** Messages of one group with consecutive offsets. */
export interface ChannelMessage {
  epoch: string
  /** The offset of the first message; 0 if the publishing process keeps no history. */
  firstOffset: number
  payloads: string[]
}

/** Encodes the lengths of payloads in UTF-16 code units. `decodeChannelMessage` splits the payloads by them. */
export function encodeLengths (payloads: readonly string[]): string {
  let lengths = ''
  for (const { length } of payloads) lengths += lengths === '' ? length : `,${length}`
  return lengths
}

/** Decodes the text of a channel message without parsing the payloads. @returns `undefined` for any other text */
export function decodeChannelMessage (text: string): ChannelMessage | undefined {
  const epochAt = text.indexOf(' ') + 1
  const lengthsAt = text.indexOf(' ', epochAt) + 1
  let at = text.indexOf(' ', lengthsAt) + 1
  const firstOffset = Number(text.slice(0, epochAt))
  if (epochAt === 0 || lengthsAt === 0 || at === 0 || !Number.isSafeInteger(firstOffset)) return undefined

  const payloads: string[] = []
  for (const length of text.slice(lengthsAt, at - 1).split(',')) payloads.push(text.slice(at, at += Number(length)))
  return at === text.length ? { epoch: text.slice(epochAt, lengthsAt - 1), firstOffset, payloads } : undefined
}
