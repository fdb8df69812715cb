/** When the client comes, goes and comes back: time, chance and the other end are the test's. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { RohrpostClient, type ClientOptions, type StateChange } from '../../lib/client/index.ts'
import { isFinal } from '../../lib/client/socket.ts'
import { onWake } from '../../lib/client/wake.ts'
import { fakeSockets, settled } from './support/fake-socket.ts'

function dial (t: TestContext, options: ClientOptions = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  t.mock.method(Math, 'random', () => 0.5)
  const fake = fakeSockets()
  const client = new RohrpostClient('ws://host/ws/rohrpost', { WebSocket: fake.WebSocket, ...options })
  const changes: StateChange[] = []
  const events: string[] = []
  client.on('state', (_, change) => changes.push(change))
  for (const event of ['open', 'closed', 'reconnecting'] as const) client.on(event, () => events.push(event))
  return { client, fake, changes, events, tick: (ms: number) => t.mock.timers.tick(ms) }
}

test('says of every change of state why it came', (t) => {
  const { client, fake, changes, events, tick } = dial(t)

  assert.equal(client.state, 'connecting')
  fake.last.open()
  assert.equal(client.state, 'open')
  fake.last.end(1012, 'service restart')
  assert.equal(client.state, 'waiting')
  tick(750)
  assert.equal(client.state, 'connecting')
  client.close()
  assert.equal(client.state, 'closed')

  assert.deepEqual(changes, [
    { state: 'open', reason: 'opened' },
    { state: 'waiting', reason: 'lost', code: 1012, text: 'service restart', delay: 750 },
    { state: 'connecting', reason: 'retry' },
    { state: 'closed', reason: 'close' }
  ])
  fake.last.end()
  assert.deepEqual(events, ['open', 'closed', 'reconnecting', 'closed'])
})

suite('waits', () => {
  test('longer from attempt to attempt, at random between 500 ms and 20 s', (t) => {
    const { fake, changes, tick } = dial(t)
    for (let attempt = 0; attempt < 8; attempt++) {
      fake.last.end()
      tick(20_000)
    }

    const delays = changes.flatMap(({ delay }) => delay ?? [])
    assert.deepEqual(delays, [750, 1250, 2250, 4250, 8250, 10_250, 10_250, 10_250])
  })

  for (const [random, bounds] of [[0, [500, 500]], [0.999_999, [1000, 20_000]]] as const) {
    test(`within its bounds, whatever chance says (${random})`, (t) => {
      const { fake, changes, tick } = dial(t)
      t.mock.method(Math, 'random', () => random)
      for (let attempt = 0; attempt < 40; attempt++) {
        fake.last.end()
        tick(20_000)
      }

      const delays = changes.flatMap(({ delay }) => delay === undefined ? [] : Math.round(delay))
      assert.deepEqual([delays[0], delays.at(-1)], bounds)
    })
  }

  test('as it is told', (t) => {
    const { fake, changes, tick } = dial(t, { backoff: { min: 10, max: 30 } })
    fake.last.end()
    tick(15)
    fake.last.end()

    assert.deepEqual(changes.map(({ delay }) => delay), [15, undefined, 20])
  })

  test('shortly again only once the server was heard: one that lets in and throws out is no reason to hurry', (t) => {
    const { fake, changes, tick } = dial(t)
    for (const heard of [false, false, true]) {
      fake.last.open()
      if (heard) fake.last.receive({ type: 'pong', id: 1 })
      fake.last.end()
      tick(20_000)
    }

    assert.deepEqual(changes.flatMap(({ delay }) => delay ?? []), [750, 1250, 750])
  })
})

suite('the end of a connection', () => {
  const final = [4400, 4403, 4404, 4499]
  const passing = [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000, 4000, 4001, 4408, 4429, 4500, 4503]

  test('is for good with codes that mirror a client error', () => {
    for (const code of final) assert.ok(isFinal(code, true), String(code))
    for (const code of passing) assert.ok(!isFinal(code, true), String(code))
    assert.deepEqual([isFinal(4401, false), isFinal(4401, true)], [true, false])
  })

  test('for good settles what waits, with the code', async (t) => {
    const { client, fake, changes, events, tick } = dial(t)
    const ready = client.ready()
    fake.last.end(4403, 'Forbidden')

    await assert.rejects(ready, { message: 'closed by the server: 4403 Forbidden', code: 'closed' })
    await assert.rejects(client.call('add'), { code: 'closed' })
    await assert.rejects(client.subscribe({ type: 'todo', id: 5 }), { code: 'closed' })
    await assert.rejects(client.ready(), { code: 'closed' })
    assert.equal(await client.unsubscribe({ type: 'todo', id: 5 }), undefined)
    await assert.rejects(client.changes({ type: 'todo', id: 5 }).next(), { code: 'closed' })
    tick(60_000)
    assert.equal(fake.sockets.length, 1)
    assert.deepEqual(changes, [{ state: 'closed', reason: 'refused', code: 4403, text: 'Forbidden' }])
    assert.deepEqual(events, ['closed'])
  })

  test('is for good when the application says so', (t) => {
    const { client, fake, tick } = dial(t, { isFinal: (code, reason) => code === 1000 && reason === 'bye' })
    fake.last.end(1000)
    tick(20_000)
    fake.last.end(1000, 'bye')

    assert.equal(client.state, 'closed')
  })
})

suite('an attempt', () => {
  test('that takes too long is given up, and what it says later is ignored', (t) => {
    const { client, fake, changes, tick } = dial(t)
    const first = fake.last
    tick(10_000)
    assert.deepEqual(changes, [{ state: 'waiting', reason: 'slow', delay: 750 }])
    first.open()
    first.receive({ type: 'pong' })
    first.end()

    assert.equal(client.state, 'waiting')
    assert.deepEqual(first.closes, [undefined])
  })

  test('whose WebSocket can not be made fails at once the first time, and later waits', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    assert.throws(() => new RohrpostClient('no url', { WebSocket: class extends WebSocket {} }), { name: 'SyntaxError' })

    const fake = fakeSockets()
    let broken = false
    const error = new Error('no more sockets')
    const client = new RohrpostClient('ws://host', {
      WebSocket: class extends fake.WebSocket {
        constructor (url: string) {
          if (broken) throw error
          super(url)
        }
      }
    })
    t.after(() => client.close())
    const errors: unknown[] = []
    client.on('error', (...args) => errors.push(args))
    broken = true
    fake.last.end()
    t.mock.timers.tick(1000)

    assert.equal(client.state, 'waiting')
    assert.deepEqual(errors, [['Error: no more sockets', error]])
  })

  test('asks the token function first, and waits if that fails', async (t) => {
    const tokens: (string | Error)[] = ['one', new Error('no token today'), 'two']
    const { client, fake, changes, tick } = dial(t, {
      token: async () => {
        const token = tokens.shift()
        if (token instanceof Error) throw token
        return token
      }
    })
    const errors: string[] = []
    client.on('error', (text) => errors.push(text))
    assert.equal(fake.sockets.length, 0)
    await settled()
    fake.last.open()
    client.call('who').catch(() => {})
    assert.equal(fake.last.requests[0]?.auth_jwt, 'one')

    fake.last.end()
    tick(750)
    await settled()
    assert.deepEqual(changes.slice(2).map(({ state, reason }) => [state, reason]), [['connecting', 'retry'], ['waiting', 'token']])
    assert.deepEqual(errors, ['Error: no token today'])

    tick(2000)
    await settled()
    fake.last.open()
    client.call('who').catch(() => {})
    assert.equal(fake.last.requests[0]?.auth_jwt, 'two')
    client.close()
  })

  test('whose token comes too late is not made', async (t) => {
    const asked: PromiseWithResolvers<string>[] = []
    const { client, fake, tick } = dial(t, {
      token: () => {
        const token = Promise.withResolvers<string>()
        asked.push(token)
        return token.promise
      }
    })
    await settled()
    tick(10_000)
    asked[0]?.reject(new Error('late'))
    await settled()
    assert.equal(fake.sockets.length, 0)
    tick(750)
    await settled()
    client.close()
    asked[1]?.resolve('late')
    await settled()

    assert.equal(fake.sockets.length, 0)
    assert.equal(client.state, 'closed')
  })

  test('whose WebSocket can not be made after the token came waits too', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const client = new RohrpostClient('no url', { token: () => 'one' })
    t.after(() => client.close())
    await settled()

    assert.equal(client.state, 'waiting')
  })
})

suite('close', () => {
  test('while open ends the connection with 1000, and hears nothing more', (t) => {
    const { client, fake, events } = dial(t)
    fake.last.open()
    client.on('message', () => assert.fail('it listened'))
    client.close()
    client.close()
    fake.last.receive({ type: 'pong' })
    fake.last.end(1000)

    assert.deepEqual(fake.last.closes, [1000])
    assert.deepEqual(events, ['open', 'closed'])
  })

  test('while connecting never opens', (t) => {
    const { client, fake, events } = dial(t)
    client.close()
    fake.last.open()
    fake.last.end()

    assert.deepEqual(events, ['closed'])
  })

  test('while waiting ends the wait', async (t) => {
    const { client, fake, events, tick } = dial(t)
    fake.last.end()
    client.close()
    await settled()
    tick(60_000)

    assert.equal(fake.sockets.length, 1)
    assert.deepEqual(events, ['closed', 'closed'])
  })

  for (const state of ['open', 'waiting', 'connecting'] as const) {
    test(`from a listener of '${state}' leaves nothing behind`, (t) => {
      const { client, fake, tick } = dial(t)
      client.on('state', (name) => {
        if (name === state) client.close()
      })
      fake.last.open()
      fake.last.end()
      tick(60_000)

      assert.equal(client.state, 'closed')
      assert.equal(fake.sockets.length, 1)
    })
  }

  test('from a listener of a message leaves it at that', (t) => {
    const { client, fake } = dial(t)
    client.on('message', () => client.close()).on('error', () => assert.fail('the message was worked off'))
    fake.last.open()
    fake.last.receive({ id: 5, type: 'none' })

    assert.equal(client.state, 'closed')
  })
})

suite('the network, or the tab, is back', () => {
  /** The global scope of a browser. */
  function enter (t: TestContext) {
    const scope = Object.assign(new EventTarget(), { document: Object.assign(new EventTarget(), { visibilityState: 'hidden' }) })
    const before = Object.getOwnPropertyDescriptors(globalThis)
    for (const name of ['addEventListener', 'removeEventListener'] as const) {
      Object.defineProperty(globalThis, name, { value: scope[name].bind(scope), configurable: true })
    }
    Object.defineProperty(globalThis, 'document', { value: scope.document, configurable: true })
    t.after(() => {
      for (const name of ['addEventListener', 'removeEventListener', 'document'] as const) {
        const own = Object.hasOwn(before, name) ? before[name] : undefined
        if (own === undefined) Reflect.deleteProperty(globalThis, name)
        else Object.defineProperty(globalThis, name, own)
      }
    })
    return {
      online: () => scope.dispatchEvent(new Event('online')),
      show (visibilityState: 'visible' | 'hidden') {
        scope.document.visibilityState = visibilityState
        scope.document.dispatchEvent(new Event('visibilitychange'))
      }
    }
  }

  test('ends a wait, but not sooner than the shortest wait after the last attempt', (t) => {
    const { online, show } = enter(t)
    const { fake, changes, tick } = dial(t)
    for (let attempt = 0; attempt < 6; attempt++) {
      fake.last.end()
      tick(20_000)
    }
    assert.equal(fake.sockets.length, 7)
    tick(100)
    fake.last.end()

    for (let storm = 0; storm < 100; storm++) online()
    tick(399)
    assert.equal(fake.sockets.length, 7)
    tick(1)
    assert.equal(fake.sockets.length, 8)
    assert.deepEqual(changes.at(-1), { state: 'connecting', reason: 'wake' })

    fake.last.end()
    tick(1000)
    show('hidden')
    tick(0)
    assert.equal(fake.sockets.length, 8)
    show('visible')
    tick(0)
    assert.equal(fake.sockets.length, 9)
  })

  test('asks an open line for a sign of life, once', (t) => {
    const { online, show } = enter(t)
    const { client, fake, tick } = dial(t)
    fake.last.open()
    fake.last.receive({ type: 'pong', id: 1 })
    tick(4000)
    show('visible')
    online()
    assert.equal(fake.last.sent.length, 2)
    tick(5000)

    assert.equal(client.state, 'waiting')
  })

  test('means nothing to a client that is connecting, or closed', (t) => {
    const { online } = enter(t)
    const { client, fake, tick } = dial(t)
    online()
    client.close()
    online()
    tick(60_000)

    assert.equal(fake.sockets.length, 1)
  })

  test('is nothing that a runtime without network events tells', () => {
    onWake(() => assert.fail('it did'), {})()
  })
})
