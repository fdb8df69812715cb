/** The Redis broker with a fake Redis, for timings that a real Redis can't reproduce. */
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { redisBroker, type RedisBrokerOptions } from '../../../lib/brokers/redis/index.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { fakeRedis } from '../../support/fake-redis.ts'

const history = { size: 10_000, ttl: 60_000 }
const turn = () => new Promise(setImmediate)

async function open (t: TestContext, options: Omit<RedisBrokerOptions, 'client'> = { history }) {
  const { client, commands, subscriber } = fakeRedis()
  const recorder = new Recorder()
  const broker = redisBroker({ client, ...options })
  t.after(() => broker.close())
  const opened = broker.open(recorder)
  for (const connection of [commands, subscriber]) (await connection.next('INFO')).answer('role:master\r\nmaster_replid:abc\r\n')
  await opened
  return { broker, recorder, commands, subscriber }
}

type Scene = Awaited<ReturnType<typeof open>>

/** Replies to the read of one group. */
const replyToRead = async ({ commands }: Scene, epoch: string, top: number, ...payloads: string[]) => {
  (await commands.next('EVALSHA')).answer([[epoch, String(top), 'complete', ...payloads]])
}

async function join (scene: Scene): Promise<void> {
  const joined = scene.broker.subscribe('a')
  ;(await scene.subscriber.next('SUBSCRIBE')).answer()
  await replyToRead(scene, 'e', 0)
  await joined
}

test('refuses to open with history if Redis does not report its master_replid', async () => {
  const { client, commands, subscriber } = fakeRedis()
  const broker = redisBroker({ client, history })

  const opened = broker.open(new Recorder())
  for (const connection of [commands, subscriber]) (await connection.next('INFO')).answer('role:master\r\n')

  await assert.rejects(async () => opened, { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /master_replid/ })
})

test('is not ready when the connection is lost before Redis replies to INFO', async (t) => {
  const { client, commands, subscriber } = fakeRedis()
  const broker = redisBroker({ client })
  t.after(() => broker.close())
  const opened = broker.open(new Recorder())
  ;(await subscriber.next('INFO')).answer('master_replid:abc')

  const asked = await commands.next('INFO')
  commands.status = 'reconnecting'
  asked.fail(new Error('Connection is closed.'))
  await turn()
  assert.match(String(broker.health().detail), /no connection/)
  commands.status = 'ready'
  commands.emit('ready')
  ;(await commands.next('INFO')).answer('master_replid:abc')
  await opened

  assert.equal(broker.health().ok, true)
})

test('continues when Redis replies after a message was rejected', async (t) => {
  const { broker, commands } = await open(t, { queue: { timeout: 500 } })

  const first = broker.publish('a', '1')
  const asked = await commands.next('EVALSHA')
  const later = turn().then(() => broker.publish('a', '2'))
  await assert.rejects(async () => first, { code: 'RP_ERR_NOT_PUBLISHED' })
  await assert.rejects(async () => later, { code: 'RP_ERR_NOT_PUBLISHED' })
  asked.answer(['0'])
  const third = broker.publish('a', '3')
  const next = await commands.next('EVALSHA')
  next.answer(['0'])
  await third

  assert.deepEqual(next.args.slice(-4), ['a', '1', '1', '3'], 'a message that was rejected before it was sent is not sent')
})

test('does not repeat a message that was rejected during a disconnect', async (t) => {
  const { broker, commands } = await open(t, { queue: { timeout: 500 } })
  const lose = async () => {
    const asked = await commands.next('EVALSHA')
    commands.emit('close')
    asked.fail(new Error('Connection is closed.'))
  }
  const comeBack = async () => {
    commands.emit('ready')
    ;(await commands.next('INFO')).answer('master_replid:abc')
    await turn()
  }

  const first = broker.publish('a', '1')
  await lose()
  await assert.rejects(async () => first, { code: 'RP_ERR_NOT_PUBLISHED' })
  await comeBack()
  const second = broker.publish('a', '2')
  const asked = await commands.next('EVALSHA')
  asked.answer(['0'])
  await second

  assert.deepEqual(asked.args.slice(-4), ['a', '1', '1', '2'])
})

test('does not repeat a call that is in flight', async (t) => {
  const { broker, commands } = await open(t)

  const published = broker.publish('a', '1')
  const asked = await commands.next('EVALSHA')
  commands.emit('ready')
  ;(await commands.next('INFO')).answer('master_replid:abc')
  await turn()
  assert.deepEqual(commands.asked.map(({ name }) => name), [])
  asked.answer(['0'])

  await published
})

test('reports in health() that Redis replies slowly', async (t) => {
  const { broker, commands } = await open(t, {})

  const published = broker.publish('a', '1')
  const asked = await commands.next('EVALSHA')
  const now = performance.now()
  t.mock.method(performance, 'now', () => now + 1500)

  assert.match(String(broker.health().detail), /^Redis has not answered for 1\d\d\d ms$/)
  asked.answer(['0'])
  await published
  assert.equal(broker.health().ok, true)
})

test('ignores a group that is unsubscribed before Redis confirms the subscription', async (t) => {
  const scene = await open(t)
  const { broker, subscriber, commands, recorder } = scene

  broker.subscribe('a')
  const asked = await subscriber.next('SUBSCRIBE')
  broker.unsubscribe('a')
  asked.answer()
  await subscriber.next('UNSUBSCRIBE')
  subscriber.emit('message', 'rohrpost:0:a', '1 e 2 {}')

  assert.deepEqual(recorder.events, [])
  assert.deepEqual(commands.asked, [])
})

test('ignores a group that is unsubscribed while it is read', async (t) => {
  const scene = await open(t)
  const { broker, subscriber, commands, recorder } = scene
  await join(scene)

  subscriber.emit('message', 'rohrpost:0:a', '3 e 2 {}')
  const asked = await commands.next('EVALSHA')
  broker.unsubscribe('a')
  asked.answer([['e', '3', 'complete', '{}', '{}', '{}']])
  await turn()

  assert.deepEqual(recorder.events, [])
})

test('reads the messages again for which its buffer had no room', async (t) => {
  const scene = await open(t)
  const { subscriber, recorder } = scene
  await join(scene)
  const payload = (n: number) => `{"n":${n}}`
  const send = (n: number) => subscriber.emit('message', 'rohrpost:0:a', `${n} e ${payload(n).length} ${payload(n)}`)

  send(2)
  const first = await scene.commands.next('EVALSHA')
  for (let n = 3; n <= 2005; n++) send(n)
  first.answer([['e', '2', 'complete', payload(1), payload(2)]])
  const second = await scene.commands.next('EVALSHA')
  second.answer([['e', '2005', 'complete', ...Array.from({ length: 2003 }, (_, n) => payload(n + 3))]])
  await recorder.until('a', payload(2005))

  assert.deepEqual(recorder.payloads('a'), Array.from({ length: 2005 }, (_, n) => payload(n + 1)))
  assert.deepEqual(second.args.slice(-4), ['a', 'e', '2', '10000'])
})

test('includes messages that arrive during the subscription in the position', async (t) => {
  const { broker, subscriber, commands, recorder } = await open(t)

  const joined = broker.subscribe('a')
  ;(await subscriber.next('SUBSCRIBE')).answer()
  const asked = await commands.next('EVALSHA')
  subscriber.emit('message', 'rohrpost:0:a', '5 e 2,2 {}{}')
  asked.answer([['e', '5', 'gone']])

  assert.deepEqual(await joined, { epoch: 'e', offset: 6 })
  assert.deepEqual(recorder.events, [])
})

test('follows a group to an epoch that begins during the subscription', async (t) => {
  const scene = await open(t)
  const { broker, subscriber, commands, recorder } = scene

  const joined = broker.subscribe('a')
  ;(await subscriber.next('SUBSCRIBE')).answer()
  const asked = await commands.next('EVALSHA')
  subscriber.emit('message', 'rohrpost:0:a', '1 f 2 {}')
  asked.answer([['e', '5', 'gone']])
  assert.deepEqual(await joined, { epoch: 'e', offset: 5 })
  ;(await commands.next('EVALSHA')).answer([['f', '1', 'gone']])
  const again = await commands.next('EVALSHA')
  again.answer([['f', '1', 'complete', '{}']])
  await recorder.until('a', '{}')

  assert.deepEqual(again.args.slice(-4), ['a', 'f', '0', '10000'])
  assert.deepEqual(recorder.events, [
    { kind: 'lost', group: 'a', position: { epoch: 'f', offset: 0 } },
    { kind: 'message', group: 'a', payload: '{}', position: { epoch: 'f', offset: 1 } }
  ])
})

test('continues at the top of a new epoch whose first messages are gone', async (t) => {
  const scene = await open(t)
  const { subscriber, commands, recorder } = scene
  await join(scene)

  subscriber.emit('message', 'rohrpost:0:a', '50 f 2 {}')
  ;(await commands.next('EVALSHA')).answer([['f', '50', 'gone']])
  ;(await commands.next('EVALSHA')).answer([['f', '51', 'gone']])
  await recorder.when('both losses', () => recorder.events.length === 2)
  subscriber.emit('message', 'rohrpost:0:a', '52 f 2 {}')

  assert.deepEqual(recorder.events.map(({ position }) => position?.offset), [0, 51, 52])
})

test('unsubscribes from many groups in several commands, since a command has a limited number of arguments', async (t) => {
  const { broker, subscriber } = await open(t)
  const groups = Array.from({ length: 250 }, (_, n) => `g-${n}`)
  for (const group of groups) broker.subscribe(group)
  await subscriber.next('SUBSCRIBE')

  for (const group of groups) broker.unsubscribe(group)
  await turn()

  assert.deepEqual(subscriber.asked.filter(({ name }) => name === 'UNSUBSCRIBE').map(({ args }) => args.length), [100, 100, 50])
})

test('reads the first of many groups while it subscribes to the next ones', async (t) => {
  const { broker, subscriber, commands } = await open(t)
  const groups = Array.from({ length: 101 }, (_, n) => `g-${n}`)

  const joined = Promise.all(groups.map((group) => broker.subscribe(group)))
  ;(await subscriber.next('SUBSCRIBE')).answer()
  const last = await subscriber.next('SUBSCRIBE')
  ;(await commands.next('EVALSHA')).answer(groups.slice(0, 100).map(() => ['e', '7', 'gone']))
  last.answer()
  ;(await commands.next('EVALSHA')).answer([['e', '7', 'gone']])

  assert.equal((await joined).length, 101)
})

test('rejects a subscription after its timeout, even if it was made in the turn of a reconnect', async (t) => {
  const { broker, subscriber } = await open(t, { queue: { timeout: 20 } })
  subscriber.emit('ready')
  const greeting = await subscriber.next('INFO')
  greeting.answer('master_replid:abc\r\n')

  // the reply is handled after this code, but in the same turn of the event loop
  await assert.rejects(async () => broker.subscribe('a'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /within 20 ms/ })
})

/** An error reply of Redis. */
const reply = (message: string) => Object.assign(new Error(message), { name: 'ReplyError' })
const READONLY = "READONLY You can't write against a read only replica."
/** Reconnects to the same server. */
async function comeBack (connection: Scene['commands']): Promise<void> {
  connection.emit('close')
  connection.emit('ready')
  ;(await connection.next('INFO')).answer('master_replid:abc')
  await turn()
}

test('reconnects once for all refused commands, at once the first time and then with growing delays', async (t) => {
  const { broker, commands, subscriber, recorder } = await open(t)
  const timers = t.mock.method(globalThis, 'setTimeout')
  t.mock.method(Math, 'random', () => 1)
  const delays = () => timers.mock.calls.map(({ arguments: [, delay] }) => delay).filter((delay) => delay !== 5000)

  const published = broker.publish('a', '{}')
  const joined = broker.subscribe('a')
  for (let n = 0; n < 4; n++) {
    if (n === 0) (await subscriber.next('SUBSCRIBE')).answer()
    const asked = [await commands.next('EVALSHA'), await commands.next('EVALSHA')]
    const before = commands.disconnects
    for (const { fail } of asked) fail(reply(READONLY))
    while (commands.disconnects === before) await turn()
    assert.equal(broker.health().ok, false)
    assert.equal(commands.disconnects, before + 1)
    await comeBack(commands)
  }
  const [write, read] = [await commands.next('EVALSHA'), await commands.next('EVALSHA')]
  write.answer(['0'])
  read.answer([['e', '0', 'gone']])
  await published
  await joined

  assert.deepEqual(delays(), [0, 200, 400, 800])
  assert.deepEqual(recorder.errors.map(({ message }) => message), [READONLY, READONLY], 'one for publishing and one for reading')
  assert.deepEqual(recorder.notices.map(({ text, failures }) => [text, failures]), [['Redis publishes again', 4], ['Redis can be read again', 4]])
  assert.deepEqual(broker.health(), { ok: true })
})

test('reconnects at once if the previous reconnect was long ago', async (t) => {
  const { broker, commands } = await open(t, { queue: { timeout: 600_000 } })
  const timers = t.mock.method(globalThis, 'setTimeout')
  let now = performance.now()
  t.mock.method(performance, 'now', () => now)

  const published = broker.publish('a', '{}')
  for (let n = 0; n < 2; n++) {
    const before = commands.disconnects
    ;(await commands.next('EVALSHA')).fail(reply(READONLY))
    while (commands.disconnects === before) await turn()
    now += 61_000
    await comeBack(commands)
  }
  ;(await commands.next('EVALSHA')).answer(['0'])
  await published

  assert.deepEqual(timers.mock.calls.map(({ arguments: [, delay] }) => delay).filter((delay) => Number(delay) < 1000), [0, 0])
})

test('reconnects when a command fails without a reply although the connection looks open', async (t) => {
  const { broker, commands, recorder } = await open(t)

  const published = broker.publish('a', '{}')
  ;(await commands.next('EVALSHA')).fail(new Error("Stream isn't writeable"))
  while (commands.disconnects === 0) await turn()
  await comeBack(commands)
  ;(await commands.next('EVALSHA')).answer(['0'])
  await published

  assert.deepEqual(recorder.errors.map(({ message }) => message), ['The connection to Redis was lost'])
  assert.deepEqual(recorder.notices.map(({ text }) => text), ['Redis can be reached again'])
})

test('probes a Redis that refuses calls with a call without messages, once it is connected', async (t) => {
  const { broker, commands, recorder } = await open(t)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const refused = (text: string) => reply(text)

  const first = broker.publish('a', '{}')
  ;(await commands.next('EVALSHA')).fail(refused('ERR Error running script: Script killed by user with SCRIPT KILL.'))
  await assert.rejects(async () => first, { code: 'RP_ERR_NOT_PUBLISHED', message: /killed/ })
  t.mock.timers.tick(1000)
  const probe = await commands.next('EVALSHA')
  assert.deepEqual(probe.args.slice(-2), ['rohrpost:0:', '0'], 'no messages')
  // a message that is published meanwhile is sent after the probe
  const second = broker.publish('a', '{"n":2}')
  await turn()
  probe.fail(refused('MISCONF'))
  const asked = await commands.next('EVALSHA')
  t.mock.timers.tick(2000)
  assert.equal(commands.asked.filter(({ name }) => name === 'EVALSHA').length, 0, 'no probe while a call is in flight')
  asked.fail(refused('MISCONF'))
  await assert.rejects(async () => second, { code: 'RP_ERR_NOT_PUBLISHED' })
  commands.emit('close')
  t.mock.timers.tick(60_000)
  commands.emit('ready')
  ;(await commands.next('INFO')).answer('master_replid:abc')
  await turn()
  t.mock.timers.tick(60_000)
  ;(await commands.next('EVALSHA')).answer(['0'])
  await turn()

  assert.deepEqual(recorder.notices.map(({ text, failures }) => [text, failures]), [['Redis can be reached again', 1], ['Redis publishes again', 3]])
  t.mock.timers.tick(60_000)
  assert.deepEqual(commands.asked.filter(({ name }) => name === 'EVALSHA'), [])
})

test('closes after the reply to the call in flight', async (t) => {
  const { broker, commands } = await open(t)
  const published = broker.publish('a', '{}')
  const call = await commands.next('EVALSHA')

  let isClosed = false
  const closed = Promise.resolve(broker.close()).then(() => { isClosed = true })
  await turn()
  assert.equal(isClosed, false)
  call.answer(['0'])
  await published
  await closed
})

test('joins adjacent messages of a group from many turns while a call is in flight', async (t) => {
  const { broker, commands } = await open(t)

  const all = [broker.publish('a', '1')]
  const first = await commands.next('EVALSHA')
  for (const [group, payload] of [['b', '2'], ['b', '3'], ['a', '4'], ['b', '5']] as const) {
    await turn()
    all.push(broker.publish(group, payload))
  }
  await turn()
  first.answer(['0'])
  const second = await commands.next('EVALSHA')
  second.answer(['0', 'b', 'WRONGTYPE'])
  const results = await Promise.allSettled(all)

  assert.deepEqual(second.args.slice(-13), ['b', '1,1', '2', '2', '3', 'a', '1', '1', '4', 'b', '1', '1', '5'])
  assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected', 'rejected', 'fulfilled', 'rejected'])
})

test('reads smaller portions while replies are slow, and larger ones while they are fast', async (t) => {
  const scene = await open(t)
  const { broker, commands } = scene
  let now = 0
  t.mock.method(performance, 'now', () => now)
  const payload = `"${'x'.repeat(20_000)}"`
  const portions: number[] = []

  const read = broker.history('a', { epoch: 'e', offset: 0 }, 100)
  for (const duration of [10, 500, 10, 1100, 1100, 1100, 1100, 1100, 10]) {
    const asked = await commands.next('EVALSHA')
    portions.push(Number(asked.args[8]))
    now += duration
    asked.answer([['e', '100', 'more', payload]])
  }
  ;(await commands.next('EVALSHA')).answer([['e', '100', 'gone']])

  assert.equal(await read, undefined)
  assert.deepEqual(portions.map((bytes) => bytes / 1024), [32, 64, 64, 64, 32, 16, 8, 8, 8])
})

test('reads one portion at a time, and starts with a small one after a lost connection', async (t) => {
  const { broker, commands } = await open(t)

  const reads = [broker.history('a', { epoch: 'e', offset: 0 }, 1), broker.history('b', { epoch: 'e', offset: 0 }, 1)]
  const first = await commands.next('EVALSHA')
  await turn()
  assert.deepEqual(commands.asked, [])
  first.fail(new Error('Connection is closed.'))
  for (const read of reads) await assert.rejects(async () => read, { code: 'RP_ERR_BROKER_UNAVAILABLE' })
  await comeBack(commands)
  const third = broker.history('c', { epoch: 'e', offset: 0 }, 1)
  const asked = await commands.next('EVALSHA')
  asked.answer([['e', '0', 'complete']])

  assert.deepEqual(await third, [])
  assert.equal(asked.args[8], String(8 * 1024))
})

test('buffers a limited number of characters, and reads the other messages again', async (t) => {
  const scene = await open(t)
  const { subscriber, commands, recorder } = scene
  await join(scene)
  const payload = (n: number) => `{"n":${n},"text":"${'x'.repeat(1_000_000)}"}`
  const send = (n: number) => subscriber.emit('message', 'rohrpost:0:a', `${n} e ${payload(n).length} ${payload(n)}`)

  send(2)
  const first = await commands.next('EVALSHA')
  for (let n = 3; n <= 8; n++) send(n)
  // a single message larger than the buffer
  const huge = `{"n":9,"text":"${'x'.repeat(5_000_000)}"}`
  subscriber.emit('message', 'rohrpost:0:a', `9 e ${huge.length} ${huge}`)
  first.answer([['e', '2', 'complete', payload(1), payload(2)]])
  const second = await commands.next('EVALSHA')
  second.answer([['e', '9', 'more', payload(3)]])
  const third = await commands.next('EVALSHA')
  third.answer([['e', '9', 'complete', ...Array.from({ length: 5 }, (_, n) => payload(n + 4)), huge]])
  await recorder.until('a', huge)

  assert.deepEqual(recorder.positions('a').map((position) => position?.offset), [1, 2, 3, 4, 5, 6, 7, 8, 9])
  assert.deepEqual([second, third].map(({ args }) => args.at(-2)), ['2', '3'])
})

test('ignores the reply to a read of an earlier subscription or an earlier connection', async (t) => {
  const scene = await open(t)
  const { broker, subscriber, commands, recorder } = scene
  await join(scene)

  subscriber.emit('message', 'rohrpost:0:a', '3 e 2 {}')
  const old = await commands.next('EVALSHA')
  await comeBack(subscriber)
  old.answer([['e', '3', 'complete', '1', '2', '3']])
  await turn()
  assert.deepEqual(recorder.events, [], 'Redis has not confirmed the subscription yet')
  ;(await subscriber.next('SUBSCRIBE')).answer()
  ;(await commands.next('EVALSHA')).answer([['e', '4', 'complete', '1', '2', '3', '4']])
  await recorder.until('a', '4')
  subscriber.emit('message', 'rohrpost:0:a', '6 e 2 {}')
  const late = await commands.next('EVALSHA')
  broker.unsubscribe('a')
  const joined = broker.subscribe('a')
  late.fail(new Error('Connection is closed.'))
  ;(await subscriber.next('SUBSCRIBE')).answer()
  await comeBack(commands)
  ;(await commands.next('EVALSHA')).answer([['e', '6', 'gone']])

  assert.deepEqual(await joined, { epoch: 'e', offset: 6 })
  assert.deepEqual(recorder.payloads('a'), ['1', '2', '3', '4'])
})

test('reads the position of a new group again if its buffer overflows', async (t) => {
  const { broker, subscriber, commands } = await open(t)
  const joined = broker.subscribe('a')
  ;(await subscriber.next('SUBSCRIBE')).answer()
  const first = await commands.next('EVALSHA')
  for (let n = 1; n <= 150; n++) subscriber.emit('message', 'rohrpost:0:a', `${n} e 2 {}`)

  first.answer([['e', '0', 'gone']])
  ;(await commands.next('EVALSHA')).answer([['e', '150', 'gone']])

  assert.deepEqual(await joined, { epoch: 'e', offset: 150 })
})

test('does not retry on a new connection what was refused on the previous one', async (t) => {
  const { broker, subscriber } = await open(t, {})
  for (const group of ['a', 'b']) broker.subscribe(group)
  const asked = await subscriber.next('SUBSCRIBE')

  await comeBack(subscriber)
  asked.fail(reply('NOPERM'))
  await turn()
  ;(await subscriber.next('SUBSCRIBE')).answer()
  await turn()

  assert.deepEqual(subscriber.asked.filter(({ name }) => name === 'SUBSCRIBE'), [])
})
