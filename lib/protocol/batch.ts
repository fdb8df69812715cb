/**
 * Batches: the changes of one transaction in one message to a group. Brokers carry the text that clients receive. See
 * PROTOCOL.md, "Batches".
 */
import { divide } from '../util/portions.ts'
import { quote } from './encode.ts'

/** A change in a message to a group. */
export interface EncodedChange {
  readonly type: 'create' | 'update' | 'delete'
  /** JSON text of the object. */
  readonly object: string
}

/** Maximum length of a message with several changes, in characters. */
const MAX_LENGTH = 1_000_000

/** The text of a batch before its first change: group names have 200 characters at most, each may be escaped. */
const BATCH = new RegExp(
  /^(\{"id":\d{1,16},"type":"subscription-update","data":\{"group":"(?:[^"\\]|\\["\\]){1,200}",)/.source +
  /"type":"batch","changes":\[/.source
)
/** The text of a change before its object. */
const CHANGE = /\{"type":"(?:create|update|delete)","object":/y
const END = ']}}'

const [QUOTE, COMMA, OPENING_BRACKET, BACKSLASH, CLOSING_BRACKET, OPENING_BRACE, CLOSING_BRACE] =
  [0x22, 0x2c, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d]

/** A message to a group, with the changes in it. */
export interface EncodedChanges<Change> {
  readonly text: string
  readonly changes: readonly Change[]
}

/**
 * Encodes changes of one transaction to one group: a single change as a `subscription-update`, several as one batch, or
 * as several messages in order if their text is longer than 1,000,000 characters.
 */
export function encodeBatch<Change extends EncodedChange> (
  group: string,
  changes: readonly Change[]
): Array<EncodedChanges<Change>> {
  const head = `,"type":"subscription-update","data":{"group":${quote(group)},`
  const size = MAX_LENGTH - `{"id":${2 ** 31}${head}"type":"batch","changes":[${END}`.length
  const parts = changes.map((change) => ({ change, text: `{"type":"${change.type}","object":${change.object}}` }))
  // each part has a comma, but for the last one
  const portions = divide(parts, ({ text }) => text.length + 1, { count: Infinity, size: size + 1 })
  return portions.map((portion) => {
    const texts = portion.map(({ text }) => text)
    const content = texts.length === 1 ? String(texts[0]).slice(1, -1) : `"type":"batch","changes":[${texts.join(',')}]`
    return {
      text: `{"id":${Math.floor(Math.random() * 2 ** 31)}${head}${content}}}`,
      changes: portion.map(({ change }) => change)
    }
  })
}

/** Whether a message to a group begins as a batch does. It looks at the first characters only. */
export function startsAsBatch (text: string): boolean {
  return BATCH.test(text)
}

/**
 * Splits a batch into messages with one change each. Each has the text that {@link encodeBatch} writes for this change
 * alone, with the id of the batch.
 *
 * @returns `undefined` for a text that is not a batch
 */
export function splitBatch (text: string): string[] | undefined {
  const [start = '', head = ''] = BATCH.exec(text) ?? []
  const texts: string[] = []
  for (let from = start.length; from > 0;) {
    CHANGE.lastIndex = from
    if (!CHANGE.test(text)) break
    const to = endOfValue(text, CHANGE.lastIndex)
    if (text.charCodeAt(to) !== CLOSING_BRACE) break
    texts.push(`${head}${text.slice(from + 1, to)}}}`)
    from = to + 2
    if (text.charCodeAt(to + 1) === COMMA) continue
    return text.endsWith(END) && to + 1 === text.length - END.length ? texts : undefined
  }
  return undefined
}

/** Returns the index after a JSON value: of the comma or the bracket that follows, or the end of the text. */
function endOfValue (text: string, from: number): number {
  let depth = 0
  let at = from
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (code === OPENING_BRACE || code === OPENING_BRACKET) depth++
    else if (depth === 0 && (code === COMMA || code === CLOSING_BRACE || code === CLOSING_BRACKET)) break
    else if (code === CLOSING_BRACE || code === CLOSING_BRACKET) depth--
  }
  return at
}

/** Returns the index of the quote that ends a string, or the end of the text. */
function endOfString (text: string, from: number): number {
  let at = from + 1
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) break
    if (code === BACKSLASH) at++
  }
  return at
}
