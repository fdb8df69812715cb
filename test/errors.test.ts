import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errors, show } from '../lib/errors.ts'

test('names every error by its code', () => {
  for (const [code, Coded] of Object.entries(errors)) assert.equal(new Coded().code, code)
})

test('shortens any value', () => {
  const cycle: unknown[] = []
  cycle.push(cycle)

  assert.equal(show('a "b"'), '"a \\"b\\""')
  assert.equal(show({ a: [1] }), '{"a":[1]}')
  assert.equal(show(undefined), 'undefined')
  assert.equal(show(5n), '5n')
  assert.equal(show(() => {}), 'a value of type function')
  assert.equal(show(Symbol('s')), 'Symbol(s)')
  assert.equal(show(cycle), 'a value of type object')
  assert.equal(show({ toJSON () { throw new Error() }, get [Symbol.toStringTag] (): string { throw new Error() } }), 'a value of type object')
  assert.equal(show([() => {}, undefined, { f () {}, n: 1 }, new Date(0)]), '[null,null,{"n":1},"1970-01-01T00:00:00.000Z"]')
  assert.equal(show(Object.create({ inherited: 1 })), '{}')
  assert.equal(show(new Uint8Array(3)), 'a value of type object')
  assert.equal(show('x'.repeat(100)), `"${'x'.repeat(78)}…`)
})

test('reads no more of a value than it shows', () => {
  let reads = 0
  const large = { get read () { return reads++ } }
  const wide = Array.from({ length: 1000 }, () => large)

  assert.match(show(wide), /^\[\{"read":0\},.{1,70}…$/)
  assert.match(show(Object.fromEntries(wide.map((value, i) => [`key ${i}`, value]))), /^\{"key 0":\{"read":\d+\},.{1,70}…$/)
  assert.match(show({ ['k'.repeat(1_000_000)]: 'v'.repeat(1_000_000) }), /^\{"k{77}…$/)
  assert.ok(reads < 50)
})
