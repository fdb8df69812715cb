/** Notifications of one transaction for one group in one message. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { ChangeDropEvent } from '../../lib/index.ts'
import { encodeMessages, publishMessages, reportSent, type EncodedMessage } from '../../lib/mikro-orm/announce/publish.ts'
import type { Notification } from '../../lib/mikro-orm/declare/notification.ts'
import { droppedNotification } from '../../lib/mikro-orm/declare/notification.ts'
import { record } from '../support/events.ts'
import { changesOf } from './support.ts'

const log = { error () {}, warn () {} }

function notification (group: string, name: string, length = 0): Notification {
  return { entity: 'Todo', group, type: 'update', object: JSON.stringify({ name, text: 'x'.repeat(length) }), key: name, part: 'all' }
}

/** Returns each message as `group names`. */
function readMessages (messages: ReturnType<typeof encodeMessages>): string[] {
  return messages.map(({ group, payload, notifications }) => {
    if (notifications.length === 0) return `${group} ${payload}`
    const names = changesOf(payload).map(({ object }) => object['name'])
    assert.deepEqual(names, notifications.map(({ key }) => key))
    return `${group} ${names.join(' ')}`
  })
}

test('are in the place of the first one, and messages of the group are between them', () => {
  const messages = encodeMessages([
    notification('a', '1'), notification('b', '2'), droppedNotification('kind', 'Todo', '3', 'update'), notification('a', '4'),
    { group: 'c', payload: '{}' }, notification('b', '5'), { group: 'a', payload: '{}' }, notification('a', '6'),
    notification('b', '7'), notification('a', '8')
  ])

  assert.deepEqual(readMessages(messages), ['a 1 4', 'b 2 5 7', 'c {}', 'a {}', 'a 6 8'])
})

test('are several messages if their text is longer than 1,000,000 characters', () => {
  const messages = encodeMessages([
    notification('a', '1', 400_000), notification('a', '2', 400_000), notification('a', '3', 400_000), notification('a', '4', 2_000_000),
    notification('a', '5', 300_000), notification('a', '6', 300_000)
  ])

  assert.deepEqual(readMessages(messages), ['a 1 2', 'a 3', 'a 4', 'a 5 6'])
})

test('have the stamp of each, and are reported one by one', (t) => {
  const { notify, drop } = record(t, 'notify', 'drop')
  const stamp = { clock: 'c', value: '1' }
  const options: unknown[] = []
  const failed: string[] = []
  const target = {
    log,
    publish (group: string, _payload: string, given: unknown) {
      options.push(given)
      if (group === 'bad') throw new Error('refused')
    }
  }
  const messages = encodeMessages([
    notification('a', '1'), notification('a', '2'), { group: 'a', payload: '{}' }, notification('bad', '3'), notification('bad', '4')
  ])

  publishMessages(messages, target, stamp, (group) => { failed.push(group) })
  const [alone] = encodeMessages([notification('b', 'alone')]) as [EncodedMessage]
  reportSent(alone)

  const stampOf = (key: string) => ({ key, part: 'all', ...stamp })
  assert.deepEqual(options, [{ stamps: [stampOf('1'), stampOf('2')] }, undefined, { stamps: [stampOf('3'), stampOf('4')] }])
  assert.deepEqual(failed, ['bad'])
  assert.deepEqual((drop as ChangeDropEvent[]).map(({ reason, group }) => `${reason} ${group}`), ['failed bad', 'failed bad'])
  const size = notification('a', '1').object.length
  assert.deepEqual(notify.map(({ group, size }) => [group, size]), [['a', size], ['a', size], ['b', alone.payload.length]])
})
