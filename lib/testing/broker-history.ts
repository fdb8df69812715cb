/** Positions and history, or that there are none. */
import assert from 'node:assert/strict'
import type { Broker, Position } from '../brokers/broker.ts'
import type { Parts } from './broker-suite.ts'

export function historyTests ({ define, capabilities: { history, processes = false } }: Parts): void {
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

  define('says that it keeps history', async ({ open }) => {
    const { broker } = await open()

    assert.equal(broker.keepsHistory, true)
  })

  define('begins at offset 0 and gives each message the position after the last one', async ({ open, group }) => {
    const { broker, recorder } = await open()

    const top = await topOf(broker, group)
    await Promise.all(Array.from({ length: 10 }, (_, n) => broker.publish(group, `{"n":${n}}`)))
    await recorder.until(group, '{"n":9}')

    assert.equal(top.offset, 0)
    assert.deepEqual(recorder.positions(group), Array.from({ length: 10 }, (_, n) => ({ epoch: top.epoch, offset: n + 1 })))
  })

  define('tells who subscribes where the group stands', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const first = await topOf(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)
    await recorder.until(group, '{"n":3}')
    await broker.unsubscribe(group)

    assert.deepEqual(await topOf(broker, group), { epoch: first.epoch, offset: 3 })
  })

  define('gives what came after a position, oldest first', async ({ open, group }) => {
    const { broker } = await open()
    const top = await topOf(broker, group)
    for (let n = 1; n <= 3; n++) await broker.publish(group, `{"n":${n}}`)

    const after = async (offset: number, limit: number) => (await broker.history(group, { ...top, offset }, limit))?.map(({ payload, position }) => ({ payload, position }))
    const entry = (n: number) => ({ payload: `{"n":${n}}`, position: { ...top, offset: n } })
    assert.deepEqual(await after(0, size), [entry(1), entry(2), entry(3)])
    assert.deepEqual(await after(1, size), [entry(2), entry(3)])
    assert.deepEqual(await after(1, 1), [entry(2)])
    assert.deepEqual(await after(3, size), [])
  })

  define('gives no more than the bytes that it is asked for', async ({ open, group }) => {
    const { broker } = await open()
    const top = await topOf(broker, group)
    const payloads = [1, 2, 3].map((n) => `{"n":${n},"text":"${'é'.repeat(50)}"}`)
    for (const payload of payloads) await broker.publish(group, payload)
    const weight = Buffer.byteLength(String(payloads[0]))

    const within = async (bytes: number, offset = 0) => (await broker.history(group, { ...top, offset }, size, bytes))?.map(({ payload }) => payload)
    assert.deepEqual(await within(3 * weight), payloads)
    assert.deepEqual(await within(3 * weight - 1), payloads.slice(0, 2))
    assert.deepEqual(await within(weight, 1), payloads.slice(1, 2))
    assert.deepEqual(await within(weight - 1), [], 'less than the first message')
    assert.deepEqual(await within(0, 3), [], 'nothing is missed')
  })

  define('gives what was published after the position of an empty group', async ({ open, group }) => {
    const { broker } = await open()
    const top = await topOf(broker, group)
    await broker.unsubscribe(group)

    await broker.publish(group, '{"n":1}')

    assert.deepEqual((await broker.history(group, top, size))?.map(({ payload }) => payload), ['{"n":1}'])
    assert.deepEqual(await topOf(broker, group), { ...top, offset: 1 })
  })

  define('gives a group that is left and entered again the position that it had, also while it is empty', async ({ open, group }) => {
    const { broker } = await open()

    const top = await topOf(broker, group)
    await broker.unsubscribe(group)

    assert.deepEqual(await topOf(broker, group), top)
  })

  define('refuses positions that it can not answer for', async ({ open, group }) => {
    const { broker } = await open()
    const top = await topOf(broker, group)
    await broker.publish(group, '{}')

    assert.equal(await broker.history(group, { ...top, offset: 2 }, size), undefined, 'beyond the top')
    assert.equal(await broker.history(group, { epoch: 'another', offset: 0 }, size), undefined, 'another epoch')
    assert.equal(await broker.history(`${group}-other`, top, size), undefined, 'another group')
  })

  define('keeps as many messages as it says, and refuses what is beyond', async ({ open, group }) => {
    const { broker } = await open()
    const top = await topOf(broker, group)
    await Promise.all(Array.from({ length: size + 1 }, (_, n) => broker.publish(group, `{"n":${n + 1}}`)))

    const kept = await broker.history(group, { ...top, offset: 1 }, size + 1)
    assert.deepEqual(kept?.map(({ payload, position }) => [payload, position.offset]), Array.from({ length: size }, (_, n) => [`{"n":${n + 2}}`, n + 2]))
    assert.equal(await broker.history(group, top, size + 1), undefined)
  })

  if (!processes) return

  define('has the same positions in every process', async ({ open, group }) => {
    const [one, two] = await Promise.all([open(), open()])
    const top = await topOf(one.broker, group)
    await topOf(two.broker, group)

    await one.broker.publish(group, '{"n":1}')
    await two.broker.publish(group, '{"n":2}')
    await Promise.all([one, two].map(({ recorder }) => recorder.until(group, '{"n":2}')))

    for (const { recorder } of [one, two]) assert.deepEqual(recorder.positions(group), [{ ...top, offset: 1 }, { ...top, offset: 2 }])
    const { broker } = await open()
    assert.deepEqual((await broker.history(group, top, size))?.map(({ payload }) => payload), ['{"n":1}', '{"n":2}'])
  })

  define('goes on without a gap from where a process came in', async ({ open, group }) => {
    const [speaker, ...listeners] = await Promise.all([open(), open(), open(), open(), open()])
    const tops: Position[] = []
    const speaking = (async () => {
      for (let n = 1; tops.length < listeners.length; n++) await speaker.broker.publish(group, `{"n":${n}}`)
    })()

    for (const { broker } of listeners) tops.push(await topOf(broker, group))
    await speaking
    await speaker.broker.publish(group, '{"end":true}')
    await Promise.all(listeners.map(({ recorder }) => recorder.until(group, '{"end":true}')))

    for (const [index, { recorder }] of listeners.entries()) {
      const offsets = recorder.positions(group).map((position) => Number(position?.offset))
      // what was delivered before subscribe resolved may be among them
      const after = offsets.filter((offset) => offset > Number(tops[index]?.offset))
      assert.deepEqual(after, after.map((_, n) => Number(tops[index]?.offset) + 1 + n))
    }
  })
}

/** Subscribes to a group of a broker that keeps history. */
export async function topOf (broker: Broker, group: string): Promise<Position> {
  const top = await broker.subscribe(group)
  assert.ok(top, 'subscribe gives the position of the group')
  return top
}
