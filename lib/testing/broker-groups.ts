/** What every broker does, also one that serves a single process. */
import assert from 'node:assert/strict'
import type { Parts } from './broker-suite.ts'

/** Many messages: more than a server takes in one piece. */
const MANY = 3000

/** A group that carries what the broker may not look into, or, with history, objects only. */
const PAYLOADS = [
  '{}',
  '{ "b" : 1,\n\t"a" : [ 2 ] }',
  '{"quotes":"\\" \' `","slash":"\\\\","colon":"a:b","percent":"%s%d"}',
  '{"umlaut":"äöü","emoji":"👩‍👩‍👧‍👧","nul":"\\u0000","separator":"\u2028"}',
  `{"long":"${'é'.repeat(500_000)}"}`
]

export function groupTests ({ define }: Parts): void {
  define('delivers what is published to those who subscribed, and to nobody else', async ({ open, group }) => {
    const { broker, recorder } = await open()

    await broker.publish(group, '{"n":1}')
    await broker.subscribe(group)
    await broker.publish(group, '{"n":2}')
    await broker.publish(`${group}-other`, '{"n":3}')
    await broker.publish(group, '{"n":4}')
    await recorder.until(group, '{"n":4}')

    assert.deepEqual(recorder.heard.map(({ group }) => group), [group, group])
    assert.deepEqual(recorder.payloads(group), ['{"n":2}', '{"n":4}'])
  })

  define('hears everything from the moment at which subscribe resolved', async ({ open, group }) => {
    const { broker, recorder } = await open()

    for (let n = 0; n < 20; n++) {
      const name = `${group}-${n}`
      await broker.subscribe(name)
      // at once, in the same turn
      const published = broker.publish(name, '{}')
      await published
      await recorder.until(name, '{}')
    }
  })

  define('delivers nothing after unsubscribe, and again after the next subscribe', async ({ open, group }) => {
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

  define('keeps the order of a group, however many messages one turn has', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)
    const payloads = Array.from({ length: MANY }, (_, n) => `{"n":${n}}`)

    await Promise.all(payloads.slice(0, -10).map((payload) => broker.publish(group, payload)))
    for (const payload of payloads.slice(-10)) await broker.publish(group, payload)
    await recorder.until(group, `{"n":${MANY - 1}}`)

    assert.deepEqual(recorder.payloads(group), payloads)
  })

  define('keeps the order of each of many groups', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const groups = Array.from({ length: 50 }, (_, n) => `${group}-${n}`)
    await Promise.all(groups.map((name) => broker.subscribe(name)))

    const published: unknown[] = []
    for (let n = 0; n < 40; n++) {
      for (const name of groups) published.push(broker.publish(name, `{"n":${n}}`))
    }
    await Promise.all(published)
    for (const name of groups) await recorder.until(name, '{"n":39}')

    for (const name of groups) assert.deepEqual(recorder.payloads(name), Array.from({ length: 40 }, (_, n) => `{"n":${n}}`))
  })

  define('forwards payloads as they are', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)

    await Promise.all(PAYLOADS.map((payload) => broker.publish(group, payload)))
    for (const payload of PAYLOADS) await recorder.until(group, payload)

    assert.deepEqual(recorder.payloads(group), PAYLOADS)
  })

  define('takes the names of groups as they are', async ({ open, group }) => {
    const { broker, recorder } = await open()
    const printable = String.fromCharCode(...Array.from({ length: 94 }, (_, n) => 0x21 + n))
    const names = [
      `${group}*`, `${group}?`, `${group}[ab]`, `${group}a`, `${group}:a`, `${group}/a`, `${group}.a`, `${group} a`, `${group}{a}`, `${group}%20`,
      `${group}${printable}`, group.padEnd(200, 'x'), '__proto__', 'constructor', group
    ]
    for (const name of names) await broker.subscribe(name)

    await Promise.all(names.map((name, n) => broker.publish(name, `{"name":${n}}`)))
    for (const [n, name] of names.entries()) await recorder.until(name, `{"name":${n}}`)

    for (const [n, name] of names.entries()) assert.ok(recorder.payloads(name).every((payload) => payload === `{"name":${n}}`), name)
  })

  define('is well', async ({ open }) => {
    const { broker } = await open()

    assert.equal(broker.health().ok, true)
  })

  define('can be opened once', async ({ open }) => {
    const { broker, recorder } = await open()

    await assert.rejects(async () => broker.open(recorder))
  })

  define('delivers nothing once it is closed', async ({ open, group }) => {
    const { broker, recorder } = await open()
    await broker.subscribe(group)
    await broker.close()

    await Promise.resolve().then(() => broker.publish(group, '{}')).catch(() => {})

    assert.deepEqual(recorder.heard, [])
  })
}
