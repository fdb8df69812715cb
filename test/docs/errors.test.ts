import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errors } from '../../lib/errors.ts'
import { toWireError } from '../../lib/server/requests/wire-error.ts'
import { codeOf, readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('docs/errors.md')

test('every error is documented, and every documented error is there', () => {
  const documented = tableOf(document, 'Codes').map(([code]) => codeOf(code))

  assert.deepEqual(documented.sort(), Object.keys(errors).sort())
})

test('each one says when it is thrown and what to do', () => {
  for (const [code, when, what, ...more] of tableOf(document, 'Codes')) {
    assert.ok(when && what && more.length === 0, code)
  }
})

test('an error has the code by which it is found in the table', () => {
  for (const [code, RohrpostError] of Object.entries(errors)) assert.equal(new RohrpostError().code, code)
})

test('clients may read the errors that the document says, with the codes that it says', () => {
  const documented = tableOf(document, 'What a client may read').map((row) => row.map(codeOf))
  const shown = Object.entries(errors).flatMap(([name, RohrpostError]) => {
    const wire = toWireError(new RohrpostError())
    return wire === undefined ? [] : [[name, wire.code, wire.retry && String(wire.retry)]]
  })

  assert.deepEqual(documented, shown)
})
