import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { CommitOrder } from '../../lib/mikro-orm/capture/commit-order.ts'

/** Makes a CommitOrder whose turns add their name to `told` when they run. */
function open () {
  const order = new CommitOrder(1000)
  const told: string[] = []
  const enter = (name: string, ...rows: string[]) => {
    const turn = order.enter(rows)
    return {
      end: (telling?: Promise<void>) => turn.end(() => {
        told.push(turn.isOvertaken ? `${name} late` : name)
        return telling
      })
    }
  }
  return { enter, told }
}

suite('CommitOrder', () => {
  test('runs at once if no other transaction changed the row', () => {
    const { enter, told } = open()
    const [one, two] = [enter('one', 'a'), enter('two', 'b')]

    two.end()
    one.end()
    enter('three', 'a', 'a').end()

    assert.deepEqual(told, ['two', 'one', 'three'])
  })

  test('makes a later transaction wait for the earlier transactions with the same row', () => {
    const { enter, told } = open()
    const [one, two, three] = [enter('one', 'a'), enter('two', 'b'), enter('three', 'a', 'b')]
    const four = enter('four', 'b')

    four.end()
    three.end()
    assert.deepEqual(told, [])
    two.end()
    assert.deepEqual(told, ['two'])
    one.end()

    assert.deepEqual(told, ['two', 'one', 'three', 'four'])
  })

  test('makes a later transaction wait for all portions of the earlier one, even if they fail', async () => {
    const { enter, told } = open()
    const telling = Promise.withResolvers<void>()
    const [one, two, three] = [enter('one', 'a'), enter('two', 'a'), enter('three', 'a')]

    one.end(telling.promise)
    two.end(Promise.reject(new Error('on purpose')))
    three.end()
    assert.deepEqual(told, ['one'])
    telling.resolve()
    await new Promise(setImmediate)

    assert.deepEqual(told, ['one', 'two', 'three'])
  })

  test('stops waiting for a COMMIT without an answer, and marks its transaction as overtaken', (t: TestContext) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { enter, told } = open()
    const [one, two, three] = [enter('one', 'a', 'b'), enter('two', 'a'), enter('three', 'b')]

    two.end()
    t.mock.timers.tick(999)
    assert.deepEqual(told, [])
    t.mock.timers.tick(1)
    assert.deepEqual(told, ['two'])
    three.end()
    one.end()

    assert.deepEqual(told, ['two', 'one late', 'three'])
  })
})
