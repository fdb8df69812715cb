/**
 * Positions in Redis: reading them writes no keys, and no position is used for two messages, even if keys are deleted.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { suite, test, type TestContext } from 'node:test'
import fc from 'fast-check'
import type { Position } from '../../../lib/index.ts'
import { openBroker } from '../../support/broker.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 1000, ttl: 60_000 }

async function open (t: TestContext) {
  const redis = await privateRedis(t, '--enable-debug-command', 'yes')
  const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
  /** Subscribes to a group and unsubscribes. @returns the group's position */
  const positionOf = async (group: string) => {
    const top = await broker.subscribe(group)
    broker.unsubscribe(group)
    return top as Position
  }
  const after = async (group: string, position: Position) => (await broker.history(group, position, 1000))?.map(({ payload }) => payload)
  return { redis, admin: redis.client(), broker, recorder, positionOf, after }
}

suite('positions in Redis', { skip: redisServer.skip, concurrency: 2 }, () => {
  test('of groups without messages need a single key', async (t) => {
    const { admin, broker, positionOf, after } = await open(t)

    const positions = await Promise.all(Array.from({ length: 300 }, (_, n) => positionOf(`group-${n}`)))
    for (const [n, position] of positions.entries()) assert.deepEqual(await after(`group-${n}`, position), [])
    assert.equal(await broker.history('another', { epoch: 'x', offset: 5 }, 10), undefined)

    assert.deepEqual(await admin.keys('*'), ['rohrpost:epochs'])
    assert.ok(await admin.strlen('rohrpost:epochs') < 200)
    assert.ok(await admin.pttl('rohrpost:epochs') > 0)
  })

  test('are the same in all processes until the first message, which has the next one', async (t) => {
    const { redis, broker, recorder, positionOf, after } = await open(t)
    const other = await openBroker(t, { client: redis.client(), history })

    const [first, second] = [await positionOf('a'), await other.broker.subscribe('a')]
    await broker.publish('a', '{"n":1}')
    await other.recorder.until('a', '{"n":1}')

    assert.deepEqual(second, first)
    assert.equal(first.offset, 0)
    assert.deepEqual(other.recorder.positions('a'), [{ ...first, offset: 1 }])
    assert.deepEqual(await after('a', first), ['{"n":1}'])
    assert.deepEqual(recorder.events, [])
  })

  for (const [what, lose] of Object.entries({
    'the keys of the group are deleted': ['DEL', 'rohrpost:meta:a', 'rohrpost:log:a'],
    'the hash of the group expires': ['PEXPIRE', 'rohrpost:meta:a', '0'],
    'the key of epochs is evicted with the group': ['DEL', 'rohrpost:epochs', 'rohrpost:meta:a'],
    'all keys are gone': ['FLUSHALL'],
    'Redis is another server': ['DEBUG', 'CHANGE-REPL-ID']
  })) {
    test(`are refused when ${what}, including the position before the first message`, async (t) => {
      const { admin, broker, positionOf, after } = await open(t)
      const start = await positionOf('a')
      await broker.publish('a', '{"n":1}')
      const top = await positionOf('a')

      await admin.call(...lose as [string, ...string[]])
      const next = await positionOf('a')
      await broker.publish('a', '{"n":2}')

      assert.deepEqual(top, { ...start, offset: 1 })
      for (const old of [start, top]) assert.equal(await after('a', old), undefined)
      assert.notEqual(next.epoch, start.epoch)
      assert.equal(next.offset, 0)
      assert.deepEqual(await after('a', next), ['{"n":2}'])
    })
  }

  test('stay valid for groups with messages when only the key of epochs is deleted', async (t) => {
    const { admin, broker, positionOf, after } = await open(t)
    const [start, empty] = [await positionOf('a'), await positionOf('b')]
    await broker.publish('a', '{"n":1}')

    await admin.del('rohrpost:epochs')
    await broker.publish('a', '{"n":2}')
    await broker.publish('b', '{"n":3}')

    assert.deepEqual(await after('a', start), ['{"n":1}', '{"n":2}'])
    assert.equal(await after('b', empty), undefined)
  })

  test('stay valid for groups with messages when the key of epochs has a wrong type', async (t) => {
    const { admin, broker, positionOf, after } = await open(t)
    await admin.sadd('rohrpost:epochs', 'by hand')

    const start = await positionOf('a')
    await broker.publish('a', '{"n":1}')
    await admin.del('rohrpost:epochs')
    await admin.sadd('rohrpost:epochs', 'by hand')
    await broker.publish('b', '{"n":2}')

    assert.deepEqual(await after('a', start), ['{"n":1}'])
    assert.deepEqual(await positionOf('b').then(({ offset }) => offset), 1)
  })

  test('use a new base name when a counter is full', async (t) => {
    const { admin, broker, positionOf, after } = await open(t)
    const start = await positionOf('a')
    const place = 128 + parseInt(createHash('sha1').update('a').digest('hex').slice(0, 5), 16)
    await admin.call('SETRANGE', 'rohrpost:epochs', String(place), Buffer.from([255]) as unknown as string)

    const full = await positionOf('a')
    await broker.publish('a', '{"n":1}')
    const top = await positionOf('a')

    assert.equal(full.epoch.split('.')[0], start.epoch.split('.')[0])
    assert.notEqual(top.epoch.split('.')[0], start.epoch.split('.')[0])
    for (const old of [start, full]) assert.equal(await after('a', old), undefined)
    assert.deepEqual(await after('a', { ...top, offset: 0 }), ['{"n":1}'])
  })

  test('are refused to a user without access to the key of epochs, and the caller gets the error', async (t) => {
    const { redis, admin } = await open(t)
    await admin.call('ACL', 'SETUSER', 'blind', 'on', '>secret', '~*', '&*', '+@all', '-getrange')
    const { broker } = await openBroker(t, { client: redis.client({ username: 'blind', password: 'secret' }), history })

    await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /does not keep the key 'rohrpost:epochs'/ })
  })

  test('identify one message each, and recovery skips none, for random orders of events', { timeout: 120_000 }, async (t) => {
    const { admin, broker, positionOf } = await open(t)
    const outcomes = { recovered: 0, refused: 0, fromEmpty: 0 }
    let runs = 0
    const group = fc.nat(2)
    const step = fc.oneof(
      { weight: 8, arbitrary: fc.record({ do: fc.constant('publish' as const), group, count: fc.integer({ min: 1, max: 3 }) }) },
      { weight: 6, arbitrary: fc.record({ do: fc.constant('look' as const), group }) },
      { weight: 6, arbitrary: fc.record({ do: fc.constant('recover' as const), group, index: fc.nat(20) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('expireMeta', 'expireLog', 'delete'), group }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('forgetEpochs', 'flush', 'failOver', 'restore') }) }
    )

    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), async (steps) => {
      runs++
      const name = (index: number) => `g-${runs}-${index}`
      const published = new Map<string, string[]>()
      const logOf = (group: string) => published.get(group) ?? published.set(group, []).get(group) ?? []
      /** Each position, with the number of messages that were published before it was read. */
      const given: { group: string, position: Position, before: number }[] = []
      const named = new Map<string, string>()
      const nameOne = (group: string, { epoch, offset }: Position, payload: string) => {
        const key = `${group} ${epoch} ${offset}`
        assert.equal(named.get(key) ?? payload, payload, key)
        named.set(key, payload)
      }
      let snapshot: [string, Buffer][] = []

      for (const step of steps) {
        const group = 'group' in step ? name(step.group) : ''
        if (step.do === 'publish') {
          const payloads = Array.from({ length: step.count }, (_, n) => `{"n":${logOf(group).length + 1 + n}}`)
          await Promise.all(payloads.map((payload) => broker.publish(group, payload)))
          logOf(group).push(...payloads)
        } else if (step.do === 'look') {
          given.push({ group, position: await positionOf(group), before: logOf(group).length })
        } else if (step.do === 'recover') {
          const { group, position, before } = given[step.index % Math.max(1, given.length)] ?? {}
          if (group === undefined || position === undefined) continue
          const entries = await broker.history(group, position, 1000)
          outcomes[entries === undefined ? 'refused' : 'recovered']++
          if (entries === undefined) continue
          if (position.offset === 0 && entries.length > 0) outcomes.fromEmpty++
          assert.deepEqual(entries.map(({ payload }) => payload), logOf(group).slice(before), `after ${JSON.stringify(position)}`)
          for (const { payload, position } of entries) nameOne(group, position, payload)
        } else if (step.do === 'expireMeta') {
          await admin.pexpire(`rohrpost:meta:${group}`, 0)
        } else if (step.do === 'expireLog') {
          await admin.pexpire(`rohrpost:log:${group}`, 0)
        } else if (step.do === 'delete') {
          await admin.del(`rohrpost:meta:${group}`, `rohrpost:log:${group}`)
        } else if (step.do === 'forgetEpochs') {
          await admin.del('rohrpost:epochs')
        } else if (step.do === 'flush') {
          await admin.flushall()
        } else if (step.do === 'failOver') {
          // a promoted replica without the last messages: older keys on another server
          await admin.flushall()
          for (const [key, value] of snapshot) await admin.restore(key, 0, value)
          await admin.call('DEBUG', 'CHANGE-REPL-ID')
        } else {
          snapshot = await Promise.all((await admin.keys('rohrpost:*')).map(async (key) => [key, await admin.dumpBuffer(key)] as [string, Buffer]))
        }
      }
    }), { numRuns: 150 })

    t.diagnostic(JSON.stringify(outcomes))
    for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 10, `${count} times ${outcome}`)
  })
})
