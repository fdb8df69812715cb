import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backoff } from '../../lib/util/backoff.ts'

test('draws each delay from a range that doubles up to a maximum, and starts again after a success', (t) => {
  const random = t.mock.method(Math, 'random', () => 1)
  const backoff = new Backoff(100, 1000)

  assert.equal(backoff.isFresh, true)
  assert.deepEqual(Array.from({ length: 6 }, () => backoff.next()), [100, 200, 400, 800, 1000, 1000])
  assert.equal(backoff.isFresh, false)
  random.mock.mockImplementation(() => 0.25)
  assert.equal(backoff.next(), 250)
  backoff.reset()
  assert.equal(backoff.isFresh, true)
  assert.equal(backoff.next(), 25)
})
