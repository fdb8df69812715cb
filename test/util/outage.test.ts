import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Outage } from '../../lib/util/outage.ts'

test('reports the start and the end of an outage, and counts the failures between them', () => {
  const told: unknown[] = []
  const outage = new Outage({ began: ({ message }) => told.push(message), ended: (failures) => told.push(failures) })
  const latest = new Error('c')

  outage.end()
  for (const error of [new Error('a'), new Error('b'), latest]) outage.fail(error)
  assert.equal(outage.error, latest)
  outage.end()
  outage.end()
  assert.equal(outage.error, undefined)
  outage.fail(new Error('d'))

  assert.deepEqual(told, ['a', 3, 'd'])
})
