/**
 * The Redis broker when Redis crashes, is restored from older data, loses its data, hangs or fails over. Each test has
 * a Redis of its own.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Position } from '../../../lib/index.ts'
import type { Recorder } from '../../../lib/testing/recorder.ts'
import { openBroker, poll } from '../../support/broker.ts'
import { openLine } from '../../support/line.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 1000, ttl: 60_000 }
const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `{"n":${from + n}}`)

/** Asserts that all recorders together have no position with two messages. */
function assertUniquePositions (...recorders: Recorder[]): void {
  const payloads = new Map<string, string>()
  for (const event of recorders.flatMap(({ events }) => events)) {
    if (event.kind === 'lost' || event.position === undefined) continue
    const position = `${event.group} ${event.position.epoch} ${event.position.offset}`
    assert.equal(payloads.get(position) ?? event.payload, event.payload, position)
    payloads.set(position, event.payload)
  }
}

/** Lists the payloads of a recorder, with `lost` for each reported loss. */
function outcomeOf (recorder: Recorder): string[] {
  return recorder.events.map((event) => event.kind === 'lost' ? 'lost' : event.payload)
}

const lossOf = (recorder: Recorder) => recorder.when('loss', () => outcomeOf(recorder).includes('lost'))

/** Asserts the messages before a loss, the loss, and then a suffix of the messages after it, which may not be empty. */
function assertLossReported (recorder: Recorder, before: string[], after: string[]): void {
  const all = outcomeOf(recorder)
  assert.deepEqual(all.slice(0, before.length + 1), [...before, 'lost'])
  const rest = all.slice(before.length + 1)
  // the position of `lost` may include the first messages of the new epoch
  assert.deepEqual(rest, after.slice(after.length - rest.length))
  assert.ok(rest.length > 0)
}

suite('the Redis broker with a failing Redis', { skip: redisServer.skip, concurrency: 2 }, () => {
  test('reports a loss and starts a new epoch when Redis restarts without data', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    const top = await broker.subscribe('a') as Position
    await broker.publish('a', '{"n":1}')
    await recorder.until('a', '{"n":1}')

    await redis.kill()
    await poll(() => !broker.health().ok)
    const publishing = broker.publish('a', '{"n":2}')
    await redis.start()
    await publishing
    await lossOf(recorder)
    await broker.publish('a', '{"n":3}')
    await recorder.until('a', '{"n":3}')

    assertLossReported(recorder, numbered(1, 1), numbered(2, 3))
    assert.ok(recorder.events.slice(1).every(({ position }) => position?.epoch !== top.epoch))
    assert.equal(await broker.history('a', { ...top, offset: 1 }, 10), undefined)
    // no error at all if Redis was back before the broker reconnected
    assert.ok(recorder.errors.length <= 1, 'one report for the whole outage')
    await poll(() => broker.health().ok)
  })

  test('uses no offset twice after a restart from an older snapshot', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    const top = await broker.subscribe('a') as Position
    await Promise.all(numbered(1, 100).map((payload) => broker.publish('a', payload)))
    await client.save()
    await Promise.all(numbered(101, 150).map((payload) => broker.publish('a', payload)))
    await recorder.until('a', '{"n":150}')

    await redis.kill()
    await redis.start()
    await Promise.all(numbered(151, 200).map((payload) => broker.publish('a', payload)))
    await lossOf(recorder)
    await Promise.all(numbered(201, 250).map((payload) => broker.publish('a', payload)))
    await recorder.until('a', '{"n":250}')

    assertUniquePositions(recorder)
    assertLossReported(recorder, numbered(1, 150), numbered(151, 250))
    assert.equal(await broker.history('a', { ...top, offset: 120 }, 100), undefined)
    assert.equal(await broker.history('a', { ...top, offset: 90 }, 100), undefined)
  })

  for (const isBehind of [false, true]) {
    test(`starts a new epoch with a promoted replica${isBehind ? ' without the last messages' : ''}`, async (t) => {
      const [first, second] = await Promise.all([privateRedis(t), privateRedis(t)])
      const line = await openLine(t, first.port)
      const [at, replica] = [first.client(), second.client()]
      await replica.replicaof('127.0.0.1', first.port)
      await poll(async () => (await replica.info('replication')).includes('master_link_status:up'))
      const { broker, recorder } = await openBroker(t, { client: first.client({ port: line.port }), history })
      const other = await openBroker(t, { client: first.client({ port: line.port }), history })
      const top = await broker.subscribe('a') as Position
      await other.broker.subscribe('a')
      await Promise.all(numbered(1, 100).map((payload) => broker.publish('a', payload)))
      await at.wait(1, 5000)

      if (isBehind) await replica.replicaof('NO', 'ONE')
      await Promise.all(numbered(101, 150).map((payload) => broker.publish('a', payload)))
      if (!isBehind) {
        await at.wait(1, 5000)
        await replica.replicaof('NO', 'ONE')
      }
      await Promise.all([recorder, other.recorder].map((recorder) => recorder.until('a', '{"n":150}')))
      line.target = second.port
      await first.kill()
      line.cut()
      await Promise.all(numbered(151, 200).map((payload) => broker.publish('a', payload)))
      await Promise.all([recorder, other.recorder].map(lossOf))
      await Promise.all(numbered(201, 250).map((payload) => broker.publish('a', payload)))
      await Promise.all([recorder, other.recorder].map((recorder) => recorder.until('a', '{"n":250}')))

      assertUniquePositions(recorder, other.recorder)
      for (const each of [recorder, other.recorder]) assertLossReported(each, numbered(1, 150), numbered(151, 250))
      assert.equal(await broker.history('a', { ...top, offset: 120 }, 100), undefined)
    })
  }

  test('moves its subscriptions to the server that it publishes to', async (t) => {
    const [first, second] = await Promise.all([privateRedis(t), privateRedis(t)])
    const line = await openLine(t, first.port)
    const { broker, recorder } = await openBroker(t, { client: first.client({ port: line.port }), history })
    await broker.subscribe('a')

    // the first server is still running, so that the subscriber connection stays open
    line.target = second.port
    line.cut((sent) => sent.includes('rohrpost:commands'))
    await broker.publish('a', '{"n":1}')
    await lossOf(recorder)
    await broker.publish('a', '{"n":2}')
    await recorder.until('a', '{"n":2}')

    assert.equal(outcomeOf(recorder).at(-1), '{"n":2}')
  })

  for (const options of [{ history }, {}]) {
    const name = 'history' in options ? 'with history' : 'without'

    test(`publishes a message once when the reply of Redis is lost, ${name}`, async (t) => {
      const redis = await privateRedis(t)
      const line = await openLine(t, redis.port)
      const { broker } = await openBroker(t, { client: redis.client({ port: line.port }), ...options })
      const listener = await openBroker(t, { client: redis.client(), ...options })
      await listener.broker.subscribe('a')
      // the first call uploads the script
      await broker.publish('b', '{}')

      line.losesAnswers = true
      const lost = line.lost()
      const published = [broker.publish('a', '{"n":1}'), broker.publish('a', '{"n":2}')]
      await lost
      await listener.recorder.until('a', '{"n":2}')
      line.losesAnswers = false
      line.cut()
      published.push(broker.publish('a', '{"n":3}'))
      await Promise.all(published)
      await listener.recorder.until('a', '{"n":3}')

      assert.deepEqual(outcomeOf(listener.recorder), numbered(1, 3))
    })

    test(`rejects messages while Redis hangs longer than they wait, and delivers later ones in order, ${name}`, async (t) => {
      const redis = await privateRedis(t)
      const { broker, recorder } = await openBroker(t, { client: redis.client(), queue: { timeout: 1000 }, ...options })
      await broker.subscribe('a')
      await broker.publish('a', '{"n":1}')

      redis.signal('SIGSTOP')
      const early = numbered(2, 20).map((payload) => broker.publish('a', payload))
      for (const published of early) await assert.rejects(async () => published, { code: 'RP_ERR_NOT_PUBLISHED', message: /within 1000 ms/ })
      assert.equal(broker.health().ok, false)
      redis.signal('SIGCONT')
      await poll(() => broker.health().ok)
      await Promise.all(numbered(21, 40).map((payload) => broker.publish('a', payload)))
      await recorder.until('a', '{"n":40}')

      // rejected messages may arrive late, but once and in order
      const received = recorder.payloads('a')
      assert.deepEqual(received, numbered(1, 40).filter((payload) => received.includes(payload)))
      assert.deepEqual(received.slice(-20), numbered(21, 40))
    })
  }

  test('without history, rejects a message without a reply from a restarted Redis, instead of publishing it twice', async (t) => {
    const redis = await privateRedis(t)
    const line = await openLine(t, redis.port)
    const { broker } = await openBroker(t, { client: redis.client({ port: line.port }) })
    const listener = await openBroker(t, { client: redis.client() })
    await listener.broker.subscribe('a')
    // the first call uploads the script
    await broker.publish('b', '{}')

    line.losesAnswers = true
    const lost = line.lost()
    const published = broker.publish('a', '{"n":1}')
    await lost
    await listener.recorder.until('a', '{"n":1}')
    await redis.kill()
    line.losesAnswers = false
    const next = broker.publish('a', '{"n":2}')
    await redis.start()
    await assert.rejects(async () => published, { code: 'RP_ERR_NOT_PUBLISHED', message: /restarted or failed over/ })
    await next
    await poll(() => listener.broker.health().ok)
    await listener.broker.publish('a', '{"n":3}')
    await listener.recorder.until('a', '{"n":3}')

    assert.deepEqual(outcomeOf(listener.recorder).filter((payload) => payload === '{"n":1}'), ['{"n":1}'])
  })

  test('without history, reports a loss when the subscriber connection is lost', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client() })
    await broker.subscribe('a')

    await redis.cut('TYPE', 'pubsub')
    await recorder.when('loss', () => recorder.events.length > 0)

    assert.deepEqual(recorder.events, [{ kind: 'lost', group: 'a', position: undefined }])
  })

  test('delivers the messages that it missed while its subscriber connection was cut repeatedly', async (t) => {
    const redis = await privateRedis(t)
    const speaker = await openBroker(t, { client: redis.client(), history })
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    const groups = Array.from({ length: 120 }, (_, n) => `g${n}`)
    await Promise.all(groups.map((group) => broker.subscribe(group)))

    for (let n = 1; n <= 60; n++) {
      if (n % 12 === 0) await redis.cut('TYPE', 'pubsub')
      const published = groups.map((group) => speaker.broker.publish(group, `{"n":${n}}`))
      if (n % 3 === 0) await Promise.all(published)
    }
    for (const group of groups) await recorder.until(group, '{"n":60}')

    for (const group of groups) assert.deepEqual(recorder.payloads(group), numbered(1, 60))
    assert.ok(recorder.events.every(({ kind }) => kind === 'message'))
  })

  test('reads a single missing message from Redis, and skips repeated ones', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    const { epoch } = await broker.subscribe('a') as Position
    await broker.publish('a', '{"n":1}')

    // the effects of the script without its PUBLISH
    await client.xadd('rohrpost:log:a', `2-${Date.now()}`, 'p', '{"n":2}')
    await client.hset('rohrpost:meta:a', 'offset', 2)
    await broker.publish('a', '{"n":3}')
    await recorder.until('a', '{"n":3}')
    await client.publish('rohrpost:0:a', `2 ${epoch} 7 {"n":2}`)
    await client.publish('rohrpost:0:a', `2 ${epoch} 7,7,7 {"n":2}{"n":3}{"n":4}`)
    await recorder.until('a', '{"n":4}')

    assert.deepEqual(outcomeOf(recorder), numbered(1, 4))
    assert.deepEqual(recorder.positions('a').map((position) => position?.offset), [1, 2, 3, 4])
  })

  test('reports a loss when Redis does not have the missing message any more', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history: { size: 3, ttl: 60_000 } })
    const { epoch } = await broker.subscribe('a') as Position
    await broker.publish('a', '{"n":1}')
    await recorder.until('a', '{"n":1}')

    await client.hset('rohrpost:meta:a', 'offset', 5)
    await broker.publish('a', '{"n":6}')
    await lossOf(recorder)
    await broker.publish('a', '{"n":7}')
    await recorder.until('a', '{"n":7}')

    assert.deepEqual(recorder.events.slice(1), [
      { kind: 'lost', group: 'a', position: { epoch, offset: 6 } },
      { kind: 'message', group: 'a', payload: '{"n":7}', position: { epoch, offset: 7 } }
    ])
  })

  test('reports a loss when more messages were published during a disconnect than Redis keeps', async (t) => {
    const redis = await privateRedis(t)
    const line = await openLine(t, redis.port)
    const small = { size: 10, ttl: 60_000 }
    const { broker, recorder } = await openBroker(t, { client: redis.client({ port: line.port }), history: small })
    const speaker = await openBroker(t, { client: redis.client(), history: small })
    const { epoch } = await broker.subscribe('a') as Position

    line.target = 1
    line.cut()
    await poll(() => !broker.health().ok)
    await Promise.all(numbered(1, 30).map((payload) => speaker.broker.publish('a', payload)))
    line.target = redis.port
    await lossOf(recorder)
    await speaker.broker.publish('a', '{"n":31}')
    await recorder.until('a', '{"n":31}')

    assert.deepEqual(recorder.of('a'), [
      { kind: 'lost', group: 'a', position: { epoch, offset: 30 } },
      { kind: 'message', group: 'a', payload: '{"n":31}', position: { epoch, offset: 31 } }
    ])
  })

  test('keeps no message longer than `ttl`, even while newer ones are published', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), history: { size: 1000, ttl: 200 } })
    const top = await broker.subscribe('a') as Position
    await broker.publish('a', '{"n":1}')

    await poll(async () => {
      await broker.publish('a', '{"n":2}')
      return await broker.history('a', top, 1000) === undefined
    })
    assert.ok(await redis.client().hget('rohrpost:meta:a', 'offset'), 'the position outlives the messages')
  })

  test('starts a new epoch when the hash of a group has expired, and delivers the first message', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    const top = await broker.subscribe('a') as Position
    await broker.publish('a', '{"n":1}')
    await recorder.until('a', '{"n":1}')

    await client.del('rohrpost:meta:a')
    await broker.publish('a', '{"n":2}')
    await lossOf(recorder)
    await broker.publish('a', '{"n":3}')
    await recorder.until('a', '{"n":3}')

    assert.deepEqual(outcomeOf(recorder), ['{"n":1}', 'lost', '{"n":2}', '{"n":3}'])
    assert.deepEqual(recorder.events.slice(1).map(({ position }) => position?.offset), [0, 1, 2])
    assert.notEqual(recorder.events.at(-1)?.position?.epoch, top.epoch)
    assertUniquePositions(recorder)
  })

  test('waits with publishing while Redis is a read-only replica', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    await broker.subscribe('a')

    await client.replicaof('127.0.0.1', 1)
    const published = broker.publish('a', '{"n":1}')
    await poll(() => !broker.health().ok)
    await client.replicaof('NO', 'ONE')
    await published
    await lossOf(recorder)
    await broker.publish('a', '{"n":2}')
    await recorder.until('a', '{"n":2}')
  })

  test('rejects at once what Redis refuses', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    await broker.subscribe('a')

    await client.config('SET', 'maxmemory', '1')
    await assert.rejects(async () => broker.publish('a', '{"n":1}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /OOM/ })
    await client.config('SET', 'maxmemory', '0')
    await broker.publish('a', '{"n":2}')
    await recorder.until('a', '{"n":2}')

    assert.deepEqual(outcomeOf(recorder), ['{"n":2}'])
  })

  test('uploads its scripts when Redis does not have them', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker, recorder } = await openBroker(t, { client, history })
    await broker.subscribe('a')
    await broker.publish('a', '{"n":1}')

    await client.script('FLUSH')
    await broker.publish('a', '{"n":2}')
    await recorder.until('a', '{"n":2}')
  })
})
