import assert from 'node:assert/strict'
import { test } from 'node:test'
import { show } from '../../lib/errors.ts'
import fc from 'fast-check'
import { encode, quote } from '../../lib/protocol/encode.ts'

test('encodes every JSON value as JSON.stringify does', () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    assert.equal(encode(value), JSON.stringify(value))
  }))
})

test('quotes any string as JSON.stringify does', () => {
  const codeUnit = fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code))
  fc.assert(fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: codeUnit })), (text) => {
    assert.equal(quote(text), JSON.stringify(text))
  }))
  for (let code = 0; code <= 0xffff; code++) {
    const text = `a${String.fromCharCode(code)}`
    assert.equal(quote(text), JSON.stringify(text))
  }
})

const samples: [string, unknown, string][] = [
  ['a Date as ISO text', new Date(0), '"1970-01-01T00:00:00.000Z"'],
  ['a safe bigint as a number', 2n ** 53n - 1n, '9007199254740991'],
  ['a safe negative bigint as a number', -5n, '-5'],
  ['a larger bigint as a string', 2n ** 53n, '"9007199254740992"'],
  ['a Map as an object', new Map<unknown, unknown>([['a', 1], [2, new Map()]]), '{"2":{},"a":1}'],
  ['a Map with a key __proto__ as an object with that key', new Map([['__proto__', 1]]), '{"__proto__":1}'],
  ['a Set as an array', new Set([1, new Set(['x'])]), '[1,["x"]]'],
  ['a Uint8Array as base64', new Uint8Array([0, 255, 128]), '"AP+A"'],
  ['a Buffer as base64', Buffer.from('hi'), '"aGk="'],
  ['an object with toJSON as it says', { toJSON: () => ({ n: 1n }) }, '{"n":1}'],
  ['an instance with toJSON as it says', new URL('http://example.org/'), '"http://example.org/"'],
  ['an instance without toJSON by its own fields', new (class Point { x = 1 })(), '{"x":1}'],
  ['an object without prototype', Object.assign(Object.create(null), { a: 1 }), '{"a":1}'],
  ['functions and undefined in objects not at all', { a: undefined, b () {}, c: 1 }, '{"c":1}'],
  ['a bigint deep inside', { a: [{ b: 1n }] }, '{"a":[{"b":1}]}'],
  ['a Date deep inside', [[new Date(0)]], '[["1970-01-01T00:00:00.000Z"]]'],
  ['an invalid Date as null', new Date(NaN), 'null']
]
for (const [what, value, text] of samples) {
  test(`encodes ${what}`, () => {
    assert.equal(encode(value), text)
  })
}

test('encodes deep but finite nesting', () => {
  let value: unknown = 1n
  for (let i = 0; i < 500; i++) value = [value]

  assert.equal(encode(value), '['.repeat(500) + '1' + ']'.repeat(500))
})

test('refuses values without a JSON form', () => {
  const cycle: unknown[] = []
  cycle.push(cycle)

  assert.throws(() => encode(undefined), TypeError)
  assert.throws(() => encode(() => {}), TypeError)
  assert.throws(() => encode(cycle), TypeError)
  assert.throws(() => encode({ toJSON () { throw new Error('not today') } }), /not today/)
})

test('refuses too deep nesting at once, and reports a cycle as a cycle', () => {
  const nested = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
  const cycle: unknown[] = []
  cycle.push(1n, cycle)

  assert.equal(encode(nested(2048)), '['.repeat(2048) + ']'.repeat(2048))
  for (const value of [nested(2049), { a: { b: nested(2048) } }]) assert.throws(() => encode(value), { name: 'RangeError', message: /2048 levels/ })
  assert.throws(() => encode(cycle), { name: 'TypeError', message: /circular/i })
  for (const levels of [2048, 100_000]) assert.match(show(nested(levels)), /^\[{79}…$/)
})

test('calls toJSON at any depth', () => {
  class Text {
    readonly inner = JSON.parse('['.repeat(5000) + ']'.repeat(5000))
    toJSON () { return 'text' }
  }

  assert.equal(encode({ a: 1n, text: new Text() }), '{"a":1,"text":"text"}')
})

test('refuses nesting that exceeds the stack', () => {
  const value = JSON.parse('['.repeat(100_000) + ']'.repeat(100_000))

  assert.throws(() => encode(value), RangeError)
})

const nest = (levels: number, leaf: unknown = 1): unknown => {
  let value = leaf
  for (let i = 0; i < levels; i++) value = [value]
  return value
}

test('applies the nesting limit next to, within and around special values', () => {
  const date = new Date(0)
  const deep: [string, unknown][] = [
    ['a Date beside', { date, deep: nest(2048) }],
    ['a bigint within', nest(2049, 1n)],
    ['a Map around', new Map([['deep', nest(2048)]])],
    ['a Set around', new Set([nest(2048)])],
    ['toJSON of the value', { toJSON: () => nest(2049) }],
    ['toJSON within', [{ toJSON: () => nest(2048) }]],
    ['toJSON without end', (function grow (): object { return { toJSON: () => ({ grow: grow(), again: grow() }) } })()],
    ['more than a stack holds', { date, deep: nest(100_000) }],
    ['more than a stack holds, from toJSON', { toJSON: () => nest(100_000) }]
  ]
  for (const [name, value] of deep) assert.throws(() => encode(value), { name: 'RangeError', message: /2048 levels/ }, name)

  assert.equal(encode({ date, deep: nest(2047) }), `{"date":"1970-01-01T00:00:00.000Z","deep":${JSON.stringify(nest(2047))}}`)
  assert.equal(encode({ toJSON: () => nest(2048) }), JSON.stringify(nest(2048)))
})

test('refuses a cycle where it closes, and reads each property once', () => {
  let reads = 0
  const cycle: Record<string, unknown> = { date: new Date(0), get read () { return reads++ } }
  cycle.self = { map: new Map([['cycle', cycle]]) }

  assert.throws(() => encode(cycle), { name: 'TypeError', message: /circular/ })
  assert.equal(reads, 1)
})

test('encodes an object twice that is referenced twice', () => {
  const shared = { date: new Date(0) }

  assert.equal(encode([shared, shared]), JSON.stringify([shared, shared]))
})

test('encodes values with special values among them as JSON.stringify does', () => {
  const special = fc.oneof(
    fc.date(),
    fc.constantFrom(undefined, Symbol('s'), () => 1, Object('text'), Object(5), Object(false), new Point(1), new URL('http://example.org/'), Object.assign(() => 1, { toJSON: () => 'f' })),
    fc.record({ toJSON: fc.constantFrom(() => 1, () => undefined, () => ({ toJSON: () => 2 }), (key: string) => key) })
  )
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof({ maxDepth: 4 }, special, fc.jsonValue(), fc.array(tie('tree')), fc.dictionary(fc.oneof(fc.string(), fc.constant('__proto__')), tie('tree')))
  }))
  fc.assert(fc.property(tree, (value) => {
    const text = JSON.stringify(value)
    if (text === undefined) assert.throws(() => encode(value), TypeError)
    else assert.equal(encode(value), text)
  }))
})

class Point {
  x: number
  constructor (x: number) { this.x = x }
}

test('refuses a wrapped bigint, as JSON.stringify does', () => {
  assert.throws(() => encode({ n: Object(1n) }), TypeError)
})
