import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errors, show } from '../lib/errors.ts'

test('names every error by its code', () => {
  for (const [code, Coded] of Object.entries(errors)) assert.equal(new Coded().code, code)
})

test('shows any value briefly', () => {
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
  assert.equal(show('x'.repeat(100)), `"${'x'.repeat(78)}…`)
})
