import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { encodeBatch, splitBatch, startsAsBatch, type EncodedChange } from '../../lib/protocol/batch.ts'

const GROUP = fc.string({ unit: fc.constantFrom(...'ab-1"\\[{}]:,%'), minLength: 1, maxLength: 200 })
/** Values of all kinds, among them numbers and keys that `JSON.parse` does not keep as they are. */
const OBJECT = fc.oneof(
  fc.json(),
  fc.json({ noUnicodeString: false, stringUnit: 'binary' }),
  fc.constantFrom('{"__proto__":{"a":1},"b":2}', '{"2":1,"1":2}', '1e400', '{"n":1.0,"big":9007199254740993}', '"}]\\\\"',
    '"\\\\\\""', '{"a":"]}},{\\"type\\":\\"update\\"","b":[[]]}', '{"a":1,"a":2}', '[]', 'null', '""')
)
const CHANGE: fc.Arbitrary<EncodedChange> =
  fc.record({ type: fc.constantFrom('create', 'update', 'delete'), object: OBJECT })

function textsOf (group: string, changes: readonly EncodedChange[]): string[] {
  const messages = encodeBatch(group, changes)
  assert.deepEqual(messages.flatMap((message) => message.changes), changes)
  assert.deepEqual(messages.map((message) => message.changes.length), messages.map(({ text }) => splitBatch(text)?.length ?? 1))
  return messages.map(({ text }) => text)
}

/** The text of a change as rohrpost sends it: `json.dumps` with the keys in this order. */
function single (id: string, group: string, { type, object }: EncodedChange): string {
  return `{"id":${id},"type":"subscription-update","data":{"group":${JSON.stringify(group)},"type":"${type}","object":${object}}}`
}

function idOf (text: string): string {
  return /^\{"id":(\d+),/.exec(text)?.[1] ?? assert.fail(text)
}

test('a batch has all changes in order, and is split into the texts of single changes', () => {
  fc.assert(fc.property(GROUP, fc.array(CHANGE, { minLength: 2, maxLength: 8 }), (group, changes) => {
    const [text = '', ...others] = textsOf(group, changes)
    assert.deepEqual(others, [])
    const list = changes.map(({ type, object }) => `{"type":"${type}","object":${object}}`).join(',')
    const head = `{"id":${idOf(text)},"type":"subscription-update","data":{"group":${JSON.stringify(group)}`
    assert.equal(text, `${head},"type":"batch","changes":[${list}]}}`)
    JSON.parse(text)
    assert.equal(startsAsBatch(text), true)
    assert.deepEqual(splitBatch(text), changes.map((change) => single(idOf(text), group, change)))
  }))
})

test('one change is a message as without batches, and none is no message', () => {
  fc.assert(fc.property(GROUP, CHANGE, (group, change) => {
    const [text = '', ...others] = textsOf(group, [change])
    assert.deepEqual(others, [])
    assert.equal(text, single(idOf(text), group, change))
    assert.equal(startsAsBatch(text), false)
    assert.equal(splitBatch(text), undefined)
  }))
  assert.deepEqual(textsOf('todo-1', []), [])
})

test('several changes with more than 1,000,000 characters are several messages', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 400_000 }), { minLength: 2, maxLength: 12 })
  fc.assert(fc.property(sizes, (sizes) => {
    const changes = sizes.map((size) => ({ type: 'update' as const, object: `"${'x'.repeat(size)}"` }))
    const texts = textsOf('todo-1', changes)
    const sum = sizes.reduce((total, size) => total + size)
    assert.ok(texts.length <= Math.ceil(sum / 500_000) + 1, `${texts.length} messages for ${sum} characters`)
    assert.ok(texts.every(({ length }) => length <= 1_000_000))
    const parts = texts.flatMap((text) => splitBatch(text) ?? [text])
    assert.deepEqual(parts.map((text) => JSON.parse(text).data.object.length), sizes)
  }), { numRuns: 30 })
})

test('a change that is longer than a message may be is alone in its message', () => {
  const [small, large] = ['"s"', `"${'x'.repeat(1_000_000)}"`]
  const changes = [small, small, large, small, small].map((object) => ({ type: 'update' as const, object }))
  const texts = textsOf('todo-1', changes)
  assert.deepEqual(texts.map((text) => splitBatch(text)?.length), [2, undefined, 2])
})

const HEAD = '{"id":1,"type":"subscription-update","data":{"group":"g","type":"batch","changes":['
const ITEM = '{"type":"update","object":{"a":[1]}}'
const others: [string, string][] = [
  ['an empty text', ''],
  ['a message of another type', `{"id":1,"type":"chat","data":{"group":"g","type":"batch","changes":[${ITEM}]}}`],
  ['a resync', '{"type":"subscription-update","data":{"type":"resync","group":"g"}}'],
  ['a change with the text of a batch in its object', `{"id":1,"type":"subscription-update","data":{"group":"g","type":"update","object":${HEAD}${ITEM}]}}}}`],
  ['a batch without changes', `${HEAD}]}}`],
  ['a list of other values', `${HEAD}1,2]}}`],
  ['a change of another type', `${HEAD}${ITEM},{"type":"move","object":{}}]}}`],
  ['a change without object', `${HEAD}{"type":"update"}]}}`],
  ['a change with another field', `${HEAD}{"type":"update","object":{},"n":1}]}}`],
  ['changes with spaces between them', `${HEAD}${ITEM}, ${ITEM}]}}`],
  ['a batch with another field', `${HEAD}${ITEM}],"n":1}}`],
  ['a message with another field', `${HEAD}${ITEM}]},"n":1}`],
  ['a text behind the message', `${HEAD}${ITEM}]}}]}}`],
  ['a text that ends in a change', `${HEAD}${ITEM}`],
  ['a text that ends in an object', `${HEAD}{"type":"update","object":{"a":[`],
  ['a text that ends in a string', `${HEAD}{"type":"update","object":"a]}}`],
  ['a text that ends in an escape', `${HEAD}{"type":"update","object":"\\`],
  ['a text with the wrong bracket', `${HEAD}{"type":"update","object":1]]}}`]
]
for (const [name, text] of others) {
  test(`${name} is not split`, () => assert.equal(splitBatch(text), undefined))
}

test('the start of a batch is found within a bounded number of characters', () => {
  const text = `{"id":1,"type":"subscription-update","data":{"group":"${'g'.repeat(10_000_000)}","type":"batch","changes":[`
  const start = performance.now()
  for (let n = 0; n < 1000; n++) assert.equal(startsAsBatch(text), false)
  assert.ok(performance.now() - start < 1000)
})
