import assert from 'node:assert/strict'
import { test } from 'node:test'
import createError from '@fastify/error'
import sensible from '@fastify/sensible'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { start, type LogLine } from '../support/server.ts'

const failures = (logs: LogLine[]) => logs.filter(({ level }) => level === 50).map(({ err }) => err?.message)

test('replies with the returned or resolved value of a handler', async (t) => {
  const values = [0, false, '', [], null, {}, { a: new Date(0) }]
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('sync', ({ data }) => values[Number(data)])
      .handle('async', async ({ data }) => values[Number(data)])
  })
  const client = await server.connect()

  for (const [index, value] of values.entries()) {
    const data = JSON.parse(JSON.stringify(value))
    assert.deepEqual(await client.ask({ id: index, type: 'sync', data: index }), { id: index, type: 'sync', data })
    assert.deepEqual(await client.ask({ id: 'a', type: 'async', data: index }), { id: 'a', type: 'async', data })
  }
})

test('acknowledges a request whose handler returns nothing', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.handle('quiet', () => {}).handle('later', async () => {}) })
  const client = await server.connect()

  assert.equal(JSON.stringify(await client.ask({ id: '', type: 'quiet' })), '{"id":"","type":"quiet"}')
  assert.equal(JSON.stringify(await client.ask({ id: null, type: 'later' })), '{"type":"later"}')
})

test('passes every field of the message to handlers, and protects reply and signal', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('fields', (message) => {
      const { reply, signal } = message
      return [Object.entries(message), typeof reply, signal instanceof AbortSignal, Object.hasOwn(message, '__proto__')]
    })
  })
  const client = await server.connect()

  const { data } = await client.ask('{"constructor":1,"__proto__":{"x":1},"auth_jwt":"t","reply":2,"signal":3,"id":1,"type":"fields"}')

  assert.deepEqual(data, [
    [['id', 1], ['type', 'fields'], ['data', null], ['constructor', 1], ['__proto__', { x: 1 }], ['auth_jwt', 't']],
    'function', true, true
  ])
})

test('serves one function under several types', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.handle(['a', 'b'], ({ type }) => type) })
  const client = await server.connect()

  assert.deepEqual(await client.call('a'), { id: 1, type: 'a', data: 'a' })
  assert.deepEqual(await client.call('b'), { id: 2, type: 'b', data: 'b' })
})

test('registers handlers at any time', async (t) => {
  const server = await start(t)
  const client = await server.connect()
  assert.equal((await client.call('late')).code, 'unknown_type')

  server.app.rohrpost.handle('late', () => 'here')

  assert.equal((await client.call('late')).data, 'here')
})

test('replies with an error to an unknown type, inherited names included', async (t) => {
  const server = await start(t)
  const client = await server.connect()

  for (const type of ['nope', 'constructor', '__proto__', 'toString']) {
    assert.deepEqual(await client.ask({ id: 7, type }), { id: 7, type, error: `Unknown message type '${type}'.`, code: 'unknown_type' })
  }
})

test('registers all types of a list, or none if one of them has a handler', async (t) => {
  const { app } = await start(t)
  app.rohrpost.handle('taken', () => 1)

  assert.throws(() => app.rohrpost.handle(['free', 'taken'], () => 2), { code: 'RP_ERR_DUPLICATE_HANDLER', message: /'taken'/ })
  assert.throws(() => app.rohrpost.handle(['twice', 'twice'], () => 2), { code: 'RP_ERR_DUPLICATE_HANDLER', message: /'twice'/ })

  assert.ok(!('free' in app.rohrpost.schemas.handlers))
  app.rohrpost.handle(['free', 'twice'], () => 3)
})

test('lets the application replace each built-in handler once', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.handle(['ping', 'subscribe', 'unsubscribe'], ({ type }) => `my ${type}`) })
  const client = await server.connect()

  assert.deepEqual(await client.call('ping', 1), { id: 1, type: 'ping', data: 'my ping' })
  assert.equal((await client.call('subscribe')).data, 'my subscribe')
  assert.throws(() => server.app.rohrpost.handle('ping', () => 2), { code: 'RP_ERR_DUPLICATE_HANDLER' })
})

test('refuses invalid handlers, and names the value', async (t) => {
  const { app: { rohrpost } } = await start(t)
  const handle = rohrpost.handle as (...args: unknown[]) => unknown
  const wrong: [unknown[], string, RegExp][] = [
    [[5, () => {}], 'RP_ERR_INVALID_HANDLER', /message type, got 5/],
    [['', () => {}], 'RP_ERR_INVALID_HANDLER', /message type, got ""/],
    [[[], () => {}], 'RP_ERR_INVALID_HANDLER', /at least one message type, got \[\]/],
    [['a'], 'RP_ERR_INVALID_HANDLER', /a function for type 'a', got undefined/],
    [['a', {}, undefined], 'RP_ERR_INVALID_HANDLER', /a function for type 'a', got undefined/],
    [['a', {}, 'f'], 'RP_ERR_INVALID_HANDLER', /a function for type 'a', got "f"/],
    [['a', 5, () => {}], 'RP_ERR_INVALID_HANDLER', /an object \{ data, reply, parallel \} for type 'a', got 5/],
    [['a', { body: Type.String() }, () => {}], 'RP_ERR_INVALID_SCHEMA', /'body' of 'a'.*'data', 'reply' and 'parallel'/],
    [['a', { parallel: 1 }, () => {}], 'RP_ERR_INVALID_HANDLER', /true or false as 'parallel' for type 'a', got 1/],
    [['a', { data: { type: 'string' } }, () => {}], 'RP_ERR_INVALID_SCHEMA', /'data' of 'a': it is not a TypeBox schema/],
    [['a', { data: 'string' }, () => {}], 'RP_ERR_INVALID_SCHEMA', /not a TypeBox schema/],
    [[['a', 'b'], { reply: Type.Object({ at: Type.Array(Type.String({ format: 'no-such' })) }) }, () => {}], 'RP_ERR_INVALID_SCHEMA', /'reply' of 'a', 'b': format 'no-such'/],
    [['a', { data: Type.Object({ n: Type.Transform(Type.String()).Decode(Number).Encode(String) }) }, () => {}], 'RP_ERR_INVALID_SCHEMA', /Transform/],
    [['a', { data: Type.Ref('elsewhere') }, () => {}], 'RP_ERR_INVALID_SCHEMA', /elsewhere/]
  ]
  for (const [args, code, message] of wrong) assert.throws(() => handle(...args), { code, message })
  assert.throws(() => rohrpost.use('x' as never), { code: 'RP_ERR_INVALID_HANDLER', message: /a function as middleware, got "x"/ })
})

test('allows a property with the name format', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('print', { data: Type.Object({ format: Type.String() }) }, ({ data }) => data.format)
  })
  const client = await server.connect()

  assert.equal((await client.call('print', { format: 'A4' })).data, 'A4')
})

test('refuses data that does not match the schema, names path and expected type, and converts nothing', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('add', { data: Type.Object({ a: Type.Number(), b: Type.Number({ default: 1 }) }) }, ({ data }) => data.a + data.b)
  })
  const client = await server.connect()

  assert.deepEqual(await client.call('add', { a: 1, b: 2 }), { id: 1, type: 'add', data: 3 })
  assert.deepEqual(await client.call('add', { a: '1', b: 2 }), { id: 2, type: 'add', error: "Invalid data: Expected number at '/a'.", code: 'invalid_data' })
  assert.equal((await client.call('add', { a: 1 })).error, "Invalid data: Expected required property at '/b'.")
  assert.equal((await client.call('add')).error, 'Invalid data: Expected object.')
  assert.deepEqual(await client.ask({ id: null, type: 'add' }), { type: 'add', error: 'Invalid data: Expected object.', code: 'invalid_data' })
})

test('names the values that a union of literals allows', async (t) => {
  const State = Type.Union([Type.Literal('open'), Type.Union([Type.Literal(5), Type.Literal(true)]), Type.Null()])
  const Many = Type.Union(Array.from({ length: 30 }, (_, n) => Type.Literal(n)))
  const Mixed = Type.Union([Type.Literal('a'), Type.Number()])
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('set', { data: Type.Object({ state: State }) }, () => {})
      .handle('many', { data: Many }, () => {})
      .handle('mixed', { data: Mixed }, () => {})
  })
  const client = await server.connect()

  assert.equal((await client.call('set', { state: 'closed' })).error, "Invalid data: Expected one of 'open', 5, true, null at '/state'.")
  assert.equal((await client.call('set', {})).error, "Invalid data: Expected required property at '/state'.")
  assert.equal((await client.call('many', 30)).error, `Invalid data: Expected one of ${Array.from({ length: 20 }, (_, n) => n).join(', ')}, … (30 values).`)
  assert.equal((await client.call('mixed', true)).error, 'Invalid data: Expected union value.')
})

test('refuses data that is nested deeper than a recursive schema can validate', async (t) => {
  const tree = Type.Recursive((node) => Type.Array(node))
  const server = await start(t, { with: (app) => app.rohrpost.handle('tree', { data: tree }, () => 1) })
  const client = await server.connect()

  const answer = await client.ask(`{"id":1,"type":"tree","data":${'['.repeat(100_000)}${']'.repeat(100_000)}}`)

  assert.equal(answer.code, 'invalid_data')
})

test('replies with an internal error if the reply fails its schema or has no JSON form', async (t) => {
  const cycle: unknown[] = []
  cycle.push(cycle)
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('wrong', { reply: Type.Object({ sum: Type.Number() }) }, () => ({ sum: 'three' }) as never)
      .handle('replied', { reply: Type.Number() }, (message) => message.reply('three' as never))
      .handle('cycle', () => cycle)
      .handle('function', () => () => 5)
      .handle('nameless', (message) => message.reply(1, { type: '' }))
      .handle('numbered', (message) => message.reply(1, { type: 5 as never }))
  })
  const client = await server.connect()

  for (const type of ['wrong', 'replied', 'cycle', 'function', 'nameless', 'numbered']) {
    const { error_id: errorId, ...answer } = await client.ask({ id: 1, type })
    assert.deepEqual(answer, { id: 1, type, error: 'Internal error.', code: 'internal' })
    assert.equal(server.logs.filter((line) => line.error_id === errorId).length, 1)
  }
  assert.deepEqual(await client.untilPong(), [])
  const [wrong, replied, cyclic, callable, nameless, numbered] = failures(server.logs)
  assert.equal(wrong, "The reply of 'wrong' fails its schema: Expected number at '/sum'")
  assert.equal(replied, "The reply of 'replied' fails its schema: Expected number")
  assert.equal(callable, "Can't send a value of type function: it has no JSON form (it is a function)")
  assert.match(nameless ?? '', /this type: expected a non-empty string, got ""/)
  assert.match(numbered ?? '', /got 5/)
  assert.match(cyclic ?? '', /has no JSON form \(Converting circular structure/)
})

test('sends retry_after if an error has retry and a whole number of milliseconds', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('busy', ({ data }) => {
      const [retry, retryAfter] = data as unknown[]
      throw Object.assign(new Error('Busy.'), { statusCode: 409, retry, retryAfter: retryAfter === 'none' ? Infinity : retryAfter })
    })
  })
  const client = await server.connect()
  const busy = { id: 1, type: 'busy', error: 'Busy.', code: 'conflict' }

  assert.deepEqual(await client.ask({ id: 1, type: 'busy', data: [true, 500] }), { ...busy, retry: true, retry_after: 500 })
  for (const wrong of [0, -1, 0.5, '500', null, 'none']) {
    assert.deepEqual(await client.ask({ id: 1, type: 'busy', data: [true, wrong] }), { ...busy, retry: true })
  }
  assert.deepEqual(await client.ask({ id: 1, type: 'busy', data: [false, 500] }), busy)
})

test('shows errors that are meant for the client, and no others', async (t) => {
  const Quota = createError('QUOTA', 'Only %d a day', 429)
  const thrown: Record<string, () => unknown> = {
    'not found': () => server.app.httpErrors.notFound('No such to-do.'),
    coded: () => new Quota(5),
    retry: () => Object.assign(new Error('Busy.'), { statusCode: 409, retry: true }),
    wordless: () => Object.assign(new Error(''), { statusCode: 404 }),
    plain: () => new Error('password is hunter2'),
    server: () => server.app.httpErrors.serviceUnavailable('db-3 is down'),
    string: () => 'just text',
    hostile: () => Object.defineProperty(new Error('x'), 'statusCode', { get () { throw new Error('y') }, enumerable: true }),
    inherited: () => Object.create(Object.defineProperty(new Error('x'), 'statusCode', { get () { throw new Error('y') }, enumerable: true }))
  }
  const server = await start(t, {
    with: async (app: FastifyInstance) => {
      await app.register(sensible)
      app.rohrpost.handle('sync', ({ data }) => { throw thrown[String(data)]?.() })
      app.rohrpost.handle('async', async ({ data }) => { throw thrown[String(data)]?.() })
    }
  })
  const client = await server.connect()

  for (const type of ['sync', 'async']) {
    const answer = async (data: string) => {
      const { id, type: own, ...rest } = await client.call(type, data)
      assert.deepEqual([typeof id, own], ['number', type])
      return rest
    }
    assert.deepEqual(await answer('not found'), { error: 'No such to-do.', code: 'not_found' })
    assert.deepEqual(await answer('coded'), { error: 'Only 5 a day', code: 'QUOTA' })
    assert.deepEqual(await answer('retry'), { error: 'Busy.', code: 'conflict', retry: true })
    assert.deepEqual(await answer('wordless'), { error: 'Not Found', code: 'not_found' })
    for (const hidden of ['plain', 'server', 'string', 'hostile', 'inherited']) {
      const { error_id: errorId, ...rest } = await answer(hidden)
      assert.deepEqual(rest, { error: 'Internal error.', code: 'internal' })
      assert.equal(server.logs.filter((line) => line.error_id === errorId).length, 1)
    }
  }
  assert.equal(failures(server.logs).length, 10)
  assert.equal(failures(server.logs).filter((text) => text === 'a value of type object').length, 2)
  assert.ok(failures(server.logs).includes('password is hunter2'))
})

test('sends one reply, the first of a handler', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('reply', (message) => message.reply('first', { type: 'other' }))
      .handle('reply and return', (message) => {
        message.reply('first')
        return 'second'
      })
      .handle('reply twice', (message) => {
        message.reply('first')
        message.reply('second')
      })
      .handle('reply and throw', async (message) => {
        message.reply('first')
        throw new Error('afterwards')
      })
      .handle('reply and refuse', (message) => {
        message.reply('first')
        throw Object.assign(new Error('too late'), { statusCode: 400 })
      })
      .handle('own answer', (message, connection) => {
        connection.sendSuccess({ id: message.id, type: 'own', data: 'first' })
        return 'second'
      })
      .handle('own error', (message, connection) => connection.sendError({ id: message.id, error: 'first' }))
      .handle('own nameless', (message, connection) => connection.send({ id: message.id, data: 'first' }))
      .handle('other id', (_message, connection) => connection.send({ id: 'other', data: 'news' }))
  })
  const client = await server.connect()
  const all = async (type: string, id: unknown = 1) => {
    client.send({ id, type })
    return client.untilPong()
  }

  assert.deepEqual(await all('reply'), [{ id: 1, type: 'other', data: 'first' }])
  assert.deepEqual(await all('reply and return'), [{ id: 1, type: 'reply and return', data: 'first' }])
  assert.deepEqual(await all('reply twice'), [{ id: 1, type: 'reply twice', data: 'first' }])
  assert.deepEqual(await all('reply and throw'), [{ id: 1, type: 'reply and throw', data: 'first' }])
  assert.deepEqual(await all('reply and refuse'), [{ id: 1, type: 'reply and refuse', data: 'first' }])
  assert.deepEqual(await all('own answer'), [{ id: 1, type: 'own', data: 'first' }])
  assert.deepEqual(await all('own error'), [{ id: 1, error: 'first' }])
  assert.deepEqual(await all('own nameless', null), [{ data: 'first' }])
  assert.deepEqual(await all('other id'), [{ id: 'other', data: 'news' }, { id: 1, type: 'other id' }])

  const second = server.logs.filter(({ msg }) => msg === 'a second reply to one request was not sent')
  assert.deepEqual(second.map(({ type }) => type), ['reply and return', 'reply twice', 'own answer'])
  assert.deepEqual(failures(server.logs), ['afterwards', 'too late'])
})

test('does not confuse replies of the server with the reply of a running request', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, { with: (app) => app.rohrpost.handle('slow', () => release.promise) })
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })

  assert.equal((await client.ask({ id: 1, type: 'nope' })).code, 'unknown_type')
  release.resolve()

  assert.deepEqual(await client.next(), { id: 1, type: 'slow' })
})

test('awaits any thenable, and reports one that throws', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('thenable', () => ({ then: (resolve: (value: number) => void) => resolve(5) }) as Promise<number>)
      .handle('trap', () => ({ get then (): never { throw new Error('trap') } }))
  })
  const client = await server.connect()

  assert.equal((await client.call('thenable')).data, 5)
  assert.equal((await client.call('trap')).code, 'internal')
})

test('wraps handlers and authorize in all middlewares, the first one outermost, after validation', async (t) => {
  const order: string[] = []
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('add', { data: Type.Number() }, ({ data }) => {
        order.push('handler')
        return data + 1
      })
      .group('todo', {
        authorize () {
          order.push('authorize')
          return true
        }
      })
      .use(async (message, _connection, next) => {
        order.push(`outer ${message.type}`)
        const result = await next()
        order.push('outer ends')
        return typeof result === 'number' ? result * 10 : result
      })
      .use((_message, connection, next) => {
        order.push(`inner ${typeof connection.id}`)
        return next()
      })
  })
  const client = await server.connect()

  assert.equal((await client.call('add', 1)).data, 20)
  assert.equal((await client.call('add', 'x')).code, 'invalid_data')
  assert.equal((await client.call('ping')).type, 'pong')
  assert.equal((await client.call('subscribe', { type: 'todo', id: 1 })).error, undefined)
  assert.equal((await client.call('unsubscribe', { type: 'todo', id: 1 })).error, undefined)

  assert.deepEqual(order, [
    'outer add', 'inner string', 'handler', 'outer ends',
    'outer subscribe', 'inner string', 'authorize', 'outer ends'
  ])
})

test('a middleware that drops the promise of next() does not end the process', async (t) => {
  const release = Promise.withResolvers<void>()
  const server = await start(t, {
    with: (app) => app.rohrpost
      .use((_message, _connection, next) => next())
      .use((_message, _connection, next) => { next() })
      .use(async (_message, _connection, next) => next())
      .handle('fail', async () => {
        await release.promise
        throw new Error('lost')
      })
  })
  const client = await server.connect()

  assert.deepEqual(await client.call('fail'), { id: 1, type: 'fail' })
  release.resolve()
  while (failures(server.logs).length === 0) await new Promise(setImmediate)

  assert.deepEqual(failures(server.logs), ['lost'])
  assert.equal((await client.call('ping')).type, 'pong')
})

test('a middleware may reply itself, but not call next() twice', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('guarded', () => assert.fail('reached'))
      .handle('twice', () => 1)
      .use(async (message, _connection, next) => {
        if (message.type === 'guarded') throw Object.assign(new Error('Not you.'), { statusCode: 401 })
        await next()
        return next()
      })
  })
  const client = await server.connect()

  assert.deepEqual(await client.call('guarded'), { id: 1, type: 'guarded', error: 'Not you.', code: 'unauthorized' })
  assert.equal((await client.call('twice')).code, 'internal')
  assert.match(failures(server.logs)[0] ?? '', /next\(\) was called twice for a message of type 'twice'/)
})
