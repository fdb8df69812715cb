import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Trouble } from '../../lib/util/trouble.ts'

test('reports the start and the end of an outage, and counts the failures between them', () => {
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
