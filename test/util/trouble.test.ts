import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Trouble } from '../../lib/util/trouble.ts'

test('tells when a failure begins and when it ends, and counts what lies between', () => {
  const told: unknown[] = []
  const trouble = new Trouble({ began: ({ message }) => told.push(message), ended: (failures) => told.push(failures) })
  const latest = new Error('c')

  trouble.end()
  for (const error of [new Error('a'), new Error('b'), latest]) trouble.fail(error)
  assert.equal(trouble.error, latest)
  trouble.end()
  trouble.end()
  assert.equal(trouble.error, undefined)
  trouble.fail(new Error('d'))

  assert.deepEqual(told, ['a', 3, 'd'])
})
