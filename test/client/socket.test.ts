/** Connecting, closing and reconnecting; the test controls time, random numbers and the server. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { RohrpostClient, type ClientOptions, type StateChange, type UrlSource } from '../../lib/client/index.ts'
import { isFinalCode } from '../../lib/client/socket.ts'
import { watchPage } from '../../lib/client/page-events.ts'
import { fakeSockets, settled } from './support/fake-socket.ts'
import { stopClock } from './support/open.ts'

function dial (t: TestContext, options: ClientOptions = {}) {
  stopClock(t)
  t.mock.method(Math, 'random', () => 0.5)
  return dialAgain(t, options)
}

/** Creates another client with the same mocked clock. */
function dialAgain (t: TestContext, options: ClientOptions = {}, url: UrlSource = 'ws://host/ws/rohrpost') {
  const fake = fakeSockets()
  const client = new RohrpostClient(url, { WebSocket: fake.WebSocket, ...options })
  t.after(() => client.close())
  const changes: StateChange[] = []
  const events: string[] = []
  client.on('state', (_, change) => changes.push(change))
  for (const event of ['open', 'closed', 'reconnecting'] as const) client.on(event, () => events.push(event))
  return { client, fake, changes, events, tick: (ms: number) => t.mock.timers.tick(ms) }
}

/** The global scope of a browser. */
function enter (t: TestContext, visibilityState: 'visible' | 'hidden' = 'visible') {
  const scope = Object.assign(new EventTarget(), { document: Object.assign(new EventTarget(), { hidden: visibilityState === 'hidden' }) })
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
    offline: () => scope.dispatchEvent(new Event('offline')),
    show (visibilityState: 'visible' | 'hidden') {
      scope.document.hidden = visibilityState === 'hidden'
      scope.document.dispatchEvent(new Event('visibilitychange'))
    }
  }
}

test('reports the reason of each state change', (t) => {
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

suite('the retry delay', () => {
  test('grows with each attempt, randomly between 500 ms and 20 s', (t) => {
    const { fake, changes, tick } = dial(t)
    for (let attempt = 0; attempt < 8; attempt++) {
      fake.last.end()
      tick(20_000)
    }

    const delays = changes.flatMap(({ delay }) => delay ?? [])
    assert.deepEqual(delays, [750, 1250, 2250, 4250, 8250, 10_250, 10_250, 10_250])
  })

  for (const [random, bounds] of [[0, [500, 500]], [0.999_999, [1000, 20_000]]] as const) {
    test(`stays within its bounds for any random number (${random})`, (t) => {
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

  test('follows the option `backoff`', (t) => {
    const { fake, changes, tick } = dial(t, { backoff: { min: 10, max: 30 } })
    fake.last.end()
    tick(15)
    fake.last.end()

    assert.deepEqual(changes.map(({ delay }) => delay), [15, undefined, 20])
  })

  test('is short again only after a connection that received messages for a while, not after one that was refused', (t) => {
    const { fake, changes, tick } = dial(t)
    for (const open of [0, 0, 4999, 5000]) {
      fake.last.open()
      fake.last.receive({ type: 'pong', id: 1 })
      tick(open)
      fake.last.receive({ error: 'The token has expired.', code: 'token_expired' })
      fake.last.end()
      tick(20_000)
    }

    assert.deepEqual(changes.flatMap(({ delay }) => delay ?? []), [750, 1250, 2250, 750])
  })

  test('is at least the one in the close reason, also when the network returns', (t) => {
    const { client, fake, changes, tick } = dial(t)
    const { online } = enter(t)
    fake.last.end(1013, 'maintenance, retry_after=60000')
    const { delay } = changes[0] ?? {}
    const other = dialAgain(t)
    other.fake.last.end(1013, 'retry_after=60000')
    online()
    tick(59_999)
    assert.deepEqual([client.state, other.client.state], ['waiting', 'waiting'])
    tick(1)

    assert.equal(delay, 60_750)
    assert.deepEqual([client.state, other.client.state], ['waiting', 'connecting'])
    tick(750)
    assert.equal(client.state, 'connecting')
    other.fake.last.end(1013, 'retry_after=99999999999')
    assert.equal(other.changes.at(-1)?.delay, 2 ** 31 - 1)
  })
})

suite('the end of a connection', () => {
  const final = [4400, 4403, 4404, 4499]
  const passing = [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000, 4000, 4001, 4408, 4429, 4500, 4503]

  test('is final with codes that mirror a client error of HTTP', () => {
    for (const code of final) assert.ok(isFinalCode(code, true), String(code))
    for (const code of passing) assert.ok(!isFinalCode(code, true), String(code))
    assert.deepEqual([isFinalCode(4401, false), isFinalCode(4401, true)], [true, false])
  })

  test('that is final settles waiting promises, with the code', async (t) => {
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

  test('is final if the option `isFinal` says so', (t) => {
    const { client, fake, tick } = dial(t, { isFinal: (code, reason) => code === 1000 && reason === 'bye' })
    fake.last.end(1000)
    tick(20_000)
    fake.last.end(1000, 'bye')

    assert.equal(client.state, 'closed')
  })
})

suite('an attempt', () => {
  test('that takes too long is dropped, and its later events are ignored', (t) => {
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

  test('whose WebSocket constructor throws fails the constructor of the client, and later delays the next attempt', (t) => {
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

  test('calls the token function first, and is delayed if that fails', async (t) => {
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

  test('whose token arrives too late opens no connection', async (t) => {
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

  test('whose WebSocket constructor throws after the token arrived delays the next one too', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const client = new RohrpostClient('no url', { token: () => 'one' })
    t.after(() => client.close())
    await settled()

    assert.equal(client.state, 'waiting')
  })
})

suite('close', () => {
  test('while open ends the connection with 1000, and ignores further messages', (t) => {
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

  test('while waiting cancels the next attempt', async (t) => {
    const { client, fake, events, tick } = dial(t)
    fake.last.end()
    client.close()
    await settled()
    tick(60_000)

    assert.equal(fake.sockets.length, 1)
    assert.deepEqual(events, ['closed', 'closed'])
  })

  for (const state of ['open', 'waiting', 'connecting'] as const) {
    test(`from a listener of '${state}' leaves no timers and sockets`, (t) => {
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

  test('from a listener of a message stops the handling of it', (t) => {
    const { client, fake } = dial(t)
    client.on('message', () => client.close()).on('error', () => assert.fail('the message was worked off'))
    fake.last.open()
    fake.last.receive({ id: 5, type: 'none' })

    assert.equal(client.state, 'closed')
  })
})

suite('the return of the network or the tab', () => {
  test('ends the delay, but not earlier than the shortest delay after the last attempt', (t) => {
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

  test('sends one ping on an open connection', (t) => {
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

  test('has no effect on a closed client', (t) => {
    const { online } = enter(t)
    const { client, fake, tick } = dial(t)
    client.close()
    online()
    tick(60_000)

    assert.equal(fake.sockets.length, 1)
  })

  test('drops an attempt of the old network, and gives each next one twice the time', (t) => {
    const { online } = enter(t)
    const { client, fake, changes, tick } = dial(t)
    tick(100)
    online()
    online()
    tick(399)
    assert.equal(fake.sockets.length, 1)
    tick(1)
    assert.equal(fake.sockets.length, 2)
    assert.deepEqual(changes.map(({ state, reason }) => [state, reason]), [['waiting', 'wake'], ['connecting', 'wake']])
    for (const time of [1000, 2000, 4000, 8000, 10_000]) {
      const count: number = fake.sockets.length
      for (let passed = 0; passed < time; passed += 100) {
        assert.equal(fake.sockets.length, count)
        online()
        tick(100)
      }
    }
    fake.last.open()

    assert.equal(client.state, 'open')
    assert.ok(fake.sockets.slice(0, -1).every(({ closes }) => closes.length === 1))
  })

  test('does not delay the detection of a dead connection, even if repeated', (t) => {
    const { online } = enter(t)
    const { client, fake, tick } = dial(t)
    fake.last.open()
    fake.last.receive({ type: 'pong', id: 1 })
    tick(5000)
    assert.equal(fake.last.sent.length, 2)
    for (let passed = 0; passed < 5000; passed += 500) {
      assert.equal(client.state, 'open')
      online()
      tick(500)
    }

    assert.equal(client.state, 'waiting')
  })

  test('starts an attempt earlier even if the system clock was set back', (t) => {
    const { online } = enter(t)
    const { fake, tick } = dial(t)
    fake.last.end()
    tick(600)
    t.mock.method(Date, 'now', () => -3_600_000)
    t.mock.method(performance, 'now', () => 600)
    online()
    tick(0)

    assert.equal(fake.sockets.length, 2)
  })

  test('is not reported by a runtime without network events', () => {
    const fail = () => assert.fail('it did')
    watchPage(fail, fail, () => {}, fail, 0)()
  })
})

suite('the loss of the network', () => {
  test('ends a connection, or an attempt, immediately', (t) => {
    const { offline } = enter(t)
    const { client, fake, changes, tick } = dial(t)
    offline()
    offline()
    tick(750)
    fake.last.open()
    offline()

    assert.equal(client.state, 'waiting')
    assert.deepEqual(changes.map(({ reason }) => reason), ['offline', 'retry', 'opened', 'offline'])
    assert.deepEqual(fake.sockets.map(({ closes }) => closes), [[undefined], [undefined]])
  })
})

suite('a hidden page', () => {
  test('closes its connection after a while, and connects again when it is shown', (t) => {
    const { show } = enter(t)
    const { client, fake, changes, tick } = dial(t, { disconnectWhenHidden: 10_000 })
    fake.last.open()
    fake.last.receive({ type: 'pong', id: 1 })
    show('hidden')
    tick(9999)
    show('visible')
    show('hidden')
    for (let passed = 0; passed < 10_000; passed += 2500) {
      assert.equal(client.state, 'open')
      fake.last.receive({ type: 'pong', id: 1 })
      tick(2500)
    }
    assert.deepEqual([client.state, client.socketState], ['idle', 'closed'])
    tick(60_000)
    assert.equal(fake.sockets.length, 1)
    show('visible')

    assert.equal(client.state, 'connecting')
    assert.deepEqual(changes.map(({ state, reason }) => [state, reason]), [['open', 'opened'], ['idle', 'hidden'], ['connecting', 'wake']])
    assert.deepEqual(fake.sockets[0]?.closes, [undefined])
  })

  test('that was hidden from the start closes its connection too, makes no attempts, and may connect', (t) => {
    const { show } = enter(t, 'hidden')
    const { client, fake, tick } = dial(t, { disconnectWhenHidden: 100 })
    fake.last.end()
    tick(100)
    assert.equal(client.state, 'idle')
    client.connect()
    assert.equal(client.state, 'connecting')
    show('visible')
    show('hidden')
    client.close()
    tick(1000)

    assert.equal(client.state, 'closed')
  })

  test('keeps its connection by default, and opens none that it did not have', (t) => {
    const { show } = enter(t)
    const { client, fake, tick } = dial(t)
    const other = dialAgain(t, { autoConnect: false, disconnectWhenHidden: 10 })
    fake.last.open()
    show('hidden')
    tick(4000)
    show('visible')

    assert.deepEqual([client.state, other.client.state], ['open', 'idle'])
    fake.last.end(4403)
    tick(60_000)
    assert.equal(client.state, 'closed')
  })
})

suite('the application', () => {
  test('may connect later, and again at any time', (t) => {
    const { client, fake, changes, tick } = dial(t, { autoConnect: false })
    assert.deepEqual([client.state, client.socketState, fake.sockets.length], ['idle', 'closed', 0])
    tick(60_000)
    client.connect()
    client.connect()
    assert.equal(fake.sockets.length, 1)
    fake.last.open()
    client.connect()
    fake.last.end()
    client.connect()
    assert.equal(fake.sockets.length, 2)
    client.close()
    client.connect()
    client.reconnect()

    assert.equal(fake.sockets.length, 2)
    assert.deepEqual(changes.map(({ state, reason }) => [state, reason]), [
      ['connecting', 'connect'], ['open', 'opened'], ['waiting', 'lost'], ['connecting', 'connect'], ['closed', 'close']
    ])
  })

  test('may reconnect in any state', async (t) => {
    const { client, fake, tick } = dial(t)
    client.reconnect()
    fake.last.open()
    const call = client.call('add')
    client.reconnect()
    await assert.rejects(call, { code: 'connection_lost', cause: 'reconnect' })
    fake.last.end()
    client.reconnect()
    assert.equal(fake.sockets.length, 4)
    client.once('state', () => client.close())
    client.reconnect()
    tick(60_000)

    assert.equal(fake.sockets.length, 4)
    assert.deepEqual(fake.sockets.map(({ closes }) => closes.length), [1, 1, 0, 1])
  })

  test('may provide the URL for each attempt, and the attempt waits for it', async (t) => {
    const urls: (string | URL | Error)[] = ['ws://one', new URL('ws://two'), new Error('no address'), 'no address']
    stopClock(t)
    const { client, fake, changes, tick } = dialAgain(t, {}, async () => {
      const url = urls.shift() ?? 'ws://last'
      if (url instanceof Error) throw url
      return url
    })
    await settled()
    for (let n = 0; n < 3; n++) {
      fake.last.end()
      tick(20_000)
      await settled()
    }

    assert.deepEqual(fake.sockets.map(({ url }) => url), ['ws://one', 'ws://two/', 'no address'])
    assert.deepEqual(changes.filter(({ cause }) => cause !== undefined).map(({ reason, cause }) => [reason, String(cause)]), [['url', 'Error: no address']])
    client.close()
  })
})

suite('a token function', () => {
  test('that never settles is called again by the next attempt, and a late answer is ignored', async (t) => {
    const asked: PromiseWithResolvers<string>[] = []
    const { fake, changes, client, tick } = dial(t, {
      token: () => {
        const token = Promise.withResolvers<string>()
        asked.push(token)
        return token.promise
      }
    })
    tick(10_000)
    tick(750)
    assert.equal(asked.length, 2)
    asked[1]?.resolve('good')
    await settled()
    asked[0]?.resolve('late')
    await settled()
    fake.last.open()
    client.call('who').catch(() => {})

    assert.equal(fake.last.requests[0]?.auth_jwt, 'good')
    assert.deepEqual(changes.map(({ reason }) => reason), ['slow', 'retry', 'opened'])
  })

  test('that never settles on an open connection is called again too', async (t) => {
    const asked: PromiseWithResolvers<string>[] = []
    const { client, fake, tick } = dial(t, {
      pingInterval: 0,
      token: () => {
        const token = Promise.withResolvers<string>()
        asked.push(token)
        return token.promise
      }
    })
    asked[0]?.resolve('old')
    await settled()
    fake.last.open()
    const expire = () => {
      const call = client.call('who', null, { timeout: 60_000 })
      fake.last.answer({ error: 'expired', code: 'token_expired' })
      return call
    }
    const hangs = expire()
    tick(9999)
    expire().catch(() => {})
    assert.equal(asked.length, 2)
    tick(1)
    const answered = expire()
    assert.equal(asked.length, 3)
    asked[2]?.resolve('new')
    await settled()
    fake.last.receive({ id: 3, data: 'me' })

    assert.equal(await answered, 'me')
    tick(60_000)
    await assert.rejects(hangs, { code: 'timeout' })
  })
})

suite('a large message on a slow connection', () => {
  test('that the server announced does not count as silence while it may take', (t) => {
    const { client, fake, tick } = dial(t)
    fake.last.open()
    fake.last.receive({ type: 'pong', id: 1 })
    fake.last.receive({ type: 'incoming', bytes: 140_000 })
    tick(14_999)
    assert.equal(client.state, 'open')
    tick(5001)

    assert.equal(client.state, 'waiting')
  })

  test('that the client sends does not count as silence until a later ping is answered', (t) => {
    const { client, fake, tick } = dial(t)
    fake.last.open()
    fake.last.receive({ type: 'pong', id: 1 })
    client.call('save', 'x'.repeat(200_000)).catch(() => {})
    tick(15_000)
    assert.equal(client.state, 'open')
    fake.last.receive({ type: 'pong', id: 1 })
    tick(5000)
    tick(5000)

    assert.equal(client.state, 'waiting')
  })

  test('keeps the connection as long as the unsent bytes decrease', (t) => {
    const { client, fake, tick } = dial(t)
    fake.last.open()
    for (const bufferedAmount of [300, 200, 100]) {
      if (bufferedAmount === 300) fake.last.receive({ type: 'news' })
      Object.assign(fake.last, { bufferedAmount })
      tick(5000)
    }
    assert.equal(client.state, 'open')
    tick(5000)

    assert.equal(client.state, 'waiting')
  })
})

suite('a connection that cannot be opened', () => {
  test('reports the cause that the WebSocket gives, and warns once on the console', (t) => {
    const warn = t.mock.method(console, 'warn', () => {})
    const { client, fake, changes, tick } = dial(t)
    const errors: string[] = []
    client.on('error', (text) => errors.push(text))
    const told = new Error('Unexpected server response: 404')
    const silent = new TypeError('')
    for (const event of [{ error: told, message: told.message }, { error: silent, message: '' }, {}]) {
      fake.last.end(1006, '', event)
      tick(20_000)
    }

    const causes = changes.filter(({ state }) => state === 'waiting').map(({ cause }) => cause)
    assert.equal(causes[0], told)
    assert.deepEqual([String(causes[1]), (causes[1] as Error).cause], ['Error: no WebSocket at this URL', silent])
    assert.equal(causes[2], undefined)
    assert.deepEqual(errors, [String(told), 'Error: no WebSocket at this URL'])
    assert.deepEqual(warn.mock.calls.map(({ arguments: [text] }) => text), [`rohrpost: could not connect, trying again: ${told}`])
  })

  test('writes nothing to the console in production', (t) => {
    const warn = t.mock.method(console, 'warn', () => {})
    const { NODE_ENV } = process.env
    t.after(() => {
      if (NODE_ENV === undefined) delete process.env.NODE_ENV
      else process.env.NODE_ENV = NODE_ENV
    })
    process.env.NODE_ENV = 'production'
    const { fake } = dial(t)
    fake.last.end(1006, '', { error: new Error('refused'), message: 'refused' })

    assert.equal(warn.mock.callCount(), 0)
  })

  test('writes nothing without `process`, and nothing after a connection was open', (t) => {
    const warn = t.mock.method(console, 'warn', () => {})
    const refused = { error: new Error('refused'), message: 'refused' }
    const { process } = globalThis
    const [open, bare] = [dial(t), dialAgain(t)]
    open.fake.last.open()
    open.fake.last.end(1006, '', refused)
    Object.assign(globalThis, { process: undefined })
    try {
      bare.fake.last.end(1006, '', refused)
    } finally {
      Object.assign(globalThis, { process })
    }

    assert.equal(warn.mock.callCount(), 0)
  })
})
