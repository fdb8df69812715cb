import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { Resyncs } from '../../lib/mikro-orm/announce/resyncs.ts'

/** Makes Resyncs over a broker that accepts a message if `take` does. */
function open (t: TestContext, take: () => void | Promise<void> = () => {}) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const sent: string[] = []
  const warnings: string[] = []
  const state = { take }
  const resyncs = new Resyncs({
    publish (group, payload) {
      const taken = state.take()
      assert.deepEqual(JSON.parse(payload), { type: 'subscription-update', data: { type: 'resync', group } })
      sent.push(group)
      return taken
    },
    log: { error () {}, warn: (_context, message) => { warnings.push(message) } }
  }, { min: 1000, max: 1000 })
  const later = async () => {
    t.mock.timers.tick(1000)
    await Promise.resolve()
    await Promise.resolve()
  }
  return { resyncs, sent, warnings, state, later }
}

suite('resyncs', () => {
  test('are published once to each group', (t) => {
    const { resyncs, sent } = open(t)

    resyncs.send(['a', 'b', 'a'])

    assert.deepEqual(sent, ['a', 'b'])
  })

  test('are published later for refused messages, with one warning', async (t) => {
    const { resyncs, sent, warnings, later } = open(t)

    for (const group of ['a', 'b', 'a']) resyncs.defer(group, new Error('refused'))
    assert.deepEqual(sent, [])
    await later()

    assert.deepEqual(sent, ['a', 'b'])
    assert.deepEqual(warnings, ['the broker does not take changes: the members of their groups load again when it does'])
  })

  for (const [how, refuse] of [['throws', () => { throw new Error('no broker') }], ['rejects', () => Promise.reject(new Error('no broker'))]] as const) {
    test(`are retried while the broker ${how}, with one warning until it accepts one`, async (t) => {
      const { resyncs, warnings, state, sent, later } = open(t, refuse)

      resyncs.send(['a'])
      await later()
      await later()
      sent.splice(0)
      state.take = () => Promise.resolve()
      await later()
      assert.deepEqual([sent, warnings.length], [['a'], 1])
      resyncs.defer('a', new Error('refused'))

      assert.equal(warnings.length, 2)
    })
  }

  test('stop when they are closed', async (t) => {
    const { resyncs, sent, warnings, later } = open(t)

    resyncs.defer('a', new Error('refused'))
    resyncs.close()
    resyncs.defer('b', new Error('refused'))
    await later()

    assert.deepEqual([sent, warnings.length], [[], 1])
  })
})
