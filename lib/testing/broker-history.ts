/** Tests of the conformance suite for positions and history. */
import assert from 'node:assert/strict'
import type { Broker, Position } from '../brokers/broker.ts'
import type { BrokerTests } from './suite-setup.ts'

export function historyTests ({ define, capabilities: { history, processes = false } }: BrokerTests): void {
  if (history === undefined) {
    define('has no positions and no history', async ({ open, group }) => {
      const { broker, recorder } = await open()

      assert.equal(await broker.subscribe(group), undefined)
      await broker.publish(group, '{}')
      await recorder.until(group, '{}')

      assert.deepEqual(recorder.positions(group), [undefined])
      assert.ok(!broker.keepsHistory)
      assert.equal(await broker.history(group, { epoch: 'x', offset: 0 }, 10), undefined)
    })
    return
  }

  const { size } = history

  define('has keepsHistory set', async ({ open }) => {
    const { broker } = await open()

    assert.equal(broker.keepsHistory, true)
  })

  define('begins at offset 0 and gives each message the position after the last one', async ({ open, group }) => {
    const { broker, recorder } = await open()

    const top = await subscribeTo(broker, group)
    await Promise.all(Array.from({ length: 10 }, (_, n) => broker.publish(group, `{"n":${n}}`)))
    await recorder.until(group, '{"n":9}')

    assert.equal(top.offset, 0)
    const positions = Array.from({ length: 10 }, (_, n) => ({ epoch: top.epoch, offset: n + 1 }))
    assert.deepEqual(recorder.positions(group), positions)
  })

  define('resolves subscribe with the position of the last message', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const first = await subscribeTo(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)
    await recorder.until(group, '{"n":3}')
    await broker.unsubscribe(group)

    assert.deepEqual(await subscribeTo(broker, group), { epoch: first.epoch, offset: 3 })
  })

  define('returns the messages after a position, oldest first', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)

    const after = async (offset: number, limit: number) => {
      const entries = await broker.history(group, { ...top, offset }, limit)
      return entries?.map(({ payload, position }) => ({ payload, position }))
    }
    const entry = (n: number) => ({ payload: `{"n":${n}}`, position: { ...top, offset: n } })
    assert.deepEqual(await after(0, size), [entry(1), entry(2), entry(3)])
    assert.deepEqual(await after(1, size), [entry(2), entry(3)])
    assert.deepEqual(await after(1, 1), [entry(2)])
    assert.deepEqual(await after(3, size), [])
  })

  define('returns no more than the requested bytes', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    const payloads = [1, 2, 3].map((n) => `{"n":${n},"text":"${'é'.repeat(50)}"}`)
    for (const payload of payloads) await broker.publish(group, payload)
    const weight = Buffer.byteLength(String(payloads[0]))

    const within = async (bytes: number, offset = 0) => {
      const entries = await broker.history(group, { ...top, offset }, size, bytes)
      return entries?.map(({ payload }) => payload)
    }
    assert.deepEqual(await within(3 * weight), payloads)
    assert.deepEqual(await within(3 * weight - 1), payloads.slice(0, 2))
    assert.deepEqual(await within(weight, 1), payloads.slice(1, 2))
    assert.deepEqual(await within(weight - 1), [], 'fewer bytes than the first message')
    assert.deepEqual(await within(0, 3), [], 'no missing messages')
  })

  define('returns the messages after the position of an empty group', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    await broker.unsubscribe(group)

    await broker.publish(group, '{"n":1}')

    assert.deepEqual((await broker.history(group, top, size))?.map(({ payload }) => payload), ['{"n":1}'])
    assert.deepEqual(await subscribeTo(broker, group), { ...top, offset: 1 })
  })

  define('keeps the position of an empty group between unsubscribe and subscribe', async ({ open, group }) => {
    const { broker } = await open()

    const top = await subscribeTo(broker, group)
    await broker.unsubscribe(group)

    assert.deepEqual(await subscribeTo(broker, group), top)
  })

  define('refuses positions beyond the top, of another epoch and of another group', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    await broker.publish(group, '{}')

    assert.equal(await broker.history(group, { ...top, offset: 2 }, size), undefined, 'beyond the top')
    assert.equal(await broker.history(group, { epoch: 'another', offset: 0 }, size), undefined, 'another epoch')
    assert.equal(await broker.history(`${group}-other`, top, size), undefined, 'another group')
  })

  define('keeps exactly `size` messages, and refuses positions before them', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    await Promise.all(Array.from({ length: size + 1 }, (_, n) => broker.publish(group, `{"n":${n + 1}}`)))

    const kept = await broker.history(group, { ...top, offset: 1 }, size + 1)
    assert.deepEqual(
      kept?.map(({ payload, position }) => [payload, position.offset]),
      Array.from({ length: size }, (_, n) => [`{"n":${n + 2}}`, n + 2])
    )
    assert.equal(await broker.history(group, top, size + 1), undefined)
  })

  if (!processes) return

  define('gives each message the same position in every process', async ({ open, group }) => {
    const [one, two] = await Promise.all([open(), open()])
    const top = await subscribeTo(one.broker, group)
    await subscribeTo(two.broker, group)

    await one.broker.publish(group, '{"n":1}')
    await two.broker.publish(group, '{"n":2}')
    await Promise.all([one, two].map(({ recorder }) => recorder.until(group, '{"n":2}')))

    for (const { recorder } of [one, two]) {
      assert.deepEqual(recorder.positions(group), [{ ...top, offset: 1 }, { ...top, offset: 2 }])
    }
    const { broker } = await open()
    assert.deepEqual((await broker.history(group, top, size))?.map(({ payload }) => payload), ['{"n":1}', '{"n":2}'])
  })

  define('delivers every message after the position with which subscribe has resolved', async ({ open, group }) => {
    const [publisher, ...subscribers] = await Promise.all([open(), open(), open(), open(), open()])
    const tops: Position[] = []
    const speaking = (async () => {
      for (let n = 1; tops.length < subscribers.length; n++) await publisher.broker.publish(group, `{"n":${n}}`)
    })()

    for (const { broker } of subscribers) tops.push(await subscribeTo(broker, group))
    await speaking
    await publisher.broker.publish(group, '{"end":true}')
    await Promise.all(subscribers.map(({ recorder }) => recorder.until(group, '{"end":true}')))

    for (const [index, { recorder }] of subscribers.entries()) {
      const offsets = recorder.positions(group).map((position) => Number(position?.offset))
      // messages may be delivered before subscribe resolves
      const after = offsets.filter((offset) => offset > Number(tops[index]?.offset))
      assert.deepEqual(after, after.map((_, n) => Number(tops[index]?.offset) + 1 + n))
    }
  })
}

/** Subscribes to a group of a broker with history. @returns the position of the group's last message */
export async function subscribeTo (broker: Broker, group: string): Promise<Position> {
  const top = await broker.subscribe(group)
  assert.ok(top, 'subscribe resolves with the position of the group')
  return top
}
