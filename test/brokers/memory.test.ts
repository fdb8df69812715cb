import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBroker } from '../../lib/index.ts'
import type { Receiver } from '../../lib/index.ts'

function receiver (heard: string[]): Receiver {
  return {
    deliver: (group, payload) => heard.push(`${group}: ${payload}`),
    lost: (group) => heard.push(`${group} lost`),
    error: (error) => heard.push(error.message)
  }
}

test('delivers inside publish, to subscribed groups only', () => {
  const heard: string[] = []
  const broker = memoryBroker()
  broker.open(receiver(heard))

  broker.publish('a', '1')
  broker.subscribe('a')
  broker.publish('a', '2')
  broker.publish('b', '3')
  broker.unsubscribe('a')
  broker.publish('a', '4')

  assert.deepEqual(heard, ['a: 2'])
})

test('keeps no history and is always well', () => {
  const broker = memoryBroker()

  assert.equal(broker.history('a', { epoch: 'x', offset: 1 }, 10), undefined)
  assert.deepEqual(broker.health(), { ok: true })
})

test('delivers nothing once it is closed', () => {
  const heard: string[] = []
  const broker = memoryBroker()
  broker.open(receiver(heard))
  broker.subscribe('a')

  broker.close()
  broker.publish('a', '1')

  assert.deepEqual(heard, [])
})

test('refuses to serve two apps', () => {
  const broker = memoryBroker()
  broker.open(receiver([]))

  assert.throws(() => broker.open(receiver([])), { code: 'RP_ERR_BROKER_IN_USE', message: /memory broker/ })
})
