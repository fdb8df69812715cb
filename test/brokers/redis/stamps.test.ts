/** Messages with stamps: Redis leaves out states of a row that are older than a state that was published. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import type { Position, PublishOptions, Stamp } from '../../../lib/index.ts'
import { openBroker } from '../../support/broker.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 100, ttl: 60_000 }
/** Milliseconds for which Redis keeps the stamps of a row: a minute beyond the time that a message may wait. */
const KEPT = 5000 + 60_000

/** Opens a broker that is subscribed to the group `a`. */
async function open (t: TestContext, options: object = {}) {
  const redis = await privateRedis(t)
  const { broker, recorder } = await openBroker(t, { client: redis.client(), ...options })
  const top = await broker.subscribe('a') as Position | undefined
  let [taken, ends] = [0, 0]
  return {
    redis,
    broker,
    recorder,
    top,
    /** Publishes states in one call. @returns those that arrive */
    async publish (...states: string[]): Promise<string[]> {
      await Promise.all(states.map((state) => broker.publish('a', payloadOf(state), optionsOf(state))))
      const end = payloadOf(`end ${++ends}`)
      await broker.publish('a', end)
      await recorder.until('a', end)
      const payloads = recorder.payloads('a').slice(taken, -1)
      taken += payloads.length + 1
      return payloads.map((payload) => JSON.parse(payload).state)
    }
  }
}

const payloadOf = (state: string) => JSON.stringify({ state, text: 'é'.repeat(state.length) })

/** Reads `part value`, followed by `@clock` and `#key` unless they are the default. */
function stampOf (state: string): Stamp | undefined {
  const [, part, value, clock = 'one', key = 'Todo::1'] = /^(\w+) (\d+)(?: @(\S+))?(?: #(.+))?$/.exec(state) ?? []
  return part === undefined || value === undefined ? undefined : { key, part, clock, value: value.padStart(20, '0') }
}

function optionsOf (state: string): PublishOptions {
  const stamp = stampOf(state)
  return stamp === undefined ? {} : { stamps: [stamp] }
}

for (const [name, options] of [['without history', {}], ['with history', { history }]] as const) {
  suite(`the Redis broker ${name} and stamps`, { skip: redisServer.skip, concurrency: 2 }, () => {
    test('leaves out an older state of a row, also within one call', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 5'), ['title 5'])
      assert.deepEqual(await publish('title 3', 'no stamp', 'title 6', 'title 4', 'title 7'), ['no stamp', 'title 6', 'title 7'])
      assert.deepEqual(await publish('title 6'), [])
    })

    test('publishes equal stamps, other rows and other groups', async (t) => {
      const { publish, broker, recorder } = await open(t, options)
      await broker.subscribe('b')

      assert.deepEqual(await publish('title 5', 'title 5', 'title 3 #Todo::2'), ['title 5', 'title 5', 'title 3 #Todo::2'])
      await broker.publish('b', payloadOf('title 4'), optionsOf('title 4'))
      await recorder.until('b', payloadOf('title 4'))
    })

    test('compares no values of different clocks: another clock always wins', async (t) => {
      const { publish } = await open(t, options)
      const states = ['title 5', 'title 3 @two', 'title 2 @two', 'title 1', 'title 4 @two']

      assert.deepEqual(await publish(...states), ['title 5', 'title 3 @two', 'title 1', 'title 4 @two'])
    })

    test('compares no messages with different parts, for each of which the last value counts', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 5', 'stock 3', 'title 4', 'stock 4', 'stock 3'), ['title 5', 'stock 3', 'stock 4'])
    })

    test('leaves out all that is older than a row that left the group, and such a message itself if the row is back', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 3', 'all 5', 'title 4', 'stock 4', 'some 4'), ['title 3', 'all 5'])
      assert.deepEqual(await publish('title 5', 'all 5', 'some 6', 'all 5', 'title 6'), ['title 5', 'all 5', 'some 6', 'title 6'])
    })

    test('leaves out no message whose properties are not known', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 9', 'some 5', 'some 3', 'some 6', 'all 4'), ['title 9', 'some 5', 'some 3', 'some 6'])
    })

    test('publishes what it can not read: a key of another type, an incomplete stamp', async (t) => {
      const { publish, redis, broker } = await open(t, options)
      await redis.client().lpush('rohrpost:state:a Todo::1', 'rubbish')

      assert.deepEqual(await publish('title 5', 'title 4'), ['title 5'])
      const incomplete = { key: 'Todo::1', part: '', clock: '', value: '' }
      await broker.publish('a', payloadOf('no stamp'), { stamps: [incomplete] })
      assert.deepEqual(await publish('title 4 #Todo::2'), ['no stamp', 'title 4 #Todo::2'])
    })

    test('keeps the stamps of a row for a minute after the time that its messages may wait', async (t) => {
      const { publish, redis } = await open(t, options)
      const client = redis.client()
      const left = () => client.pttl('rohrpost:state:a Todo::1')

      await publish('title 5')
      assert.ok(await left() > KEPT - 20_000 && await left() <= KEPT, `${await left()} ms`)
      await client.pexpire('rohrpost:state:a Todo::1', 20_000)
      await publish('title 4')
      assert.ok(await left() <= 20_000, 'a message that is left out does not prolong it')
      await publish('title 6')
      assert.ok(await left() > KEPT - 20_000)
      await client.del('rohrpost:state:a Todo::1')
      assert.deepEqual(await publish('title 4'), ['title 4'])
    })

    test('separates keys that contain spaces from groups, parts and values', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 5 #Todo::a b 9', 'title 4 #Todo::a b', 'title 3 #Todo::a b 9'), ['title 5 #Todo::a b 9', 'title 4 #Todo::a b'])
    })

    test('takes a key with a line feed for one key', async (t) => {
      const { broker, recorder } = await open(t, options)
      const stamp = { key: 'Todo::a\n1 b', part: 'title', clock: 'one', value: '5' }

      await Promise.all([
        broker.publish('a', payloadOf('new'), { stamps: [stamp] }),
        broker.publish('a', payloadOf('another row'), { stamps: [{ ...stamp, key: 'Todo::a', value: '4' }] }),
        broker.publish('a', payloadOf('old'), { stamps: [{ ...stamp, value: '4' }] }),
        broker.publish('a', payloadOf('end'))
      ])
      await recorder.until('a', payloadOf('end'))

      assert.deepEqual(recorder.payloads('a').map((payload) => JSON.parse(payload).state), ['new', 'another row', 'end'])
    })
  })
}

suite('the Redis broker with history and stamps', { skip: redisServer.skip }, () => {
  test('gives no offset to a message that it leaves out', async (t) => {
    const { publish, broker, recorder, top } = await open(t, { history })

    await publish('title 5', 'title 4', 'no stamp', 'title 3')
    await publish('title 4')

    const offsets = recorder.positions('a').map((position) => position?.offset)
    assert.deepEqual(offsets, [1, 2, 3, 4])
    const entries = await broker.history('a', top as Position, 10) ?? []
    assert.deepEqual(entries.map(({ payload }) => JSON.parse(payload).state), ['title 5', 'no stamp', 'end 1', 'end 2'])
    assert.deepEqual(recorder.of('a').filter(({ kind }) => kind === 'lost'), [])
  })

  test('compares the stamps of all processes', async (t) => {
    const { publish, redis } = await open(t, { history })
    const other = await openBroker(t, { client: redis.client(), history })

    await publish('title 5')
    await other.broker.publish('a', payloadOf('title 4'), optionsOf('title 4'))
    await other.broker.publish('a', payloadOf('title 6'), optionsOf('title 6'))

    assert.deepEqual(await publish('title 5'), ['title 6'])
  })

  test('publishes a state that Redis refused before, and what is older than it', async (t) => {
    const { publish, broker, redis } = await open(t, { history })
    await publish('no stamp')
    await redis.client().set('rohrpost:log:a', 'rubbish')

    await assert.rejects(async () => broker.publish('a', payloadOf('title 5'), optionsOf('title 5')), { code: 'RP_ERR_NOT_PUBLISHED' })
    await redis.client().del('rohrpost:log:a')

    assert.deepEqual(await publish('title 4', 'title 5'), ['title 4', 'title 5'])
  })
})
