import assert from 'node:assert/strict'
import { after, mock, suite, test, type TestContext } from 'node:test'
import { memoryBroker } from '../../lib/index.ts'
import { brokerSuite } from '../../lib/testing/index.ts'
import type { Position, Receiver } from '../../lib/index.ts'

function receiver (heard: string[]): Receiver {
  return {
    deliver: (group, payload, position) => heard.push(`${group}: ${payload}${position === undefined ? '' : ` @${position.offset}`}`),
    lost: (group) => heard.push(`${group} lost`),
    error: (error) => heard.push(error.message)
  }
}

test('delivers inside publish, to subscribed groups only', () => {
  const heard: string[] = []
  const broker = memoryBroker()
  broker.open(receiver(heard))

  broker.publish('a', '1')
  broker.subscribe('a')
  broker.publish('a', '2')
  broker.publish('b', '3')
  broker.unsubscribe('a')
  broker.publish('a', '4')

  assert.deepEqual(heard, ['a: 2'])
})

test('keeps no history and is always well', () => {
  const broker = memoryBroker()

  assert.equal(broker.keepsHistory, undefined)
  assert.equal(broker.subscribe('a'), undefined)
  assert.equal(broker.history('a', { epoch: 'x', offset: 1 }, 10), undefined)
  assert.deepEqual(broker.health(), { ok: true })
})

test('delivers nothing once it is closed', () => {
  for (const options of [{}, { history: { size: 3, ttl: 1000 } }]) {
    const heard: string[] = []
    const broker = memoryBroker(options)
    broker.open(receiver(heard))
    broker.subscribe('a')

    broker.close()
    broker.publish('a', '1')

    assert.deepEqual(heard, [])
  }
})

test('refuses to serve two apps', (t) => {
  for (const options of [{}, { history: { size: 3, ttl: 1000 } }]) {
    const broker = memoryBroker(options)
    t.after(() => broker.close())
    broker.open(receiver([]))

    assert.throws(() => broker.open(receiver([])), { code: 'RP_ERR_BROKER_IN_USE', message: /memory broker/ })
  }
})

test('refuses options that could not work, and names the value', () => {
  const wrong: [object, RegExp][] = [
    [{ histroy: { size: 1, ttl: 1 } }, /Unknown option 'histroy', the options are: history/],
    [{ history: true }, /'history': expected an object \{ size, ttl \}, got true/],
    [{ history: null }, /'history'.*got null/],
    [{ history: [] }, /'history'.*got \[\]/],
    [{ history: { size: 10 } }, /'history.ttl': expected a whole number of milliseconds from 1 to 2147483647, got undefined/],
    [{ history: { ttl: 10 } }, /'history.size': expected a whole number of messages from 1, got undefined/],
    [{ history: { size: 0, ttl: 10 } }, /'history.size'.*got 0/],
    [{ history: { size: 1.5, ttl: 10 } }, /'history.size'.*got 1\.5/],
    [{ history: { size: '10', ttl: 10 } }, /'history.size'.*got "10"/],
    [{ history: { size: 1, ttl: 2 ** 31 } }, /'history.ttl'.*got 2147483648/],
    [{ history: { size: 1, ttl: 10, max: 5 } }, /Unknown option 'history.max', the options are: history.size, history.ttl/]
  ]
  for (const [options, message] of wrong) {
    assert.throws(() => memoryBroker(options), { code: /^RP_ERR_(?:INVALID|UNKNOWN)_OPTION$/, message })
  }
})

suite('with history', () => {
  /** A broker whose clock is the test's. */
  function open (t: TestContext, history = { size: 3, ttl: 1000 }) {
    t.mock.timers.enable({ apis: ['setInterval', 'Date'] })
    const heard: string[] = []
    const broker = memoryBroker({ history })
    t.after(() => broker.close())
    broker.open(receiver(heard))
    const payloads = (after: Position, limit = 10) => {
      const entries = broker.history('a', after, limit)
      assert.ok(!(entries instanceof Promise))
      return entries?.map(({ payload, position }) => {
        assert.equal(position.epoch, after.epoch)
        return `${payload} @${position.offset}`
      })
    }
    const subscribe = () => {
      const top = broker.subscribe('a')
      assert.ok(top !== undefined && 'epoch' in top)
      return top
    }
    return { broker, heard, payloads, subscribe, tick: (ms: number) => t.mock.timers.tick(ms) }
  }

  test('numbers messages from 1, and goes on numbering while nobody is there', (t) => {
    const { broker, heard, payloads, subscribe } = open(t)

    assert.equal(broker.keepsHistory, true)
    const start = subscribe()
    broker.publish('a', 'one')
    broker.unsubscribe('a')
    broker.publish('a', 'two')
    const top = subscribe()
    broker.publish('a', 'three')

    assert.equal(start.offset, 0)
    assert.deepEqual(top, { epoch: start.epoch, offset: 2 })
    assert.deepEqual(heard, ['a: one @1', 'a: three @3'])
    assert.deepEqual(payloads(start), ['one @1', 'two @2', 'three @3'])
    assert.deepEqual(payloads(top), ['three @3'])
    assert.deepEqual(payloads(start, 2), ['one @1', 'two @2'])
  })

  test('has nothing to tell of a position that is not its own', (t) => {
    const { broker, payloads, subscribe } = open(t)
    const { epoch } = subscribe()
    broker.publish('a', 'one')

    assert.deepEqual(payloads({ epoch, offset: 1 }), [])
    assert.equal(payloads({ epoch, offset: 2 }), undefined)
    assert.equal(payloads({ epoch: 'other', offset: 1 }), undefined)
    assert.equal(broker.history('b', { epoch, offset: 0 }, 10), undefined)
  })

  test('keeps so many messages and no more', (t) => {
    const { broker, payloads, subscribe } = open(t)
    const { epoch } = subscribe()
    for (let n = 1; n <= 8; n++) broker.publish('a', String(n))

    assert.deepEqual(payloads({ epoch, offset: 5 }), ['6 @6', '7 @7', '8 @8'])
    assert.deepEqual(payloads({ epoch, offset: 6 }, 1), ['7 @7'])
    assert.equal(payloads({ epoch, offset: 4 }), undefined)
  })

  test('keeps messages so long and no longer, but remembers how many there were', (t) => {
    const { broker, payloads, subscribe, tick } = open(t)
    const { epoch } = subscribe()
    broker.publish('a', 'one')
    tick(600)
    broker.publish('a', 'two')
    tick(399)
    assert.deepEqual(payloads({ epoch, offset: 0 }), ['one @1', 'two @2'])
    tick(1)

    assert.equal(payloads({ epoch, offset: 0 }), undefined)
    assert.deepEqual(payloads({ epoch, offset: 1 }), ['two @2'])
    tick(5000)
    assert.equal(payloads({ epoch, offset: 1 }), undefined)
    assert.deepEqual(payloads({ epoch, offset: 2 }), [])
    broker.publish('a', 'three')
    assert.deepEqual(payloads({ epoch, offset: 2 }), ['three @3'])
  })

  test('forgets a group that nobody was in for ten times as long; then its epoch is another', (t) => {
    const { broker, payloads, subscribe, tick } = open(t)
    const { epoch } = subscribe()
    broker.publish('a', 'one')
    tick(20_000)
    broker.unsubscribe('a')
    tick(9000)
    assert.deepEqual(payloads({ epoch, offset: 1 }), [])
    assert.deepEqual(subscribe(), { epoch, offset: 1 })
    broker.unsubscribe('a')
    tick(10_000)
    broker.publish('a', 'two')

    assert.equal(payloads({ epoch, offset: 1 }), undefined)
    const again = subscribe()
    assert.equal(again.offset, 0)
    assert.notEqual(again.epoch, epoch)
  })

  test('remembers 10,000 groups without messages that everybody left, and forgets the one first left', (t) => {
    const { broker, payloads, subscribe } = open(t)
    const start = subscribe()
    broker.publish('a', 'one')
    broker.unsubscribe('a')
    const enter = (group: string) => {
      const top = broker.subscribe(group)
      broker.unsubscribe(group)
      return top
    }
    const tops = ['b', 'c'].map(enter)
    broker.subscribe('c')
    for (let n = 1; n < 10_000; n++) enter(`group-${n}`)
    assert.deepEqual(enter('b'), tops[0])

    enter('one more')
    enter('and another one')

    assert.notDeepEqual(enter('group-1'), tops[0])
    assert.deepEqual(enter('b'), tops[0], 'it was left again')
    assert.deepEqual(broker.history('c', tops[1] as Position, 10), [], 'somebody is in it')
    assert.deepEqual(payloads(start), ['one @1'], 'it has messages')
  })

  test('keeps nothing of groups that nobody was in: nobody has a position there', (t) => {
    const { broker, payloads, subscribe } = open(t)
    broker.publish('a', 'one')
    broker.unsubscribe('a')

    const top = subscribe()

    assert.equal(top.offset, 0)
    assert.deepEqual(payloads(top), [])
  })
})

for (const history of [undefined, { size: 50, ttl: 60_000 }]) {
  suite(`the memory broker ${history ? 'with' : 'without'} history`, () => {
    after(() => mock.timers.reset())

    brokerSuite({
      test,
      open: (receiver) => {
        const broker = memoryBroker({ ...(history && { history }) })
        broker.open(receiver)
        return broker
      },
      capabilities: { ...(history && { history: { size: history.size } }) },
      fault: { expire: () => mock.timers.enable({ apis: ['Date'], now: Date.now() + 60_000 }) }
    })
  })
}
