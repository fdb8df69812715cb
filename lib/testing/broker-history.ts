/** Tests of the conformance suite for positions and history. */
import assert from 'node:assert/strict'
import type { Broker, HistoryEntry, Position } from '../brokers/broker.ts'
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

  define(
    'gives each message a position after the last one, from offset 0 on unless offsets are sparse',
    async ({ open, group }) => {
      const { broker, recorder } = await open()

      const top = await subscribeTo(broker, group)
      await Promise.all(Array.from({ length: 10 }, (_, n) => broker.publish(group, `{"n":${n}}`)))
      await recorder.until(group, '{"n":9}')

      if (broker.hasSparseOffsets !== true) assert.equal(top.offset, 0)
      assert.equal(recorder.positions(group).length, 10)
      assertFollow(broker, top, recorder.positions(group))
    }
  )

  define('resolves subscribe with the position of the last message', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const first = await subscribeTo(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)
    await recorder.until(group, '{"n":3}')
    await broker.unsubscribe(group)

    const top = await subscribeTo(broker, group)
    assert.deepEqual(top, recorder.positions(group).at(-1))
    assert.equal(top.epoch, first.epoch)
  })

  define('returns the messages after a position, oldest first', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)

    const after = async (position: Position | undefined, limit: number) => {
      return entriesOf(await broker.history(group, position as Position, limit))
    }
    const all = await after(top, size)
    assert.deepEqual(all.map(({ payload }) => payload), ['{"n":1}', '{"n":2}', '{"n":3}'])
    const [first, second, third] = all.map(({ position }) => position)
    assertFollow(broker, top, [first, second, third])
    assert.deepEqual(await after(first, size), all.slice(1))
    assert.deepEqual(await after(first, 1), all.slice(1, 2))
    assert.deepEqual(await after(third, size), [])
  })

  define('returns no more than the requested bytes', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    const payloads = [1, 2, 3].map((n) => `{"n":${n},"text":"${'é'.repeat(50)}"}`)
    for (const payload of payloads) await broker.publish(group, payload)
    const weight = Buffer.byteLength(String(payloads[0]))

    const within = async (bytes: number, after = top) => {
      const entries = await broker.history(group, after, size, bytes)
      return entries?.map(({ payload }) => payload)
    }
    assert.deepEqual(await within(3 * weight), payloads)
    assert.deepEqual(await within(3 * weight - 1), payloads.slice(0, 2))
    const [first, , third] = entriesOf(await broker.history(group, top, size)).map(({ position }) => position)
    assert.deepEqual(await within(weight, first), payloads.slice(1, 2))
    const none = broker.hasSparseOffsets === true ? undefined : []
    assert.deepEqual(await within(weight - 1), none, 'fewer bytes than the first message')
    assert.deepEqual(await within(0, third), [], 'no missing messages')
  })

  define('returns the messages after the position of an empty group', async ({ open, group }) => {
    const { broker } = await open()
    const top = await subscribeTo(broker, group)
    await broker.unsubscribe(group)

    await broker.publish(group, '{"n":1}')

    const [entry, ...others] = entriesOf(await broker.history(group, top, size))
    assert.equal(entry?.payload, '{"n":1}')
    assert.deepEqual(others, [])
    assertFollow(broker, top, [entry.position])
    assert.deepEqual(await subscribeTo(broker, group), entry.position)
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
    const [last] = entriesOf(await broker.history(group, top, size))

    // with sparse offsets other groups may have taken the next ones
    const beyond = Number(last?.position.offset) + (broker.hasSparseOffsets === true ? 1_000_000 : 1)
    assert.equal(await broker.history(group, { ...top, offset: beyond }, size), undefined, 'beyond the top')
    assert.equal(await broker.history(group, { epoch: 'another', offset: 0 }, size), undefined, 'another epoch')
    // a log that all groups share can answer for the position of another group
    if (broker.hasSparseOffsets !== true) {
      assert.equal(await broker.history(`${group}-other`, top, size), undefined, 'another group')
    }
  })

  define('keeps exactly `size` messages, and refuses positions before them', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const top = await subscribeTo(broker, group)
    await Promise.all(Array.from({ length: size + 1 }, (_, n) => broker.publish(group, `{"n":${n + 1}}`)))

    await recorder.until(group, `{"n":${size + 1}}`)

    const [first, ...others] = recorder.positions(group)
    assertFollow(broker, top, [first, ...others])
    const kept = entriesOf(await broker.history(group, first as Position, size + 1))
    assert.deepEqual(kept, others.map((position, n) => ({ payload: `{"n":${n + 2}}`, position })))
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

    assertFollow(one.broker, top, one.recorder.positions(group))
    assert.deepEqual(two.recorder.positions(group), one.recorder.positions(group))
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

    for (const [index, { broker, recorder }] of subscribers.entries()) {
      // messages may be delivered before subscribe resolves
      const heard = recorder.of(group).filter(({ position }) => Number(position?.offset) > Number(tops[index]?.offset))
      assertFollow(broker, tops[index], heard.map(({ position }) => position))
      const messages = heard.filter((message) => message.kind === 'message').slice(0, -1)
      const numbers = messages.map(({ payload }) => JSON.parse(payload).n)
      assert.deepEqual(numbers, numbers.map((_, n) => Number(numbers[0]) + n))
    }
  })
}

/** The messages that a broker must have. */
function entriesOf (entries: HistoryEntry[] | undefined): HistoryEntry[] {
  assert.ok(entries, 'the messages are kept')
  return entries.map(({ payload, position }) => ({ payload, position }))
}

/**
 * Positions of one epoch that follow each other from `after` on: by one, or rising where the broker has sparse offsets.
 */
export function assertFollow (broker: Broker, after: Position | undefined, positions: (Position | undefined)[]): void {
  let last = Number(after?.offset)
  for (const position of positions) {
    assert.equal(position?.epoch, after?.epoch)
    const offset = Number(position?.offset)
    if (broker.hasSparseOffsets === true) assert.ok(offset > last, `offset ${offset} is after ${last}`)
    else assert.equal(position?.offset, last + 1)
    last = offset
  }
}

/** Subscribes to a group of a broker with history. @returns the position of the group's last message */
export async function subscribeTo (broker: Broker, group: string): Promise<Position> {
  const top = await broker.subscribe(group)
  assert.ok(top, 'subscribe resolves with the position of the group')
  return top
}
