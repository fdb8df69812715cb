import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBroker, type Broker } from '../../lib/index.ts'
import type { Frame } from '../../lib/server/sending/frame.ts'
import { Groups } from '../../lib/server/groups/groups.ts'
import type { Member, SubscribeRequest } from '../../lib/server/groups/member.ts'

/** A member that keeps the texts of its frames. */
function member () {
  const heard: string[] = []
  return { heard, ...receiver((frame) => heard.push(frame.text)) }
}

function receiver (send: (frame: Frame) => unknown): Member {
  return { send, replay () {}, dropReplay () {} }
}

/** A `subscribe` without positions. */
function request (member: Member, joined: () => unknown, failed: (error: Error) => unknown = () => assert.fail()): SubscribeRequest {
  return { member, recover: undefined, batch: false, joined, failed }
}

/** Groups with a small `recoveryLimit`, which report only the errors that the test expects. */
function make (broker: Broker, onError: (error: Error, group: string) => unknown = () => assert.fail()): Groups {
  return new Groups({ broker, recoveryLimit: { messages: 10, bytes: 1000 }, onError, onLost: () => assert.fail() })
}

/** A broker whose calls end when the test ends them. */
function slowBroker () {
  const calls: { call: string, end: PromiseWithResolvers<void> }[] = []
  const wait = (call: string) => {
    const end = Promise.withResolvers<void>()
    calls.push({ call, end })
    return end.promise
  }
  const broker: Broker = {
    ...memoryBroker(),
    subscribe: (group) => wait(`subscribe ${group}`),
    unsubscribe: (group) => wait(`unsubscribe ${group}`)
  }
  /** Ends the call under way, and checks that there is no other one. */
  const end = async (expected: string, error?: Error) => {
    assert.deepEqual(calls.map(({ call }) => call), [expected])
    const { end } = calls.splice(0)[0] ?? assert.fail()
    if (error === undefined) end.resolve()
    else end.reject(error)
    await new Promise(setImmediate)
  }
  const errors: string[] = []
  const groups = make(broker, (error, group) => errors.push(`${group}: ${(error.cause as Error).message}`))
  return { groups, calls, end, errors }
}

test('delivers to members only, one frame for all', () => {
  const groups = make(memoryBroker())
  const [ada, bob] = [member(), member()]
  const frames: Frame[] = []
  groups.join('a', ada)
  groups.join('a', receiver((frame) => frames.push(frame)))
  groups.join('a', receiver((frame) => frames.push(frame)))
  groups.join('b', bob)

  groups.deliver('a', 'ä')
  groups.deliver('nobody', 'x')

  assert.deepEqual(ada.heard, ['ä'])
  assert.deepEqual(bob.heard, [])
  assert.equal(frames.length, 2)
  assert.equal(frames[0], frames[1])
})

test('is synchronous with a synchronous broker', () => {
  const broker = memoryBroker()
  const groups = make(broker)
  broker.open({ deliver: (group, payload) => groups.deliver(group, payload), lost () {}, error () {} })
  const ada = member()
  let joined = 0

  assert.equal(groups.join('a', ada), undefined)
  assert.equal(groups.join('a', ada), undefined)
  groups.subscribe('a', request(ada, () => joined++))
  groups.subscribe('a', request(ada, () => joined++))
  groups.publish('a', '1')
  groups.leave('a', ada)
  groups.publish('a', '2')

  assert.equal(joined, 2)
  assert.deepEqual(ada.heard, ['1'])
})

test('subscribes for the first member, unsubscribes after the last', async () => {
  const { groups, calls, end } = slowBroker()
  const [ada, bob] = [member(), member()]

  const first = groups.join('a', ada)
  const second = groups.join('a', bob)
  groups.deliver('a', 'too early')
  await end('subscribe a')
  await Promise.all([first, second])
  groups.deliver('a', 'now')
  groups.leave('a', ada)
  assert.deepEqual(calls, [])
  groups.leave('a', bob)
  await end('unsubscribe a')
  groups.leave('a', bob)

  assert.deepEqual([ada.heard, bob.heard], [['now'], ['now']])
  assert.deepEqual(calls, [])
})

test('calls joined when the membership begins, before the first message', async () => {
  const { groups, end } = slowBroker()
  const order: string[] = []
  const ada = receiver((frame) => order.push(frame.text))
  groups.subscribe('a', request(ada, () => order.push('joined')))
  groups.join('a', ada)
  groups.subscribe('a', request(member(), () => groups.deliver('a', 'news')))

  await end('subscribe a')

  assert.deepEqual(order, ['joined', 'news'])
})

test('makes one broker call for a group at a time, however members join and leave', async () => {
  const { groups, calls, end } = slowBroker()
  const ada = member()

  groups.join('a', ada)
  groups.leave('a', ada)
  groups.join('a', ada)
  groups.leave('a', ada)
  await end('subscribe a')
  const again = groups.join('a', ada)
  await end('unsubscribe a')
  await end('subscribe a')
  await again
  groups.deliver('a', 'x')

  assert.deepEqual(ada.heard, ['x'])
  assert.deepEqual(calls, [])
})

test('resolves a join that was left while it waited', async () => {
  const { groups, end } = slowBroker()
  const ada = member()
  groups.join('a', ada)
  groups.leave('a', ada)
  await end('subscribe a')

  const waited = groups.join('a', ada)
  groups.leave('a', ada)
  await end('unsubscribe a')
  await waited
  groups.deliver('a', 'x')

  assert.deepEqual(ada.heard, [])
})

test('resolves a join that was left while it waited, also if the broker fails to subscribe', async () => {
  const { groups, end } = slowBroker()
  const ada = member()
  const waited = groups.join('a', ada)
  groups.leave('a', ada)

  await end('subscribe a', new Error('away'))

  await waited
})

test('rejects all waiting joins when the broker fails to subscribe, and can be retried', async () => {
  const { groups, calls, end, errors } = slowBroker()
  const [ada, bob] = [member(), member()]
  const first = assert.rejects(async () => groups.join('a', ada), { code: 'RP_ERR_UNAVAILABLE', message: "Can't join 'a' now" })
  const second = assert.rejects(async () => groups.join('a', bob), { code: 'RP_ERR_UNAVAILABLE' })

  await end('subscribe a', new Error('away'))
  await Promise.all([first, second])
  groups.deliver('a', 'x')
  assert.deepEqual(calls, [])

  const again = groups.join('a', ada)
  await end('subscribe a')
  await again
  groups.deliver('a', 'y')

  assert.deepEqual([ada.heard, bob.heard, errors], [['y'], [], ['a: away']])
})

test('reports a failed subscribe that is not awaited', async () => {
  const { groups, end, errors } = slowBroker()
  groups.join('a', member())

  await end('subscribe a', new Error('away'))

  assert.deepEqual(errors, ['a: away'])
})

test('reports a failed unsubscribe, and the group can be joined again', async () => {
  const { groups, end, errors } = slowBroker()
  const ada = member()
  groups.join('a', ada)
  await end('subscribe a')
  groups.leave('a', ada)
  const again = groups.join('a', ada)

  await end('unsubscribe a', new Error('away'))
  await end('subscribe a')
  await again
  groups.deliver('a', 'x')

  assert.deepEqual([ada.heard, errors], [['x'], ['a: away']])
})

test('starts without a position when a group is joined again: messages without members are not lost', async () => {
  const { groups, end } = slowBroker()
  const ada = member()
  groups.join('a', ada)
  await end('subscribe a')
  groups.deliver('a', '{"n":1}', { epoch: 'e', offset: 1 })
  groups.leave('a', ada)
  groups.join('a', ada)
  await end('unsubscribe a')

  // a reported loss would fail the test
  groups.deliver('a', '{"n":5}', { epoch: 'e', offset: 5 })
  await end('subscribe a')
  groups.deliver('a', '{"n":6}', { epoch: 'e', offset: 6 })

  assert.deepEqual(ada.heard, ['{"n":1}', '{"n":6}'])
})

test('treats a broker that throws like one that rejects', async () => {
  const errors: string[] = []
  const broker = { ...memoryBroker(), subscribe () { throw new Error('away') } }
  const groups = make(broker, (error) => errors.push((error.cause as Error).message))

  await assert.rejects(async () => groups.join('a', member()), { code: 'RP_ERR_UNAVAILABLE' })

  assert.deepEqual(errors, ['away'])
})

test('accepts names of 1 to 200 printable ASCII characters without spaces', () => {
  const groups = make(memoryBroker())

  for (const name of ['a', 'todo-5', 'user:7', '!~', 'x'.repeat(200)]) groups.join(name, member())
  for (const name of ['', 'a b', 'ä', 'a\n', 'x'.repeat(201), 5, null, undefined, {}]) {
    assert.throws(() => groups.join(name as string, member()), { code: 'RP_ERR_INVALID_GROUP', statusCode: 400 })
    assert.throws(() => groups.publish(name as string, 'x'), { code: 'RP_ERR_INVALID_GROUP' })
    groups.leave(name as string, member())
  }
})

test('keeps the subscription for later members when a member leaves in its joined callback', async () => {
  const { groups, calls, end } = slowBroker()
  const [ada, bob] = [member(), member()]
  groups.subscribe('a', request(ada, () => groups.leave('a', ada)))
  const joining = groups.join('a', bob)

  await end('subscribe a')
  await joining
  groups.deliver('a', 'hello')

  assert.deepEqual([ada.heard, bob.heard], [[], ['hello']])
  assert.deepEqual(calls, [])
})
