/** The soak finds what is wrong, and a short one runs without. How long things take is not looked at. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { castOf, checksum } from '../../bench/soak/plan.ts'
import { Replica } from '../../bench/soak/replica.ts'
import { soak } from '../../bench/soak/soak.ts'

const told = (n: number, sum = checksum('room-1', n)) => ({ group: 'room-1', n, sum })
const changed = (type: string, id: number, n: number) => ({ type, object: { id, n } })

suite('a replica', () => {
  const faults: [string, (replica: Replica) => void][] = [
    ['a missing message', (replica) => { replica.told(told(1)); replica.told(told(3)) }],
    ['a message that comes twice', (replica) => { replica.told(told(1)); replica.told(told(1)) }],
    ['messages out of order', (replica) => { replica.told(told(2)); replica.told(told(1)) }],
    ['another content', (replica) => replica.told(told(1, checksum('room-2', 1)))],
    ['a message that did not come', (replica) => { replica.told(told(1)); replica.audit('room-1', 2) }],
    ['a message that was not sent', (replica) => { replica.audit('room-1', 0); replica.told(told(1)); replica.audit('room-1', 0) }],
    ['a row that begins twice', (replica) => { replica.changed(changed('create', 1, 1)); replica.changed(changed('create', 1, 1)) }],
    ['an update that was missed', (replica) => { replica.changed(changed('create', 1, 1)); replica.changed(changed('update', 1, 3)) }],
    ['an update of no row', (replica) => replica.changed(changed('update', 1, 1))],
    ['the end of no row', (replica) => replica.changed(changed('delete', 1, 1))],
    ['a row too many', (replica) => { replica.changed(changed('create', 1, 1)); replica.compare([]) }],
    ['a row that is missing', (replica) => replica.compare([{ id: 1, n: 1 }])],
    ['a row with another value', (replica) => { replica.changed(changed('create', 1, 1)); replica.compare([{ id: 1, n: 2 }]) }]
  ]

  for (const [what, make] of faults) {
    test(`notices ${what}`, () => {
      const replica = new Replica()

      make(replica)

      assert.notDeepEqual(replica.wrong, [])
    })
  }

  test('has nothing against what is right', () => {
    const replica = new Replica()

    replica.told(told(7))
    replica.told(told(8))
    replica.audit('room-1', 8)
    replica.forget('room-1')
    replica.told(told(20))
    replica.audit('room-2', 5)
    replica.told({ group: 'room-2', n: 6, sum: checksum('room-2', 6) })
    replica.changed(changed('create', 1, 1))
    replica.changed(changed('update', 1, 2))
    replica.changed(changed('create', 2, 1))
    replica.changed(changed('delete', 1, 2))
    replica.compare([{ id: 2, n: 1 }])

    assert.deepEqual(replica.wrong, [])
    assert.equal(replica.heard, 8)
  })
})

test('everybody is in the cast', () => {
  for (const connections of [20, 100, 5000]) {
    const { steady, fleeting, slow, garbage } = castOf(connections)
    assert.equal(steady + fleeting + slow + garbage, connections)
    assert.ok(Math.min(steady, fleeting, slow, garbage) > 0)
  }
})

test('a short soak has nothing wrong', async () => {
  const { rows, failures } = await soak({ connections: 60, minutes: 0.08 })

  assert.deepEqual(failures, [])
  for (const [what, figure] of rows) assert.doesNotMatch(figure, /NaN|undefined/, what)
  const [, heard = ''] = rows.find(([what]) => what === 'messages to the well-behaved') ?? []
  assert.ok(Number(heard.replaceAll(',', '')) > 0)
})
