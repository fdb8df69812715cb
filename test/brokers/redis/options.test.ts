/** The options of the Redis broker, its use of the given client, and the life of its connections. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Cluster, type RedisOptions } from 'ioredis'
import { redisBroker, type RedisBrokerOptions } from '../../../lib/brokers/redis/index.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { openBroker, poll } from '../../support/broker.ts'
import { freePort } from '../../support/free-port.ts'
import { openLine } from '../../support/line.ts'
import { PrivateRedis, privateRedis, redisServer } from '../../support/redis.ts'

const history = { size: 1000, ttl: 60_000 }
/** A client that never connects. */
const idle = new PrivateRedis(1, '').client({ lazyConnect: true })

test('refuses invalid options, and names them', () => {
  const refuse = (options: object, message: RegExp, code = 'RP_ERR_INVALID_OPTION') => {
    assert.throws(() => redisBroker(options as RedisBrokerOptions), { code, message })
  }

  refuse({ client: idle, histroy: history }, /'histroy', the options are: client, prefix, history, queue/, 'RP_ERR_UNKNOWN_OPTION')
  refuse({}, /'client': expected a client of ioredis, got undefined/)
  for (const options of [undefined, null, 'redis://:secret@localhost', idle]) refuse(options as object, /redisBroker\(\{ client \}\) with a client of ioredis, got a \w+ instead/)
  refuse({ client: 'redis://localhost' }, /got "redis:\/\/localhost"/)
  refuse({ client: { duplicate () {} } }, /a client of ioredis/)
  refuse({ client: { duplicate () {}, options: {} } }, /a client of ioredis/)
  refuse({ client: idle, prefix: 5 }, /'prefix': expected a string, got 5/)
  refuse({ client: idle, history: { size: 0, ttl: 1 } }, /'history.size'/)
  refuse({ client: idle, queue: null }, /'queue'.*got null/)
  refuse({ client: idle, queue: 7 }, /'queue'.*got 7/)
  refuse({ client: idle, queue: { timeout: 0 } }, /'queue'.*got {"timeout":0}/)
  refuse({ client: idle, queue: { bytes: 1.5 } }, /'queue'/)
  refuse({ client: idle, queue: { timeout: 2 ** 31 } }, /'queue'/)
  refuse({ client: idle, queue: { size: 5 } }, /'queue'/)
})

test('refuses a Redis Cluster', (t) => {
  const client = new Cluster([{ port: 1 }], { lazyConnect: true })
  t.after(() => client.disconnect())

  // @ts-expect-error -- the type is refused too
  assert.throws(() => redisBroker({ client }), { code: 'RP_ERR_INVALID_OPTION', message: /Redis Cluster, which is not supported/ })
})

test('rejects all calls before it is open', async () => {
  const broker = redisBroker({ client: idle })

  assert.deepEqual(broker.health(), { ok: false, detail: 'the broker is not open' })
  await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  await assert.rejects(async () => broker.publish('a', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /the broker is not open/ })
  await assert.rejects(async () => redisBroker({ client: idle, history }).history('a', { epoch: 'x', offset: 0 }, 1), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  broker.unsubscribe('a')
  await broker.close()
})

test('rejects open if it is closed meanwhile', async () => {
  const broker = redisBroker({ client: idle })

  const opened = broker.open(new Recorder())
  await broker.close()

  await assert.rejects(async () => opened, { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /the broker is closed/ })
})

suite('the Redis broker and its client', { skip: redisServer.skip, concurrency: 2 }, () => {
  const clients: Record<string, Omit<RedisOptions, 'replyMapping'>> = {
    'enableOfflineQueue: false': { enableOfflineQueue: false },
    'maxRetriesPerRequest: 1': { maxRetriesPerRequest: 1 },
    'maxRetriesPerRequest: null': { maxRetriesPerRequest: null },
    lazyConnect: { lazyConnect: true },
    'autoResubscribe: false': { autoResubscribe: false },
    enableAutoPipelining: { enableAutoPipelining: true },
    'enableReadyCheck: false': { enableReadyCheck: false },
    'commandTimeout: 1': { commandTimeout: 1 },
    keyPrefix: { keyPrefix: 'app:' },
    'protocol: 2': { protocol: 2 },
    db: { db: 3 },
    'stringNumbers: true': { stringNumbers: true },
    readOnly: { readOnly: true }
  }

  for (const [name, options] of Object.entries(clients)) {
    test(`works with a client that has ${name}`, async (t) => {
      const redis = await privateRedis(t)
      const { broker, recorder } = await openBroker(t, { client: redis.client(options), history })
      await broker.subscribe('a')

      await broker.publish('a', '{"n":1}')
      await redis.cut()
      await broker.publish('a', '{"n":2}')
      await recorder.until('a', '{"n":2}')
      await broker.unsubscribe('a')

      assert.deepEqual(recorder.events.map((event) => event.kind === 'message' && event.payload), ['{"n":1}', '{"n":2}'])
      assert.ok((await redis.client({ db: options.db ?? 0 }).keys('*')).every((key) => key.startsWith(`${options.keyPrefix ?? ''}rohrpost:`)))
    })
  }

  test('does not use the client itself, and closes its own connections', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker } = await openBroker(t, { client })
    const names = async () => String(await client.client('LIST')).match(/name=rohrpost:\w+/g)?.sort()
    assert.deepEqual(await names(), ['name=rohrpost:commands', 'name=rohrpost:subscriber'])

    await broker.close()
    await poll(async () => await names() === undefined)

    assert.equal(await client.ping(), 'PONG')
  })

  test('separates applications by prefix, keyPrefix and database', async (t) => {
    const redis = await privateRedis(t)
    const options: RedisBrokerOptions[] = [
      { client: redis.client(), history },
      { client: redis.client(), history, prefix: 'other:' },
      { client: redis.client({ keyPrefix: 'app:' }), history },
      { client: redis.client({ db: 1 }), history }
    ]
    const all = await Promise.all(options.map((options) => openBroker(t, options)))
    for (const { broker } of all) await broker.subscribe('a')

    for (const [n, { broker }] of all.entries()) await broker.publish('a', `{"n":${n}}`)
    for (const [n, { recorder }] of all.entries()) await recorder.until('a', `{"n":${n}}`)

    for (const [n, { recorder }] of all.entries()) assert.deepEqual(recorder.payloads('a'), [`{"n":${n}}`])
  })

  test('waits in open for a Redis that starts a little later', async (t) => {
    const redis = await privateRedis(t)
    const line = await openLine(t, 1)
    const broker = redisBroker({ client: redis.client({ port: line.port }) })
    t.after(() => broker.close())
    const recorder = new Recorder()

    const opened = broker.open(recorder)
    line.target = redis.port
    await opened

    assert.deepEqual(broker.health(), { ok: true })
  })

  test('rejects open without Redis, with the reason', async () => {
    const client = new PrivateRedis(await freePort(), '').client({ lazyConnect: true })
    const recorder = new Recorder()
    const broker = redisBroker({ client, queue: { timeout: 1000 } })

    await assert.rejects(async () => broker.open(recorder), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /no connection to Redis: connect ECONNREFUSED/ })
    assert.equal(recorder.errors.length, 1)
    assert.equal(broker.health().ok, false)
  })

  test('rejects messages that wait too long, and messages beyond the limits of the queue', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), queue: { messages: 3, bytes: 100, timeout: 1000 } })
    await redis.kill()
    await poll(() => !broker.health().ok)

    const waiting = [broker.publish('a', '{"n":1}'), broker.publish('b', '{"n":2}')]
    await assert.rejects(async () => broker.publish('a', 'x'.repeat(90)), { code: 'RP_ERR_NOT_PUBLISHED', message: /2 messages of 14 bytes wait for Redis already/ })
    await new Promise((resolve) => setTimeout(resolve, 20))
    waiting.push(broker.publish('a', '{"n":3}'))
    await assert.rejects(async () => broker.publish('a', '{"n":4}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /3 messages/ })
    for (const published of waiting) await assert.rejects(async () => published, { code: 'RP_ERR_NOT_PUBLISHED', message: /within 1000 ms/ })
    await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /within 1000 ms/ })
    await assert.rejects(async () => broker.publish('a', 'x'.repeat(101)), { code: 'RP_ERR_NOT_PUBLISHED' })

    assert.match(String(broker.health().detail), /no connection to Redis/)
  })

  test('sends large messages in several calls', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    await broker.subscribe('a')
    redis.signal('SIGSTOP')

    const payloads = Array.from({ length: 6 }, (_, n) => `{"n":${n},"text":"${'x'.repeat(600_000)}"}`)
    const published: unknown[] = []
    for (const payload of payloads) {
      published.push(broker.publish('a', payload))
      await new Promise(setImmediate)
    }
    redis.signal('SIGCONT')
    await Promise.all(published)
    await recorder.until('a', String(payloads.at(-1)))

    assert.deepEqual(recorder.payloads('a'), payloads)
  })

  test('rejects history while Redis is down', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), history })
    await redis.kill()
    await poll(() => !broker.health().ok)

    await assert.rejects(async () => broker.history('a', { epoch: 'x', offset: 0 }, 10), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  })

  test('publishes nothing after close, and rejects messages that could not be sent in time', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client(), queue: { timeout: 1000 } })
    await redis.kill()

    const published = broker.publish('a', '{}')
    const joined = broker.subscribe('a')
    await Promise.all([
      broker.close(),
      assert.rejects(async () => published, { code: 'RP_ERR_NOT_PUBLISHED' }),
      assert.rejects(async () => joined, { code: 'RP_ERR_BROKER_UNAVAILABLE' })
    ])

    await assert.rejects(async () => broker.publish('a', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /closed/ })
    await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  })

  test('rejects waiting subscriptions on close', async (t) => {
    const redis = await privateRedis(t)
    const { broker } = await openBroker(t, { client: redis.client() })
    await redis.kill()

    const joined = broker.subscribe('a')
    await broker.close()

    await assert.rejects(async () => joined, { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /the broker is closed/ })
  })

  test('subscribes to the channels of its groups, and to no others', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client()
    const { broker } = await openBroker(t, { client })
    const groups = Array.from({ length: 300 }, (_, n) => `g${n}`)
    const channels = async () => (await client.pubsub('CHANNELS', '*') as string[]).sort()
    await Promise.all(groups.map((group) => broker.subscribe(group)))
    assert.deepEqual(await channels(), groups.map((group) => `rohrpost:0:${group}`).sort())

    for (const group of groups.slice(1)) broker.unsubscribe(group)
    await poll(async () => (await channels()).length === 1)
    await redis.cut('TYPE', 'pubsub')
    await poll(async () => (await channels()).length === 1)

    assert.deepEqual(await channels(), ['rohrpost:0:g0'])
  })

  test('subscribes and unsubscribes within one turn', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })

    broker.subscribe('a')
    broker.unsubscribe('a')
    broker.unsubscribe('a')
    await broker.subscribe('a')
    broker.unsubscribe('a')
    await broker.subscribe('a')
    await broker.publish('a', '{}')
    await recorder.until('a', '{}')

    assert.equal(recorder.events.length, 1)
  })

  test('ignores and reports messages on its channels that no broker published', async (t) => {
    const redis = await privateRedis(t)
    const { broker, recorder } = await openBroker(t, { client: redis.client(), history })
    await broker.subscribe('a')

    const client = redis.client()
    const foreign = ['', 'hello', '1 x', '1 x 2', '1 x 2 {}{}', '1 x a {}', 'a x 2 {}', '1.5 x 2 {}']
    for (const text of foreign) await client.publish('rohrpost:0:a', text)
    await broker.publish('a', '{}')
    await recorder.until('a', '{}')

    assert.equal(recorder.events.length, 1)
    assert.deepEqual(recorder.errors.map(({ message }) => message), foreign.map(() => "Channel 'rohrpost:0:a' has a message that no broker published"))
  })

  test('reports missing permissions', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'limited', 'on', '>secret', '~*', '+@all', 'resetchannels', '&rohrpost:0:a')
    await admin.acl('SETUSER', 'uninformed', 'on', '>secret', '~*', '&*', '+@all', '-info')
    await admin.acl('SETUSER', 'readless', 'on', '>secret', '~*', '&*', '+@all', '-xrange')
    const as = (username: string) => redis.client({ username, password: 'secret', lazyConnect: true })

    const limited = await openBroker(t, { client: as('limited'), history })
    await limited.broker.subscribe('a')
    await assert.rejects(async () => limited.broker.subscribe('b'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /NOPERM/ })
    assert.deepEqual(limited.recorder.errors, [], 'only the caller gets the error')

    t.mock.method(console, 'warn', () => {})
    const recorder = new Recorder()
    await assert.rejects(async () => redisBroker({ client: as('uninformed'), history }).open(recorder), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /INFO replication/ })
    const uninformed = await openBroker(t, { client: as('uninformed') })
    await uninformed.broker.subscribe('a')
    await uninformed.broker.publish('a', '{}')
    await uninformed.recorder.until('a', '{}')

    const readless = await openBroker(t, { client: as('readless'), history })
    const top = await readless.broker.subscribe('a')
    assert.ok(top)
    await readless.broker.publish('a', '{}')
    await assert.rejects(async () => readless.broker.history('a', top, 10), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /history can't be read \(.*run this command/ })
  })

  test('retries a forbidden channel of a group with members', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'limited', 'on', '>secret', '~*', '+@all', 'allchannels')
    const { broker, recorder } = await openBroker(t, { client: redis.client({ username: 'limited', password: 'secret' }), history })
    await broker.subscribe('a')
    await admin.acl('SETUSER', 'limited', 'resetchannels', '&rohrpost:0:b')
    await redis.cut('TYPE', 'pubsub')
    await poll(() => recorder.errors.some(({ message }) => message.includes('NOPERM')))
    const publisher = await openBroker(t, { client: redis.client(), history })
    await publisher.broker.publish('a', '{"n":1}')

    await admin.acl('SETUSER', 'limited', 'allchannels')
    await recorder.until('a', '{"n":1}')

    assert.deepEqual(recorder.payloads('a'), ['{"n":1}'])
  })

  test('retries a forbidden read of missing messages', async (t) => {
    const redis = await privateRedis(t)
    const admin = redis.client()
    await admin.acl('SETUSER', 'readless', 'on', '>secret', '~*', '&*', '+@all', '-xrange')
    const { broker, recorder } = await openBroker(t, { client: redis.client({ username: 'readless', password: 'secret' }), history })
    await broker.subscribe('a')
    await broker.publish('a', '{"n":1}')
    await recorder.until('a', '{"n":1}')

    await admin.xadd('rohrpost:log:a', `2-${Date.now()}`, 'p', '{"n":2}')
    await admin.hset('rohrpost:meta:a', 'offset', 2)
    await broker.publish('a', '{"n":3}')
    await poll(() => recorder.errors.length > 0)
    await admin.acl('SETUSER', 'readless', '+xrange')
    await recorder.until('a', '{"n":3}')

    assert.deepEqual(recorder.payloads('a'), ['{"n":1}', '{"n":2}', '{"n":3}'])
  })

  test('rejects messages and reports it in health() when ioredis does not reconnect', async (t) => {
    const redis = await privateRedis(t)
    const client = redis.client({ retryStrategy: () => null })
    const { broker } = await openBroker(t, { client, queue: { timeout: 1000 } })

    await redis.kill()
    await assert.rejects(async () => broker.publish('a', '{}'), { code: 'RP_ERR_NOT_PUBLISHED' })

    assert.deepEqual(broker.health(), { ok: false, detail: 'no connection to Redis: it was lost' })
  })
})
