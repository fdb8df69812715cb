/**
 * The Redis broker with a Redis that refuses commands, for all groups or for single ones. Each test has a Redis of its
 * own.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { suite, test, type TestContext } from 'node:test'
import type { Redis } from 'ioredis'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import { isTemporary } from '../../../lib/brokers/redis/redis-client.ts'
import { openBroker, poll } from '../../support/broker.ts'
import { openLine } from '../../support/line.ts'
import { PrivateRedis, privateRedis, redisServer } from '../../support/redis.ts'
import { start } from '../../support/server.ts'

const history = { size: 1000, ttl: 60_000 }
const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `{"n":${from + n}}`)
const connectionsOf = async (client: Redis) => Number(/total_connections_received:(\d+)/.exec(await client.info('stats'))?.[1])

/**
 * Makes Redis refuse all writes because it can't write its snapshot.
 *
 * @returns a function that makes it accept them again
 */
async function breakDisk (redis: PrivateRedis, admin: Redis): Promise<() => Promise<unknown>> {
  await admin.config('SET', 'save', '3600 1000000')
  rmSync(redis.folder, { recursive: true })
  await admin.bgsave().catch(() => {})
  await poll(async () => (await admin.info('persistence')).includes('rdb_last_bgsave_status:err'))
  return () => admin.config('SET', 'stop-writes-on-bgsave-error', 'no')
}

/** A proxy that rewrites refused writes within scripts into the texts of Redis 5 and 6. */
async function openOldLine (t: TestContext, target: number): Promise<{ port: number, target: number }> {
  const line = { port: 0, target }
  const server = createServer((near) => {
    const far = connect(line.target, '127.0.0.1')
    near.pipe(far)
    far.on('data', (data) => {
      near.write(Buffer.from(data.toString('latin1').replace(/-READONLY [^\r]*/g,
        "-ERR Error running script (call to f_5a): @user_script:39: @user_script: 39: -READONLY You can't write against a read only replica. "), 'latin1'))
    })
    for (const [one, other] of [[near, far], [far, near]] as const) one.on('error', () => {}).on('close', () => other.destroy())
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close() })
  await once(server, 'listening')
  line.port = (server.address() as AddressInfo).port
  return line
}

test('recognizes temporary errors in the texts of all versions of Redis', () => {
  const inScript = (text: string) => `ERR Error running script (call to f_1): @user_script:39: @user_script: 39: ${text}`
  const readOnly = "READONLY You can't write against a read only replica."
  for (const text of [
    readOnly, `-${readOnly}`, `${readOnly} script: 5a, on @user_script:95.`, inScript(`-${readOnly} `), `-${inScript(`-${readOnly}`)}`,
    'LOADING Redis is loading the dataset in memory', 'BUSY Redis is busy running a script.', 'NOREPLICAS Not enough good replicas to write.',
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
  ]) assert.equal(isTemporary(new Error(text)), true, text)

  for (const text of [
    'WRONGTYPE Operation against a key holding the wrong kind of value', inScript('-WRONGTYPE Operation against a key'), 'BUSYGROUP exists',
    "NOPERM this user has no permissions to access the 'READONLY' channel", 'ERR -READONLY', inScript('MISCONF Redis is configured to save')
  ]) assert.equal(isTemporary(new Error(text)), false, text)
  assert.equal(isTemporary(readOnly), false)
})

suite('the Redis broker with a Redis that refuses commands', { skip: redisServer.skip, concurrency: 2 }, () => {
  test('publishes to the new primary after a failover, with the error texts of Redis 6', async (t) => {
    const [first, second] = await Promise.all([privateRedis(t), privateRedis(t)])
    const line = await openOldLine(t, first.port)
    const { broker, recorder } = await openBroker(t, { client: first.client({ port: line.port }), history })
    await broker.subscribe('a')
    await broker.publish('a', '{"n":0}')

    await first.client().replicaof('127.0.0.1', second.port)
    line.target = second.port
    for (const payload of numbered(1, 3)) await broker.publish('a', payload)
    await recorder.until('a', '{"n":3}')

    await poll(() => broker.health().ok)
    assert.equal(recorder.notices.filter(({ stage }) => stage === 'publish').length, 1)
  })

  test('reports the begin and the end of refused writes once, with the number of failures, and does not reconnect', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    await broker.subscribe('a')
    await broker.publish('a', '{"n":1}')
    const before = await connectionsOf(admin)

    const mend = await breakDisk(redis, admin)
    for (const payload of numbered(2, 20)) {
      await assert.rejects(async () => broker.publish('a', payload), { code: 'RP_ERR_NOT_PUBLISHED', message: /MISCONF/ })
    }
    assert.match(String(broker.health().detail), /^Redis refuses to publish: MISCONF/)
    assert.equal(broker.health().ok, false)
    assert.ok(await broker.subscribe('b'), 'reading works')
    await mend()
    await poll(() => broker.health().ok)

    assert.deepEqual(recorder.errors.map(({ message }) => message.slice(0, 7)), ['MISCONF'])
    const [notice, ...others] = recorder.notices
    assert.deepEqual(others, [])
    assert.equal(notice?.text, 'Redis publishes again')
    assert.ok(Number(notice?.failures) >= 19)
    assert.equal(await connectionsOf(admin), before)
    await broker.publish('a', '{"n":21}')
    await recorder.until('a', '{"n":21}')
    assert.deepEqual(recorder.payloads('a'), ['{"n":1}', '{"n":21}'])
  })

  test('reads positions while Redis refuses to write, and reports it if a read has to write first', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    const mend = await breakDisk(redis, admin)

    await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /MISCONF/ })
    assert.match(String(broker.health().detail), /^Redis refuses to read: MISCONF/)
    assert.equal(recorder.errors.length, 1)
    await mend()
    assert.ok(await broker.subscribe('a'))

    assert.deepEqual(recorder.notices.map(({ text, failures }) => [text, failures]), [['Redis can be read again', 1]])
    assert.deepEqual(broker.health(), { ok: true })
  })

  test('reconnects with growing delays while Redis is a read-only replica', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history, queue: { timeout: 1500 } })
    await admin.replicaof('127.0.0.1', 1)
    const before = await connectionsOf(admin)

    for (let n = 0; n < 3; n++) await assert.rejects(async () => broker.publish('a', `{"n":${n}}`), { code: 'RP_ERR_NOT_PUBLISHED' })

    // at once, then after up to 100, 200, 400, … ms; without delays there would be hundreds
    const count = await connectionsOf(admin) - before
    assert.ok(count > 1 && count < 40, `${count} connections`)
    assert.equal(recorder.errors.length, 1, String(recorder.errors))
    await admin.replicaof('NO', 'ONE')
    await poll(() => broker.health().ok)
    assert.equal(recorder.notices.length, 1)
  })

  for (const [what, spoil] of Object.entries({
    'the hash of a group': ['SET', 'rohrpost:meta:bad', 'by hand'],
    'the stream of a group': ['SET', 'rohrpost:log:bad', 'by hand']
  })) {
    test(`publishes in all other groups while ${what} has a wrong type, and rejects messages of this one`, async (t) => {
      const redis = await privateRedis(t)
      const admin = redis.client()
      const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
      const groups = ['a', 'bad', 'b']
      await Promise.all(groups.map((group) => broker.subscribe(group)))
      await broker.publish('bad', '{"n":0}')

      await admin.call(...spoil as [string, ...string[]])
      const results = await Promise.allSettled([...groups, 'bad', 'a'].map((group, n) => broker.publish(group, `{"n":${n}}`)))
      await recorder.until('a', '{"n":4}')
      await admin.del('rohrpost:meta:bad', 'rohrpost:log:bad')
      await broker.publish('bad', '{"n":5}')
      await recorder.when('event of the new log', () => recorder.of('bad').length > 1)

      assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'])
      assert.match(String(results.map((result) => result.status === 'rejected' && result.reason)), /WRONGTYPE/)
      assert.deepEqual(recorder.payloads('a'), ['{"n":0}', '{"n":4}'])
      assert.deepEqual(recorder.payloads('b'), ['{"n":2}'])
      assert.deepEqual(recorder.payloads('bad').filter((payload) => payload !== '{"n":5}'), ['{"n":0}'])
      assert.deepEqual(recorder.errors, [], 'only the callers get errors')
    })
  }

  test('rejects the messages of a failed group if the reply is lost and the call repeated', async (t) => {
    const redis = await privateRedis(t)
    const line = await openLine(t, redis.port)
    const { broker } = await openBroker(t, { client: redis.client({ port: line.port }), history })
    const listener = await openBroker(t, { client: redis.client(), history })
    await listener.broker.subscribe('a')
    await broker.publish('b', '{}')
    await redis.client().set('rohrpost:meta:bad', 'by hand')

    line.losesAnswers = true
    const lost = line.lost()
    const published = ['a', 'bad', 'worse', 'bad'].map((group) => broker.publish(group, '{"n":1}'))
    await lost
    line.losesAnswers = false
    line.cut()
    const results = await Promise.allSettled(published)
    await broker.publish('a', '{"n":2}')
    await listener.recorder.until('a', '{"n":2}')

    assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled', 'rejected'])
    assert.deepEqual(listener.recorder.payloads('a'), numbered(1, 2))
  })

  test('subscribes to all other groups while the key of one has a wrong type', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    await redis.client().set('rohrpost:meta:bad', 'by hand')

    const results = await Promise.allSettled(['a', 'bad', 'b'].map((group) => broker.subscribe(group)))
    await assert.rejects(async () => broker.history('bad', { epoch: 'x', offset: 0 }, 10), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /WRONGTYPE/ })

    assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled'])
    assert.deepEqual(broker.health(), { ok: true })
    assert.deepEqual(recorder.errors, [])
  })

  test('delivers missed messages of all other groups while one is unreadable, and of that one afterwards', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    const line = await openLine(t, redis.port)
    const { broker, recorder } = await openBroker(t, { client: redis.client({ port: line.port }), history })
    const speaker = await openBroker(t, { client: redis.client(), history })
    await Promise.all(['a', 'bad', 'b'].map((group) => broker.subscribe(group)))
    await speaker.broker.publish('bad', '{"n":1}')
    await recorder.until('bad', '{"n":1}')

    line.target = 1
    line.cut()
    await poll(() => !broker.health().ok)
    await Promise.all(['a', 'bad', 'b'].map((group) => speaker.broker.publish(group, '{"n":2}')))
    await admin.rename('rohrpost:meta:bad', 'kept')
    await admin.set('rohrpost:meta:bad', 'by hand')
    line.target = redis.port
    await Promise.all(['a', 'b'].map((group) => recorder.until(group, '{"n":2}')))
    await poll(() => broker.health().detail !== undefined)

    assert.deepEqual({ ...broker.health(), detail: broker.health().detail?.slice(0, 40) }, { ok: true, detail: "Group 'bad' receives no messages: WRONGTYPE".slice(0, 40) })
    assert.deepEqual(recorder.payloads('bad'), ['{"n":1}'])
    await admin.rename('kept', 'rohrpost:meta:bad')
    await recorder.until('bad', '{"n":2}')
    assert.deepEqual(recorder.errors.filter(({ message }) => message.includes("'bad'")).length, 1)
    assert.ok(recorder.events.every(({ kind }) => kind === 'message'))
    await recorder.when('notice of the end', () => recorder.notices.some(({ text }) => text === 'all groups receive messages again'))
    assert.deepEqual(broker.health(), { ok: true })
  })

  for (const options of [{ history }, {}]) {
    test(`receives messages of all other groups while the channel of one is forbidden, ${'history' in options ? 'with history' : 'without'}`, async (t) => {
      const redis = await privateRedis(t)
      const admin = redis.client()
      await admin.acl('SETUSER', 'some', 'on', '>secret', '~*', '+@all', 'allchannels')
      const { broker, recorder } = await openBroker(t, { client: redis.client({ username: 'some', password: 'secret' }), ...options })
      const speaker = await openBroker(t, { client: redis.client(), ...options })
      await Promise.all(['a', 'bad', 'b'].map((group) => broker.subscribe(group)))

      await admin.acl('SETUSER', 'some', 'resetchannels', '&rohrpost:0:a', '&rohrpost:0:b', '&rohrpost:0:c')
      await redis.cut('TYPE', 'pubsub')
      await poll(() => broker.health().detail?.startsWith("Group 'bad' receives no messages: NOPERM"))
      const results = await Promise.allSettled(['c', 'worse'].map((group) => broker.subscribe(group)))
      await Promise.all(['a', 'bad', 'b', 'c'].map((group) => speaker.broker.publish(group, '{"n":1}')))
      await Promise.all(['a', 'b', 'c'].map((group) => recorder.until(group, '{"n":1}')))

      assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected'])
      assert.equal(broker.health().ok, true)
      await admin.acl('SETUSER', 'some', 'allchannels')
      if ('history' in options) await recorder.until('bad', '{"n":1}')
      else await recorder.when('loss', () => recorder.of('bad').length === 1 && broker.health().detail === undefined)
      assert.deepEqual(recorder.of('bad').map(({ kind }) => kind), ['history' in options ? 'message' : 'lost'])
      assert.equal(recorder.errors.filter(({ message }) => message.includes("'bad'")).length, 1)
    })
  }

  test('ends the failure of a group that is unsubscribed', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'some', 'on', '>secret', '~*', '+@all', 'allchannels')
    const { broker, recorder } = await openBroker(t, { client: redis.client({ username: 'some', password: 'secret' }) })
    await broker.subscribe('bad')
    await admin.acl('SETUSER', 'some', 'resetchannels')
    await redis.cut('TYPE', 'pubsub')
    await poll(() => broker.health().detail?.includes('NOPERM'))

    broker.unsubscribe('bad')

    assert.deepEqual(broker.health(), { ok: true })
    assert.equal(recorder.notices.at(-1)?.text, 'all groups receive messages again')
  })

  test('reports in health() that it does not receive `disconnect` of other processes, with one log line for all attempts', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'limited', 'on', '>secret', '~*', '+@all', 'resetchannels')
    const { app, logs } = await start(t, { broker: redisBroker({ client: redis.client({ username: 'limited', password: 'secret' }) }) })
    await poll(() => !app.rohrpost.health().ok)

    assert.match(String(app.rohrpost.health().broker.detail), /^other processes can't disconnect clients of this one: .*NOPERM/)
    await admin.acl('SETUSER', 'limited', 'allchannels')
    await poll(() => app.rohrpost.health().ok)
    const lines = logs.filter(({ msg }) => String(msg).startsWith('other processes can'))
    assert.deepEqual(lines.map(({ msg }) => String(msg).split(' ').at(-1)), ['yet', 'now'])
  })
})
