import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { RohrpostClient, type ClientOptions } from '../../lib/client/index.ts'
import { fakeSockets } from './support/fake-socket.ts'
import { openFake, stopClock } from './support/open.ts'

/** A function that calls `new RohrpostClient` with invalid options. */
const make = (options: object, url: unknown = 'ws://host') => () => new RohrpostClient(url as string, { WebSocket: fakeSockets().WebSocket, ...options } as ClientOptions)

suite('an invalid option throws an error with its name, the rule and the value', () => {
  const durations = ['pingInterval', 'connectTimeout', 'disconnectWhenHidden']
  for (const name of durations) {
    test(name, () => {
      for (const value of [NaN, -1, -Infinity]) {
        assert.throws(make({ [name]: value }), { name: 'RangeError', message: `Option '${name}' must be milliseconds, 0 or more, got ${value}` })
      }
      assert.throws(make({ [name]: '5s' }), { name: 'TypeError', message: `Option '${name}' must be milliseconds, 0 or more, got '5s'` })
      assert.throws(make({ [name]: { s: 5 } }), { name: 'TypeError', message: /got {"s":5}$/ })
    })
  }

  test('backoff', () => {
    for (const min of [0, NaN, -1, Infinity, 2 ** 31]) assert.throws(make({ backoff: { min } }), { name: 'RangeError', message: /'backoff.min'/ })
    for (const max of [NaN, -1, Infinity, 499]) assert.throws(make({ backoff: { min: 500, max } }), { name: 'RangeError', message: /'backoff.max'/ })
    assert.throws(make({ backoff: { min: '1s' } }), { name: 'TypeError', message: /got '1s'$/ })
  })

  test('functions', () => {
    assert.throws(make({ isFinal: 4403 }), { name: 'RangeError', message: "Option 'isFinal' must be a function, got 4403" })
    assert.throws(make({ token: 5 }), { name: 'RangeError', message: "Option 'token' must be a string or a function, got 5" })
    assert.throws(make({ token: {} }), { name: 'TypeError', message: /'token'/ })
    assert.throws(make({ WebSocket: 'ws' }), { name: 'TypeError', message: /'WebSocket'/ })
  })

  test('options of a call, a subscription, a loop and a collection', async (t) => {
    const { client, fake } = await openFake(t)
    const wrong = (value: unknown) => value as never
    for (const timeout of [NaN, -1]) await assert.rejects(client.call('add', 1, { timeout }), { name: 'RangeError', message: /'timeout'/ })
    await assert.rejects(client.call('add', 1, { timeout: wrong('2s') }), { name: 'TypeError', message: /'timeout'/ })
    await assert.rejects(client.call('add', 1, { signal: wrong({}) }), { name: 'TypeError', message: "Option 'signal' must be an AbortSignal, got {}" })
    await assert.rejects(client.ready({ signal: wrong('s') }), { name: 'TypeError', message: /'signal'/ })
    await assert.rejects(client.subscribe({ type: 'todo' }, { onResync: wrong(5) }), { name: 'RangeError', message: /'onResync'/ })
    await assert.rejects(client.subscribe({ type: 'todo' }, { signal: wrong(5) }), { name: 'RangeError', message: /'signal'/ })
    assert.throws(() => client.changes({ type: 'todo' }, { signal: wrong(5) }), { name: 'RangeError', message: /'signal'/ })
    assert.throws(() => client.live({ type: 'todo' }, wrong({})), { name: 'TypeError', message: "Option 'load' must be a function, got undefined" })
    assert.throws(() => client.live({ type: 'todo' }, { load: () => [], key: wrong('id') }), { name: 'TypeError', message: /'key'/ })
    assert.throws(() => client.live({ type: 'todo' }, { load: () => [], signal: wrong('s') }), { name: 'TypeError', message: /'signal'/ })

    assert.deepEqual(fake.last.requests, [])
  })
})

suite('0, Infinity and durations beyond the limit of timers mean never', () => {
  for (const never of [0, Infinity, 2 ** 31]) {
    test(String(never), async (t) => {
      stopClock(t)
      const fake = fakeSockets()
      const client = new RohrpostClient('ws://host', { WebSocket: fake.WebSocket, pingInterval: never, connectTimeout: never, disconnectWhenHidden: never })
      t.after(() => client.close())
      t.mock.timers.tick(2 ** 31)
      assert.equal(client.state, 'connecting')
      fake.last.open()
      const call = client.call('add', 1, { timeout: never })
      t.mock.timers.tick(2 ** 31)
      assert.deepEqual(fake.last.sent.map(({ type }) => type), ['ping', 'add'])
      fake.last.answer({ data: 2 })

      assert.equal(await call, 2)
    })
  }
})

test('one bound of `backoff` is enough, and the token is optional', (t) => {
  const stop = (make: () => RohrpostClient) => t.after(() => make().close())
  for (const backoff of [{ max: 100 }, { min: 60_000 }, {}, undefined]) stop(make({ backoff }))
  for (const token of [null, undefined, 'jwt', () => 'jwt']) stop(make({ token }))
})
