/** Tests of the conformance suite for brokers that connect several processes. */
import assert from 'node:assert/strict'
import type { BrokerTests } from './suite-setup.ts'

export function processTests ({ define }: BrokerTests): void {
  define('delivers a message in every process that has subscribed, and in no other', async ({ open, group }) => {
    const [one, two, three] = await Promise.all([open(), open(), open()])
    await Promise.all([one, two].map(({ broker }) => broker.subscribe(group)))
    await three.broker.subscribe(`${group}-other`)

    await three.broker.publish(group, '{"n":1}')
    await one.broker.publish(group, '{"n":2}')
    await one.broker.publish(`${group}-other`, '{"n":3}')
    await Promise.all([one, two].map(({ recorder }) => recorder.until(group, '{"n":2}')))
    await three.recorder.until(`${group}-other`, '{"n":3}')

    for (const { recorder } of [one, two]) assert.deepEqual(recorder.payloads(group), ['{"n":1}', '{"n":2}'])
    assert.deepEqual(three.recorder.payloads(group), [])
  })

  define('delivers the messages of several publishers in the same order everywhere', async ({ open, group }) => {
    const all = await Promise.all([open(), open(), open()])
    await Promise.all(all.map(({ broker }) => broker.subscribe(group)))

    await Promise.all(all.map(async ({ broker }, sender) => {
      for (let n = 0; n < 200; n++) {
        const published = broker.publish(group, `{"sender":${sender},"n":${n}}`)
        if (n % 7 === 0) await published
      }
    }))
    await Promise.all(all.flatMap(({ recorder }) => {
      return [0, 1, 2].map((sender) => recorder.until(group, `{"sender":${sender},"n":199}`))
    }))

    const [first, ...others] = all.map(({ recorder }) => recorder.payloads(group))
    for (const other of others) assert.deepEqual(other, first)
    for (const sender of [0, 1, 2]) {
      const sent = Array.from({ length: 200 }, (_, n) => `{"sender":${sender},"n":${n}}`)
      assert.deepEqual(first?.filter((payload) => payload.startsWith(`{"sender":${sender},`)), sent)
    }
  })

  define('publishes waiting messages before it closes, and leaves other processes working', async ({ open, group }) => {
    const [leaving, staying] = await Promise.all([open(), open()])
    await staying.broker.subscribe(group)

    const published = Array.from({ length: 100 }, (_, n) => leaving.broker.publish(group, `{"n":${n}}`))
    await leaving.broker.close()
    await Promise.all(published)
    await staying.recorder.until(group, '{"n":99}')
    await staying.broker.publish(group, '{"n":100}')
    await staying.recorder.until(group, '{"n":100}')

    assert.deepEqual(staying.recorder.payloads(group), Array.from({ length: 101 }, (_, n) => `{"n":${n}}`))
  })
}
