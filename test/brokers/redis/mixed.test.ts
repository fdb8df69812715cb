/** Processes with and without history that share a Redis, as in a rolling deployment that turns history on. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Position } from '../../../lib/index.ts'
import { openBroker } from '../../support/broker.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 1000, ttl: 60_000 }
const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `{"n":${from + n}}`)

suite('Redis brokers with and without history that share a Redis', { skip: redisServer.skip, concurrency: 2 }, () => {
  test('exchange messages, with positions for brokers with history, and report the difference once', async (t) => {
    const redis = await privateRedis(t)
    const old = await openBroker(t, { client: redis.client() })
    const recent = await openBroker(t, { client: redis.client(), history })
    await old.broker.subscribe('a')
    const top = await recent.broker.subscribe('a') as Position

    for (const payload of numbered(1, 10)) {
      await old.broker.publish('a', payload)
      await recent.broker.publish('a', payload.replace('n', 'm'))
    }
    await Promise.all([old, recent].map(({ recorder }) => recorder.until('a', '{"m":10}')))

    const all = numbered(1, 10).flatMap((payload) => [payload, payload.replace('n', 'm')])
    for (const { recorder } of [old, recent]) assert.deepEqual(recorder.payloads('a'), all)
    assert.deepEqual(recent.recorder.positions('a'), all.map((_, n) => ({ ...top, offset: n + 1 })))
    assert.deepEqual((await recent.broker.history('a', top, 100))?.map(({ payload }) => payload), all, 'history has the messages of both')
    assert.deepEqual([...old.recorder.notices, ...recent.recorder.notices].map(({ text }) => text), [
      "other processes keep history, so this one's messages are kept too: give all processes the same 'history'"
    ])
    assert.deepEqual([...old.recorder.errors, ...recent.recorder.errors], [])
  })

  test('write no logs if none of them keeps history', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client() })

    await broker.publish('a', '{}')

    assert.deepEqual((await redis.client().keys('*')).filter((key) => !key.startsWith('rohrpost:sender:')), [])
  })

  for (const [what, payload] of [['is not a JSON object', '[1]'], ['has text after the object', '{"n":1} x']] as const) {
    test(`report a loss to members with positions for a message that ${what}, and refuse earlier positions`, async (t) => {
      const redis = await privateRedis(t)
      const old = await openBroker(t, { client: redis.client() })
      const recent = await openBroker(t, { client: redis.client(), history })
      const top = await recent.broker.subscribe('a') as Position
      await recent.broker.publish('a', '{"n":1}')
      await recent.recorder.until('a', '{"n":1}')

      await old.broker.publish('a', payload)
      await recent.recorder.until('a', payload)
      await recent.broker.publish('a', '{"n":2}')
      await recent.recorder.until('a', '{"n":2}')

      assert.deepEqual(recent.recorder.of('a').slice(0, 3), [
        { kind: 'message', group: 'a', payload: '{"n":1}', position: { ...top, offset: 1 } },
        { kind: 'message', group: 'a', payload, position: undefined },
        { kind: 'lost', group: 'a', position: { ...top, offset: 1 } }
      ])
      for (const offset of [0, 1]) assert.equal(await recent.broker.history('a', { ...top, offset }, 10), undefined)
      assert.deepEqual(recent.recorder.notices.map(({ text }) => text), ['another process publishes without history: members receive its messages, but without positions'])
    })
  }

  test('exchange messages if the process without history lacks the permission to keep them', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'plain', 'on', '>secret', '~*', '&*', '+@all', '-xadd', '-hmget', '-setrange')
    const old = await openBroker(t, { client: redis.client({ username: 'plain', password: 'secret' }) })
    const recent = await openBroker(t, { client: redis.client(), history })
    await recent.broker.subscribe('a')

    await old.broker.publish('a', '{"n":1}')
    await recent.recorder.until('a', '{"n":1}')
    await recent.broker.publish('a', '{"n":2}')
    await recent.recorder.until('a', '{"n":2}')

    assert.deepEqual(recent.recorder.events.map(({ kind }) => kind), ['message', 'lost', 'message'])
  })

  test('report no loss for a message from before the subscription', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    const joined = broker.subscribe('a')

    // the message of a process with an older version
    while (await client.publish('rohrpost:0:a', '0 - 7 {"n":1}') === 0);
    const top = await joined as Position
    await broker.publish('a', '{"n":2}')
    await recorder.until('a', '{"n":2}')

    assert.deepEqual(recorder.positions('a').at(-1), { ...top, offset: 1 })
  })
})
