/** Reads in portions: each portion is bounded, and the next one continues where it ended. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import type { Position } from '../../../lib/index.ts'
import { openBroker, poll } from '../../support/broker.ts'
import { openLine } from '../../support/line.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 2000, ttl: 600_000 }

suite('reads of the Redis broker', { skip: redisServer.skip, concurrency: 2 }, () => {
  test('transfer no more than the bytes that history is called with', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const { broker } = await openBroker(t, { client: redis.client(), history })
    const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await admin.info('stats'))?.[1])
    const top = await broker.subscribe('a') as Position
    broker.unsubscribe('a')
    const payload = JSON.stringify({ text: 'x'.repeat(50_000) })
    for (let n = 0; n < 10; n++) await Promise.all(Array.from({ length: 20 }, () => broker.publish('a', payload)))

    const before = await sent()
    const entries = await broker.history('a', top, 1000, 1_000_000)
    const bytes = await sent() - before

    assert.equal(entries?.length, Math.floor(1_000_000 / payload.length))
    assert.deepEqual(entries?.map(({ position }) => position.offset), entries?.map((_, n) => n + 1))
    assert.ok(bytes < 1_200_000, `${bytes} bytes`)
    assert.equal((await broker.history('a', top, 1000))?.length, 200, 'all messages without a limit of bytes')
    assert.equal((await broker.history('a', top, 150))?.length, 150)
    assert.deepEqual(await broker.history('a', { ...top, offset: 199 }, 1000, 100), [])
  })

  test('return the messages that many groups missed during a disconnect, once and in order', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const line = await openLine(t, redis.port)
    const { broker, recorder } = await openBroker(t, { client: redis.client({ port: line.port }), history })
    const speaker = await openBroker(t, { client: redis.client(), history })
    const groups = Array.from({ length: 120 }, (_, n) => `g-${n}`)
    const payloads = Array.from({ length: 60 }, (_, n) => JSON.stringify({ n, text: 'x'.repeat(n % 7 === 0 ? 20_000 : 500) }))
    await Promise.all(groups.map((group) => broker.subscribe(group)))

    line.target = 1
    line.cut()
    await poll(() => !broker.health().ok)
    for (const group of groups) await Promise.all(payloads.map((payload) => speaker.broker.publish(group, payload)))
    await admin.config('RESETSTAT')
    line.target = redis.port
    // a new subscription does not wait for the missed messages
    await broker.subscribe('another')
    for (const group of groups) await recorder.until(group, String(payloads.at(-1)))

    for (const group of groups) {
      assert.deepEqual(recorder.payloads(group), payloads)
      assert.deepEqual(recorder.positions(group).map((position) => position?.offset), payloads.map((_, n) => n + 1))
    }
    const stats = await admin.info('commandstats')
    const calls = Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1])
    assert.ok(calls >= 22, `${calls} calls for 22 MB`)
  })

  test('continue with new messages after several portions of missed ones', async (t) => {
    const redis = await privateRedis(t)
    const line = await openLine(t, redis.port)
    const big = { size: 10_000, ttl: 600_000 }
    const { broker, recorder } = await openBroker(t, { client: redis.client({ port: line.port }), history: big })
    const speaker = await openBroker(t, { client: redis.client(), history: big })
    await broker.subscribe('a')
    const numbered = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => `{"n":${from + n}}`)

    line.target = 1
    line.cut()
    await poll(() => !broker.health().ok)
    await Promise.all(numbered(0, 6000).map((payload) => speaker.broker.publish('a', payload)))
    line.target = redis.port
    for (let n = 6000; n < 6200; n += 20) await Promise.all(numbered(n, n + 20).map((payload) => speaker.broker.publish('a', payload)))
    await recorder.until('a', '{"n":6199}')

    assert.deepEqual(recorder.payloads('a'), numbered(0, 6200))
  })

  test('refuse a position whose next message was deleted', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), history })
    const top = await broker.subscribe('a') as Position
    await Promise.all(Array.from({ length: 5 }, (_, n) => broker.publish('a', `{"n":${n}}`)))
    const [entry] = await redis.client().xrange('rohrpost:log:a', '3', '3')
    assert.ok(entry)

    await redis.client().xdel('rohrpost:log:a', entry[0])

    assert.equal(await broker.history('a', top, 10), undefined)
    assert.equal((await broker.history('a', { ...top, offset: 3 }, 10))?.length, 2)
    assert.equal((await broker.history('a', top, 2))?.length, 2)
  })

  test('return exactly the messages that fit, for random sizes and limits', { timeout: 60_000 }, async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), history })
    let runs = 0

    await fc.assert(fc.asyncProperty(
      fc.array(fc.oneof(fc.nat(50), fc.nat(40_000)), { minLength: 1, maxLength: 40 }), fc.nat(40), fc.integer({ min: 1, max: 50 }), fc.nat(400_000),
      async (sizes, start, limit, bytes) => {
        const group = `g-${++runs}`
        const payloads = sizes.map((size, n) => JSON.stringify({ n, text: 'é'.repeat(size) }))
        const top = await broker.subscribe(group) as Position
        broker.unsubscribe(group)
        await Promise.all(payloads.map((payload) => broker.publish(group, payload)))
        const offset = Math.min(start, payloads.length)

        const entries = await broker.history(group, { ...top, offset }, limit, bytes)

        const expected: string[] = []
        let left = bytes
        for (const payload of payloads.slice(offset, offset + limit)) {
          left -= Buffer.byteLength(payload)
          if (left < 0) break
          expected.push(payload)
        }
        assert.deepEqual(entries?.map(({ payload }) => payload.length), expected.map(({ length }) => length))
        assert.deepEqual(entries?.map(({ payload }) => payload), expected)
      }
    ), { numRuns: 100 })
  })
})
