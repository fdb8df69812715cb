/** Tests of the conformance suite that every broker has to pass. */
import assert from 'node:assert/strict'
import type { BrokerTests } from './suite-setup.ts'

/** A number of messages that exceeds one network packet and one publish call. */
const MANY = 3000

/** JSON objects that a broker would change if it parsed and encoded them. */
const PAYLOADS = [
  '{}',
  '{ "b" : 1,\n\t"a" : [ 2 ] }',
  '{"quotes":"\\" \' `","slash":"\\\\","colon":"a:b","percent":"%s%d"}',
  '{"umlaut":"äöü","emoji":"👩‍👩‍👧‍👧","nul":"\\u0000","separator":"\u2028"}',
  `{"long":"${'é'.repeat(500_000)}"}`
]

export function groupTests ({ define }: BrokerTests): void {
  define('delivers the messages of subscribed groups, and no others', async ({ open, group }) => {
    const { broker, recorder } = await open()

    await broker.publish(group, '{"n":1}')
    await broker.subscribe(group)
    await broker.publish(group, '{"n":2}')
    await broker.publish(`${group}-other`, '{"n":3}')
    await broker.publish(group, '{"n":4}')
    await recorder.until(group, '{"n":4}')

    assert.deepEqual(recorder.events.map(({ group }) => group), [group, group])
    assert.deepEqual(recorder.payloads(group), ['{"n":2}', '{"n":4}'])
  })

  define('delivers every message that is published after subscribe has resolved', async ({ open, group }) => {
    const { broker, recorder } = await open()

    for (let n = 0; n < 20; n++) {
      const name = `${group}-${n}`
      await broker.subscribe(name)
      await broker.publish(name, '{}')
      await recorder.until(name, '{}')
    }
  })

  define('delivers nothing between unsubscribe and the next subscribe', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)
    await broker.subscribe(`${group}-stays`)

    await broker.unsubscribe(group)
    await broker.publish(group, '{"n":1}')
    await broker.publish(`${group}-stays`, '{"n":1}')
    await recorder.until(`${group}-stays`, '{"n":1}')
    await broker.subscribe(group)
    await broker.publish(group, '{"n":2}')
    await recorder.until(group, '{"n":2}')

    assert.deepEqual(recorder.payloads(group), ['{"n":2}'])
  })

  define('keeps the order of many messages that are published in one turn', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)
    const payloads = Array.from({ length: MANY }, (_, n) => `{"n":${n}}`)

    await Promise.all(payloads.slice(0, -10).map((payload) => broker.publish(group, payload)))
    for (const payload of payloads.slice(-10)) await broker.publish(group, payload)
    await recorder.until(group, `{"n":${MANY - 1}}`)

    assert.deepEqual(recorder.payloads(group), payloads)
  })

  define('keeps the order within each of many groups', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const groups = Array.from({ length: 50 }, (_, n) => `${group}-${n}`)
    await Promise.all(groups.map((name) => broker.subscribe(name)))

    const published: unknown[] = []
    for (let n = 0; n < 40; n++) {
      for (const name of groups) published.push(broker.publish(name, `{"n":${n}}`))
    }
    await Promise.all(published)
    for (const name of groups) await recorder.until(name, '{"n":39}')

    const payloads = Array.from({ length: 40 }, (_, n) => `{"n":${n}}`)
    for (const name of groups) assert.deepEqual(recorder.payloads(name), payloads)
  })

  define('forwards payloads unchanged', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)

    await Promise.all(PAYLOADS.map((payload) => broker.publish(group, payload)))
    for (const payload of PAYLOADS) await recorder.until(group, payload)

    assert.deepEqual(recorder.payloads(group), PAYLOADS)
  })

  define('treats all characters of group names literally', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const printable = String.fromCharCode(...Array.from({ length: 94 }, (_, n) => 0x21 + n))
    const names = [
      ...['*', '?', '[ab]', 'a', ':a', '/a', '.a', ' a', '{a}', '%20', printable].map((suffix) => group + suffix),
      group.padEnd(200, 'x'), '__proto__', 'constructor', group
    ]
    for (const name of names) await broker.subscribe(name)

    await Promise.all(names.map((name, n) => broker.publish(name, `{"name":${n}}`)))
    for (const [n, name] of names.entries()) await recorder.until(name, `{"name":${n}}`)

    for (const [n, name] of names.entries()) {
      assert.ok(recorder.payloads(name).every((payload) => payload === `{"name":${n}}`), name)
    }
  })

  define('reports in health() that it works', async ({ open }) => {
    const { broker } = await open()

    assert.equal(broker.health().ok, true)
  })

  define('refuses a second open', async ({ open }) => {
    const { broker, recorder } = await open()

    await assert.rejects(async () => broker.open(recorder))
  })

  define('delivers nothing after close', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)
    await broker.close()

    await Promise.resolve().then(() => broker.publish(group, '{}')).catch(() => {})

    assert.deepEqual(recorder.events, [])
  })
}
