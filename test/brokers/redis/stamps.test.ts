/** Messages with stamps: Redis leaves out states of a row that are older than a state that was published. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import type { Position, PublishOptions, Stamp } from '../../../lib/index.ts'
import { openBroker } from '../../support/broker.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 100, ttl: 60_000 }
/** The log of the states in these tests. */
const LOG = 'rohrpost:states:one:20'
/** Milliseconds for which Redis keeps a log. */
const KEPT = 24 * 60 * 60 * 1000
const RESYNC = '{"type":"subscription-update","data":{"type":"resync","group":"a"}}'

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
    async publish (...states: (string | string[])[]): Promise<string[]> {
      await Promise.all(states.map((state) => broker.publish('a', payloadOf(String(state)), optionsOf(state))))
      const end = payloadOf(`end ${++ends}`)
      await broker.publish('a', end)
      await recorder.until('a', end)
      const payloads = recorder.payloads('a').slice(taken, -1)
      taken += payloads.length + 1
      return payloads.map((payload) => payload === RESYNC ? 'resync' : JSON.parse(payload).state)
    }
  }
}

const payloadOf = (state: string) => JSON.stringify({ state, text: 'é'.repeat(state.length) })

/** Reads `part value`, followed by `@clock`, `!id` and `#key` unless they are the default. */
const STATE = /^(\w+) (\d+)(?: @(\S+))?(?: !(\S+))?(?: #(.+))?$/

function stampOf (state: string): Stamp[] {
  const [, part, value, clock = 'one', , key = 'Todo::1'] = STATE.exec(state) ?? []
  return part === undefined || value === undefined ? [] : [{ key, part, clock, value: value.padStart(20, '0') }]
}

function optionsOf (state: string | string[]): PublishOptions {
  return { stamps: [state].flat().flatMap(stampOf), id: STATE.exec(String([state].flat()[0]))?.[4] }
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

    test('compares no values of different clocks', async (t) => {
      const { publish } = await open(t, options)
      const states = ['title 5', 'title 3 @two', 'title 2 @two', 'title 1', 'title 4 @two', 'title 6']

      assert.deepEqual(await publish(...states), ['title 5', 'title 3 @two', 'title 4 @two', 'title 6'])
      assert.deepEqual(await publish('title 5', 'title 3 @two', 'title 1 @three'), ['title 1 @three'])
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
      await redis.client().lpush(LOG, 'rubbish')

      assert.deepEqual(await publish('title 5', 'title 4'), ['title 5', 'title 4'])
      const incomplete = { key: 'Todo::1', part: '', clock: '', value: '' }
      await broker.publish('a', payloadOf('no stamp'), { stamps: [incomplete] })
      assert.deepEqual(await publish('title 4 #Todo::2'), ['no stamp', 'title 4 #Todo::2'])
    })

    test('publishes what is older than all that Redis knows, and a resync after it', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 5', 'title 8'), ['title 5', 'title 8'])
      assert.deepEqual(await publish('title 6 #Todo::2', 'title 7'), ['title 6 #Todo::2'])
      assert.deepEqual(await publish('title 4 #Todo::3', 'title 4', 'title 9'), ['title 4 #Todo::3', 'title 9', 'resync'])
    })

    test('keeps the states of a day, and of as many messages as half a megabyte holds', async (t) => {
      const { publish, redis } = await open(t, options)
      const client = redis.client()
      const key = 'k'.repeat(1000)
      const fill = (from: number) => publish(...Array.from({ length: 150 }, (_, n) => `title ${from + n} #${key}${n}`))

      await publish('title 5', 'title 6')
      assert.ok(await client.pttl(LOG) > KEPT - 60_000 && await client.pttl(LOG) <= KEPT, `${await client.pttl(LOG)} ms`)
      await fill(100)
      assert.equal(await client.exists(`${LOG} old`), 0)
      await fill(300)
      assert.ok(await client.strlen(LOG) < 100, `${await client.strlen(LOG)} bytes`)
      assert.deepEqual(await publish('title 5', 'title 448 #new'), ['title 448 #new'], 'it reads the renamed log')
      await fill(500)
      await fill(700)
      await publish('title 850')

      assert.deepEqual(await publish('title 5 #Todo::3', 'title 701'), ['title 5 #Todo::3', 'resync'])
      for (const name of [LOG, `${LOG} old`]) {
        assert.ok(await client.pttl(name) > KEPT - 60_000, name)
        assert.ok(await client.strlen(name) < 500_000, name)
      }
    })

    test('leaves out a message with several states if all of them are replaced, and publishes a resync if some are', async (t) => {
      const { publish } = await open(t, options)

      await publish('title 1')
      assert.deepEqual(await publish(['title 5', 'title 5 #Todo::2'], 'end'), ['title 5,title 5 #Todo::2', 'end'])
      assert.deepEqual(await publish(['title 4', 'title 4 #Todo::2'], 'end'), ['end'])
      assert.deepEqual(await publish(['title 4', 'title 4 #Todo::3'], 'end'), ['title 4,title 4 #Todo::3', 'end', 'resync'])
      assert.deepEqual(await publish('title 3 #Todo::3', ['title 6', 'title 6 #Todo::3']), ['title 6,title 6 #Todo::3'])
    })

    test('leaves out a message that was published before, in the same group', async (t) => {
      const { publish, broker, recorder } = await open(t, options)
      await broker.subscribe('b')
      const messages = ['title 5 !x1', 'title 5 !x2 #Todo::2', ['title 5 !x3', 'title 5 #Todo::2']]

      assert.equal((await publish(...messages)).length, 3)
      assert.deepEqual(await publish(...messages, 'title 5 !x4'), ['title 5 !x4'])
      assert.deepEqual(await publish('title 0 !y0 #Todo::6'), ['title 0 !y0 #Todo::6', 'resync'])
      assert.deepEqual(await publish('title 6', ...messages, 'title 6 !x1 #Todo::4', 'title 0 !y1 #Todo::5'), ['title 6', 'title 0 !y1 #Todo::5', 'resync'])
      await broker.publish('b', payloadOf('title 5 !x1'), optionsOf('title 5 !x1'))
      await recorder.until('b', payloadOf('title 5 !x1'))
    })

    test('separates keys that contain spaces from groups, parts and values', async (t) => {
      const { publish } = await open(t, options)

      assert.deepEqual(await publish('title 5 #Todo::a b 9', 'title 4 #Todo::a b', 'title 3 #Todo::a b 9'), ['title 5 #Todo::a b 9', 'title 4 #Todo::a b'])
    })

    test('takes a key with a line feed for one key', async (t) => {
      const { broker, recorder } = await open(t, options)
      const stamp = { key: 'Todo::a\n1 b', part: 'title', clock: 'one', value: '5' }
      await broker.publish('a', payloadOf('base'), { stamps: [{ ...stamp, value: '1' }] })

      await Promise.all([
        broker.publish('a', payloadOf('new'), { stamps: [stamp] }),
        broker.publish('a', payloadOf('another row'), { stamps: [{ ...stamp, key: 'Todo::a', value: '4' }] }),
        broker.publish('a', payloadOf('old'), { stamps: [{ ...stamp, value: '4' }] }),
        broker.publish('a', payloadOf('end'))
      ])
      await recorder.until('a', payloadOf('end'))

      assert.deepEqual(recorder.payloads('a').map((payload) => JSON.parse(payload).state), ['base', 'new', 'another row', 'end'])
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

    assert.deepEqual(await publish('title 4', 'title 5'), ['title 4', 'title 5', 'resync'])
  })

  test('logs the states of the other groups of a call in which a group is refused', async (t) => {
    const { publish, broker, redis, recorder } = await open(t, { history })
    await broker.subscribe('b')
    await publish('no stamp', 'title 1')
    await broker.publish('b', payloadOf('no stamp'))
    await redis.client().set('rohrpost:log:b', 'rubbish')

    const outcome = await Promise.allSettled(['a', 'b', 'a'].map((group, n) => broker.publish(group, payloadOf(`title ${n + 5}`), optionsOf(`title ${n + 5}`))))
    await redis.client().del('rohrpost:log:b')
    await broker.publish('b', payloadOf('title 4'), optionsOf('title 4'))
    await recorder.until('b', payloadOf('title 4'))

    assert.deepEqual(outcome.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled'])
    assert.deepEqual(await publish('title 6'), ['title 5', 'title 7'])
  })
})
