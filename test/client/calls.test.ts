import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { RohrpostError, type RohrpostClient } from '../../lib/client/index.ts'
import { connect, next, serve } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openFake } from './support/open.ts'

suite('without a connection', () => {
  test('a call rejects immediately, and nothing is sent later', async (t) => {
    const { client, fake, drop, reopen } = await openFake(t)
    await drop()

    await assert.rejects(client.call('add'), { message: 'not connected: see options wait and timeout', code: 'offline', retry: true })

    await reopen()
    assert.deepEqual(fake.last.requests, [])
  })

  test('`ready()` waits, for one caller or several', async (t) => {
    const server = await serve(t, { with: (app) => app.rohrpost.handle('add', () => 3) })
    const client = connect(t, server)

    await Promise.all([client.ready(), client.ready()])
    await client.ready()

    assert.equal(await client.call('add'), 3)
  })

  test('waiting ends when the signal aborts or the client closes', async (t) => {
    const { client, drop } = await openFake(t)
    await drop()
    const controller = new AbortController()
    const aborted = client.ready({ signal: controller.signal })
    const closed = client.ready()

    controller.abort(new Error('enough'))
    await assert.rejects(aborted, { message: 'enough' })
    await assert.rejects(client.ready({ signal: controller.signal }), { message: 'enough' })
    client.close()
    await assert.rejects(closed, { message: 'Socket was closed', code: 'closed' })
    await assert.rejects(client.call('add'), { message: 'Socket was closed', code: 'closed' })
  })
})

suite('a call with the option `wait`', () => {
  test('is sent when the connection opens within its timeout', async (t) => {
    const { client, fake, drop, reopen } = await openFake(t, { backoff: { max: 1000 } })
    await drop()
    const call = client.call('add', 1, { wait: true, timeout: 60_000 })
    await reopen()
    await settled()
    fake.last.answer({ data: 2 })

    assert.equal(await call, 2)
  })

  test('rejects at the timeout, the abort or the close of the client, and sends nothing', async (t) => {
    const { client, fake, drop, reopen, tick } = await openFake(t)
    await drop()
    const controller = new AbortController()
    const late = client.call('add', 1, { wait: true, timeout: 100 })
    const aborted = client.call('add', 1, { wait: true, signal: controller.signal })
    controller.abort(new Error('enough'))
    tick(100)
    await assert.rejects(late, { message: 'not connected: see options wait and timeout', code: 'offline', retry: true })
    await assert.rejects(aborted, { message: 'enough' })
    await reopen()
    await settled()
    assert.deepEqual(fake.last.requests, [])
    await drop()
    const closed = client.call('add', 1, { wait: true })
    client.close()

    await assert.rejects(closed, { code: 'closed' })
  })

  test('keeps waiting if the connection is lost before it is sent', async (t) => {
    const { client, fake, drop, reopen } = await openFake(t, { backoff: { max: 1000 } })
    await drop()
    const call = client.call('add', 1, { wait: true, timeout: 0 })
    client.once('state', () => client.once('state', () => client.reconnect()))
    await reopen()
    await settled()
    assert.deepEqual(fake.last.requests, [])
    fake.last.open()
    await settled()
    fake.last.answer({ data: 2 })

    assert.equal(await call, 2)
  })
})

suite('a message above the limit of the server', () => {
  const pong = (more: object = {}) => ({ type: 'pong', id: 99, ...more })

  test('is not sent, and no other request fails', async (t) => {
    const { client, fake } = await openFake(t)
    fake.last.receive(pong({ limits: { max_payload: 60 } }))
    const fits = client.call('save', 'x'.repeat(14))
    assert.equal(fake.last.requests.length, 1)

    await assert.rejects(client.call('save', 'é'.repeat(8)), { message: 'too large: 62 bytes, the server takes 60', code: 'too_large', retry: false })
    await assert.rejects(client.subscribe({ type: 'todo', id: 'x'.repeat(60) }), { code: 'too_large' })
    fake.last.receive({ id: 1, type: 'save', data: 'saved' })
    assert.equal(await fits, 'saved')
    assert.equal(fake.last.requests.length, 1)
  })

  test('waits until the server has announced its limit, as do later messages', async (t) => {
    const { client, fake, drop, reopen } = await openFake(t)
    const small = client.call('one')
    const controller = new AbortController()
    const calls = [client.call('two', 'x'.repeat(5000)), client.call('three', 3), client.call('four', 4, { signal: controller.signal })]
    const results = Promise.allSettled([small, ...calls])
    assert.deepEqual(fake.last.requests.map(({ type }) => type), ['one'])
    fake.last.receive({ id: 1, type: 'pong' })
    controller.abort()
    await settled()
    fake.last.receive(pong({ limits: { max_payload: 5000 } }))
    assert.deepEqual(fake.last.requests.map(({ type }) => type), ['one', 'three'])
    await drop()

    assert.deepEqual((await results).map((result) => result.status === 'rejected' && result.reason.code), [false, 'too_large', 'connection_lost', 20])
    await reopen()
    client.call('five', 'x'.repeat(4900)).catch(() => {})
    assert.equal(fake.last.requests.length, 1)
  })

  test('is sent to a server that answers without a limit', async (t) => {
    for (const answer of [pong(), pong({ limits: 5 }), { type: 'ping', id: 99, error: 'Too many messages.' }]) {
      const { client, fake, tick } = await openFake(t)
      const call = client.call('save', 'x'.repeat(5000), { timeout: 60_000 })
      assert.equal(fake.last.requests.length, 0)
      fake.last.receive(answer)
      assert.equal(fake.last.requests.length, 1)
      tick(5000)
      assert.deepEqual(fake.last.sent.filter(({ type }) => type === 'ping').map(({ hello }) => hello), [true, undefined])
      fake.last.end(1009, 'too big')

      await assert.rejects(call, { code: 'connection_lost', cause: '1009 too big' })
      t.mock.reset()
      t.mock.timers.reset()
    }
  })

  test('is rejected with the limit of a real server', async (t) => {
    const server = await serve(t, { maxPayload: 10_000, with: (app) => app.rohrpost.handle('save', ({ data }) => String(data).length) })
    const client = connect(t, server)
    const closed = () => assert.fail('the connection was lost')
    client.on('closed', closed)
    await client.ready()
    const results = await Promise.allSettled([client.call('save', 'x'.repeat(12_000)), client.call('save', 'x'.repeat(9000)), client.call('save', '')])

    client.off('closed', closed)
    assert.deepEqual(results.map((result) => result.status === 'rejected' ? result.reason.code : result.value), ['too_large', 9000, 0])
  })
})

suite('an error', () => {
  test('has `retryAfter` if the server sends a number', async (t) => {
    const { client, fake } = await openFake(t)
    for (const [told, expected] of [[500, 500], ['500', undefined]]) {
      const call = client.call('add')
      fake.last.answer({ error: 'Not now.', retry: true, retry_after: told })
      await assert.rejects(call, { retry: true, retryAfter: expected })
    }
  })
})

suite('await using', () => {
  test('has closed the connection when the block ends', async (t) => {
    const server = await serve(t, { with: (app) => app.rohrpost.handle('add', () => 3) })
    let used: RohrpostClient | undefined
    {
      await using client = connect(t, server)
      used = client
      assert.equal(await client.call('add', null, { wait: true }), 3)
    }
    assert.equal(used.state, 'closed')
    await used[Symbol.asyncDispose]()
    while (server.app.rohrpost.connections.size > 0) await settled()
  })
})

suite('a call', () => {
  test('rejects when its signal aborts', async (t) => {
    const { client, fake, errors } = await openFake(t)
    const controller = new AbortController()
    const call = client.call('add', {}, { signal: controller.signal })

    controller.abort(new Error('enough'))
    await assert.rejects(call, { message: 'enough' })
    fake.last.answer()

    assert.deepEqual(errors, [['no saved request with id: 1', undefined]])
    await assert.rejects(client.call('add', {}, { signal: controller.signal }), { message: 'enough' })
    assert.equal(fake.last.requests.length, 1)
  })

  test('rejects with all fields of the error message', async (t) => {
    const { client, fake } = await openFake(t)
    const call = client.call('add')
    fake.last.answer({ error: 'Not now.', code: 'unavailable', retry: true, data: { seconds: 5 }, error_id: 'e1' })

    await assert.rejects(call, (error: RohrpostError) => {
      const { name, message, code, retry, data, errorId, cause } = error
      assert.deepEqual({ name, message, code, retry, data, errorId, cause }, {
        name: 'RohrpostError', message: 'Not now.', code: 'unavailable', retry: true, data: { seconds: 5 }, errorId: 'e1', cause: undefined
      })
      return true
    })
  })

  test('shows an error of the original that is not a text as JSON', async (t) => {
    const { client, fake } = await openFake(t)
    const call = client.call('add')
    fake.last.answer({ error: { a: ['is required'] }, code: 5 })

    await assert.rejects(call, { message: '{"a":["is required"]}', code: undefined, retry: false })
  })

  test('rejects data without a JSON form, and the client keeps working', async (t) => {
    const { client, fake } = await openFake(t)

    await assert.rejects(client.call('add', 5n), TypeError)
    const call = client.call('add', 5)
    fake.last.answer({ data: 6 })

    assert.equal(await call, 6)
  })

  test('of `ping` resolves with the pong', async (t) => {
    const { client, fake } = await openFake(t)
    const call = client.call('ping', [1])
    fake.last.receive({ id: 1, type: 'pong', data: [1] })

    assert.deepEqual(await call, [1])
  })

  test('is settled exactly once', async (t) => {
    const { client, fake, tick, drop } = await openFake(t)
    const controller = new AbortController()
    const call = client.call('add', {}, { signal: controller.signal })
    fake.last.answer({ data: 1 })
    controller.abort()
    tick(5000)
    await drop()

    assert.equal(await call, 1)
  })
})

suite('a message', () => {
  test('that is not JSON emits `error`, and the client keeps working', async (t) => {
    const { client, fake, errors } = await openFake(t)
    fake.last.receive('{')

    assert.equal(errors[0]?.[0], 'not JSON: {')
    assert.ok(errors[0]?.[1] instanceof SyntaxError)
    assert.equal(client.state, 'open')
  })

  for (const message of ['null', '5', '[]', '{"type":"news"}', '{"type":"subscription-update"}', '{"type":"incoming"}', '{"position":7}']) {
    test(`that answers no request is passed to the application: ${message}`, async (t) => {
      const { client, fake, errors } = await openFake(t)
      const heard = next(client, 'message')
      fake.last.receive(message)

      assert.deepEqual(await heard, [JSON.parse(message)])
      assert.deepEqual(errors, [])
    })
  }

  test('with an id that is not a text is shown as JSON', async (t) => {
    const { fake, errors } = await openFake(t)
    fake.last.receive({ id: { toString: 1 } })

    assert.deepEqual(errors, [['no saved request with id: {"toString":1}', undefined]])
  })

  test('with an error that belongs to no request emits it', async (t) => {
    const { fake, errors } = await openFake(t)
    fake.last.receive({ error: 'Received empty message.', code: 'empty_message' })

    const [text, cause] = errors[0] ?? []
    assert.equal(text, 'Received empty message.')
    assert.ok(cause instanceof RohrpostError)
    assert.deepEqual([cause.message, cause.code], ['Received empty message.', 'empty_message'])
  })
})

suite('a token', () => {
  const expired = { error: 'The token has expired.', code: 'token_expired' }

  test("is '' when there is none, and left out when it is undefined", async (t) => {
    for (const [options, fields] of [[{}, { auth_jwt: '' }], [{ token: undefined }, {}], [{ token: 'jwt' }, { auth_jwt: 'jwt' }]] as const) {
      const { client, fake } = await openFake(t, options)
      client.call('add', 5).catch(() => {})

      assert.deepEqual(fake.last.requests, [{ id: 1, type: 'add', ...fields, data: 5 }])
      t.mock.timers.reset()
    }
  })

  test('that has expired is renewed once for all requests, which are sent again', async (t) => {
    let asked = 0
    const { client, fake } = await openFake(t, { token: async () => `token ${++asked}` })
    const calls = [client.call('a'), client.call('b')]
    fake.last.receive({ id: 1, ...expired })
    fake.last.receive({ id: 2, ...expired })
    await settled()

    assert.deepEqual(fake.last.requests.map(({ id, auth_jwt: token }) => [id, token]), [[1, 'token 1'], [2, 'token 1'], [1, 'token 2'], [2, 'token 2']])
    fake.last.receive({ id: 1, data: 'A' })
    fake.last.receive({ id: 2, data: 'B' })
    assert.deepEqual(await Promise.all(calls), ['A', 'B'])
  })

  test('that has expired again rejects the call', async (t) => {
    const { client, fake } = await openFake(t, { token: () => 'old' })
    const call = client.call('a')
    fake.last.answer(expired)
    await settled()
    fake.last.answer(expired)

    await assert.rejects(call, { code: 'token_expired' })
    assert.equal(fake.last.requests.length, 2)
  })

  test('that cannot be renewed rejects the call', async (t) => {
    const { client, fake } = await openFake(t, { token: 'fixed' })
    const call = client.call('a')
    fake.last.answer(expired)

    await assert.rejects(call, { message: 'The token has expired.', code: 'token_expired' })
  })

  test('whose renewal fails is reported with the cause', async (t) => {
    const cause = new Error('logged out')
    const tokens: (string | Error)[] = ['one', cause]
    const { client, fake } = await openFake(t, {
      token: () => {
        const token = tokens.shift()
        if (token instanceof Error) throw token
        return token
      }
    })
    const call = client.call('a')
    fake.last.answer(expired)

    await assert.rejects(call, { code: 'token_expired', cause })
  })

  test('that arrives after the call was aborted sends nothing', async (t) => {
    const { client, fake, tick } = await openFake(t, { token: async () => 'new' })
    const call = client.call('a')
    fake.last.answer(expired)
    tick(2000)

    await assert.rejects(call, { code: 'timeout' })
    await settled()
    assert.equal(fake.last.requests.length, 1)
  })
})
