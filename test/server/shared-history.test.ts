import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { GroupMessage } from '../../lib/server/groups/group-message.ts'
import { PositionedMessage } from '../../lib/server/groups/positioned-message.ts'
import { SharedHistory } from '../../lib/server/groups/shared-history.ts'

const at = (offset: number) => ({ epoch: 'a', offset })
const fail = (cause: unknown) => new Error('not read', { cause })

suite('the shared messages of a replay', () => {
  for (const isSparse of [false, true]) {
    test(`are read from the broker for the position before the first one: ${isSparse}, with sparse offsets: ${isSparse}`, () => {
      const history = new SharedHistory('news', { messages: 10, bytes: 1000 }, isSparse)
      history.startReplay()
      history.share([5, 8].map((offset) => new PositionedMessage(new GroupMessage(`{"data":${offset}}`), 'news', at(offset))))
      let reads = 0
      const offsetsAfter = (offset: number) => {
        const messages = history.read(at(offset), at(8), () => { reads++; return [] }, fail)
        return Array.isArray(messages) ? messages.map(({ position }) => position.offset) : messages
      }

      assert.deepEqual(offsetsAfter(5), [8])
      assert.equal(reads, 0)
      assert.deepEqual(offsetsAfter(4), isSparse ? [] : [5, 8])
      assert.equal(reads, isSparse ? 1 : 0)
    })
  }
})
