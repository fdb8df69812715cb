import assert from 'node:assert/strict'
import { test } from 'node:test'
import { truncate, truncateError } from '../../lib/util/truncate.ts'

const long = 'x'.repeat(1_000_000)

test('truncates long texts and leaves everything else as it is', () => {
  assert.equal(truncate('text'), 'text')
  assert.equal(truncate('x'.repeat(200)), 'x'.repeat(200))
  assert.equal(truncate(long), `${'x'.repeat(200)}…`)
  for (const value of [5, null, undefined, true]) assert.equal(truncate(value), value)
})

test('returns an error without long texts as it is', () => {
  const error = Object.assign(new Error('failed', { cause: new Error('why') }), { code: 'E', at: new Date(0), list: [1, { a: null }] })

  assert.equal(truncateError(error), error)
  for (const thrown of ['text', 5, undefined, null]) assert.equal(truncateError(thrown), thrown)
})

test('truncates the message of an error, also within its stack, and keeps its class and the frames of its stack', () => {
  const error = truncateError(new RangeError(`no such card: ${long}`)) as RangeError

  assert.ok(error instanceof RangeError)
  assert.match(error.message, /^no such card: x{986}…$/)
  assert.match(String(error.stack), /^RangeError: no such card: x+…\n {4}at .*truncate\.test\.ts/)
  assert.ok(String(error.stack).length <= 4001)
})

test('truncates causes, errors, fields and field names of an error', () => {
  const inner = new AggregateError([new Error(long), new Error(long)], long, { cause: Object.assign(new Error(long), { query: long }) })
  const error = Object.assign(inner, { [long]: 1, params: Array(100_000).fill(long), row: { toJSON: () => ({ title: long }) }, bytes: Buffer.from(long) })

  const copy = truncateError(error)
  const text = JSON.stringify(copy, (_key, value) => {
    return value instanceof Error ? Object.fromEntries(Object.getOwnPropertyNames(value).map((name) => [name, value[name as keyof Error]])) : value
  })

  assert.ok(copy instanceof AggregateError)
  assert.match(copy.errors[0].message, /^x{1000}…$/)
  assert.ok(text.length < 15_000, `${text.length} characters`)
})

test('truncates a list after as many items as fit', () => {
  const error = truncateError(Object.assign(new Error('failed'), { params: Array(100_000).fill(long), more: 1 })) as Error & { params: string[], more?: number }

  assert.equal(error.params[0], `${'x'.repeat(200)}…`)
  assert.ok(error.params.length < 51)
  assert.equal(error.more, undefined)
})

test('truncates a stack that does not contain the message of its error', () => {
  const error = Object.assign(new Error('short'), { stack: long })

  assert.equal((truncateError(error) as Error).stack, `${'x'.repeat(4000)}…`)
})

test('terminates for circular and hostile errors', () => {
  const circular: Error = new Error('outer')
  circular.cause = Object.assign(new Error('inner'), { cause: circular })
  const hostile = Object.defineProperty(new Error('x'), 'code', { get () { throw new Error('y') } })

  assert.equal((truncateError(circular) as Error).message, 'outer')
  assert.deepEqual(truncateError(hostile), { message: '{}' })
})
