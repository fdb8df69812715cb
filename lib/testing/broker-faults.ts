/** Tests of the conformance suite in which the server behind the broker fails. */
import assert from 'node:assert/strict'
import type { Position } from '../brokers/broker.ts'
import { assertFollow, subscribeTo } from './broker-history.ts'
import { poll } from './recorder.ts'
import type { BrokerTests, RecordedBroker } from './suite-setup.ts'

export function faultTests ({ define, capabilities: { history, processes = false }, fault }: BrokerTests): void {
  const { disconnect, away, forget, expire } = fault

  if (disconnect !== undefined) {
    const outcome = history === undefined ? 'repeats and reorders no messages' : 'loses no messages'
    define(`${outcome} when its connections are cut`, async ({ open, group }) => {
      const publisher = await open()
      const subscriber = processes ? await open() : publisher
      await subscriber.broker.subscribe(group)

      const count = history === undefined ? 300 : Math.min(history.size, 300)
      const payloads = Array.from({ length: count }, (_, n) => `{"n":${n}}`)
      for (const [n, payload] of payloads.entries()) {
        if (n % 100 === 50) await disconnect()
        const published = publisher.broker.publish(group, payload)
        if (n % 5 === 0) await published
      }
      await publishUntilDelivered(publisher, subscriber, group)

      const received = subscriber.recorder.payloads(group).filter((payload) => payloads.includes(payload))
      if (history === undefined) assert.deepEqual(received, payloads.filter((payload) => received.includes(payload)))
      else assertComplete(subscriber, group, payloads)
    })
  }

  if (away !== undefined) {
    define('publishes the messages of an outage in order after it, and reports it', async ({ open, group }) => {
      const publisher = await open()
      const subscriber = processes ? await open() : publisher
      await subscriber.broker.subscribe(group)

      const back = await away()
      const payloads = Array.from({ length: 100 }, (_, n) => `{"n":${n}}`)
      const published = payloads.map((payload) => publisher.broker.publish(group, payload))
      await poll('health() with ok: false', () => !publisher.broker.health().ok)
      await back()
      await Promise.all(published)
      await publishUntilDelivered(publisher, subscriber, group)

      const received = subscriber.recorder.payloads(group).filter((payload) => payloads.includes(payload))
      const expected = history === undefined ? payloads.filter((payload) => received.includes(payload)) : payloads
      assert.deepEqual(received, expected)
      await poll('health() with ok: true', () => publisher.broker.health().ok)
    })

    define('delivers the messages of a group that was joined during an outage', async ({ open, group }) => {
      const { broker, recorder } = await open()

      const back = await away()
      const joined = Promise.resolve(broker.subscribe(group))
      await back()
      await joined
      await broker.publish(group, '{}')
      await recorder.until(group, '{}')
    })
  }

  if (forget !== undefined && history !== undefined) {
    define('reports a loss when the server has lost its data, and uses no epoch twice', async ({ open, group }) => {
      const { broker, recorder } = await open()
      const top = await subscribeTo(broker, group)
      await broker.publish(group, '{"n":1}')
      await recorder.until(group, '{"n":1}')

      await forget()
      await publishUntilDelivered({ broker, recorder }, { broker, recorder }, group)

      const events = recorder.of(group)
      const lost = events.findIndex(({ kind }) => kind === 'lost')
      assert.ok(lost > 0, 'the loss is reported')
      const epochs = events.map(({ position }) => position?.epoch)
      assert.ok(epochs.slice(0, lost).every((epoch) => epoch === top.epoch))
      assert.ok(epochs.slice(lost).every((epoch) => epoch !== top.epoch))
      assert.equal(await broker.history(group, top, history.size), undefined)
      const [first] = recorder.positions(group)
      assert.equal(await broker.history(group, { ...top, offset: Number(first?.offset) }, history.size), undefined)
    })
  }

  if (expire !== undefined && history !== undefined) {
    define('refuses a position whose next message is older than the history keeps', async ({ open, group }) => {
      const { broker, recorder } = await open()
      const top = await subscribeTo(broker, group)
      await broker.publish(group, '{"n":1}')
      await recorder.until(group, '{"n":1}')

      await expire()
      await broker.publish(group, '{"n":2}')

      assert.equal(await broker.history(group, top, history.size), undefined)
      const kept = await broker.history(group, recorder.positions(group)[0] as Position, history.size)
      assert.deepEqual(kept?.map(({ payload }) => payload), ['{"n":2}'])
    })
  }
}

/**
 * Publishes marker messages until one arrives. Every earlier message has arrived by then, or is lost.
 */
async function publishUntilDelivered (
  publisher: RecordedBroker, subscriber: RecordedBroker, group: string
): Promise<void> {
  const isMarker = (payload: string) => payload.startsWith('{"marker":')
  let n = 0
  await poll('marker message', async () => {
    await Promise.resolve(publisher.broker.publish(group, `{"marker":${n++}}`)).catch(() => {})
    return subscriber.recorder.payloads(group).some(isMarker)
  })
}

/** Asserts that each message was delivered once and in order, and none was reported as lost. */
function assertComplete (subscriber: RecordedBroker, group: string, payloads: string[]): void {
  const events = subscriber.recorder.of(group)
  assert.deepEqual(events.filter(({ kind }) => kind === 'lost'), [])
  assert.deepEqual(subscriber.recorder.payloads(group).slice(0, payloads.length), payloads)
  const [first, ...others] = subscriber.recorder.positions(group)
  assertFollow(subscriber.broker, first, others)
}
