/** Internal errors appear in the log, and not in replies. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { suite, test, type TestContext } from 'node:test'
import { defineEntity, p } from '@mikro-orm/core'
import type { MikroORM } from '@mikro-orm/sql'
import { Type } from '@sinclair/typebox'
import { RohrpostClient, RohrpostError } from '../../lib/client/index.ts'
import rohrpost, { memoryBroker } from '../../lib/index.ts'
import { openServer, openSqlite } from '../mikro-orm/support.ts'
import { createApp, listen, start, type Frame, type LogLine } from '../support/server.ts'

const UUID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/

/** Failures whose details must stay hidden: each contains the word `secret`, a path, or SQL. */
const failures: Record<string, () => unknown> = {
  'an error': () => { throw new TypeError("can't read properties of secret") },
  'an error with status 500': () => { throw Object.assign(new Error('secret-db:5432 is down'), { statusCode: 500, code: 'E_SECRET' }) },
  'an error with status 503': () => { throw Object.assign(new Error('secret-db:5432 is down'), { statusCode: 503, retry: true }) },
  'a text for a status': () => { throw Object.assign(new Error('secret'), { statusCode: '404' }) },
  'a text': () => { throw 'secret' }, // eslint-disable-line no-throw-literal
  'an object': () => { throw { message: 'secret', statusCode: 404 } }, // eslint-disable-line no-throw-literal
  nothing: () => { throw undefined }, // eslint-disable-line no-throw-literal
  'an error with toJSON': () => { throw Object.assign(new Error('secret'), { toJSON: () => ({ error: 'secret' }) }) },
  'an error whose toJSON throws': () => { throw Object.assign(new Error('x'), { toJSON () { throw new Error('secret') } }) },
  'an error with causes': () => { throw new AggregateError([new Error('secret 1')], 'secret 2', { cause: new Error('secret 3') }) },
  'ENOENT, synchronous': () => readFileSync('/etc/secret/key.pem'),
  ENOENT: () => open('/etc/secret/key.pem'),
  'a reply with a cycle': () => {
    const cycle: Record<string, unknown> = { secret: true }
    cycle.self = cycle
    return cycle
  },
  'a reply whose toJSON throws': () => ({ toJSON () { throw new Error('secret') } })
}

const SECRET = /secret|select|insert|\/etc|\.ts\b|at .*:\d+:\d+|node_modules/i

/** Asserts that a frame is a bare internal error, and that the log has the details. */
function assertHidden (frame: Frame, type: string, logs: readonly LogLine[]): void {
  const { error_id: errorId, id, ...rest } = frame
  assert.deepEqual(rest, { type, error: 'Internal error.', code: 'internal' })
  assert.match(String(errorId), UUID)
  assert.doesNotMatch(JSON.stringify(frame), SECRET)

  const lines = logs.filter((line) => line.error_id === errorId)
  assert.deepEqual(lines.map(({ level, type: logged, id: request, msg }) => [level, logged, request, msg]), [[50, type, id, 'a handler failed']])
}

for (const [what, fail] of Object.entries(failures)) {
  test(`a handler, a middleware and authorize that fail with ${what} do not reveal it`, async (t) => {
    const server = await start(t, {
      with: (app) => app.rohrpost
        .handle('fail', () => fail())
        .handle('later', async () => { await null; return fail() })
        .handle('hello', () => 'world')
        .group('todo', { authorize: async () => { await fail(); throw new Error('secret') } })
        .use(({ data }, _connection, next) => data === 'middleware' ? fail() : next())
    })
    const client = await server.connect()

    for (const type of ['fail', 'later']) assertHidden(await client.call(type), type, server.logs)
    assertHidden(await client.call('subscribe', { type: 'todo', id: 5 }), 'subscribe', server.logs)
    assertHidden(await client.call('hello', 'middleware'), 'hello', server.logs)
    assert.equal((await client.call('hello')).data, 'world')
  })

  test(`an upgrade whose hook fails with ${what} does not reveal it`, async (t) => {
    for (const hook of ['onRequest', 'preValidation', 'preHandler', 'allowedOrigins']) {
      const logs: LogLine[] = []
      const app = createApp(logs)
      t.after(() => app.close())
      await app.register(rohrpost, { [hook]: async () => { throw await thrownBy(fail) } })

      const { statusCode, body } = await app.inject({ url: '/ws/rohrpost', headers: { origin: 'http://localhost' } })

      // Fastify treats this as an error for the client
      if (what === 'a text for a status') continue
      assert.ok(statusCode >= 500, `${hook}: ${statusCode}`)
      assert.equal(JSON.parse(body).message, 'Internal error.')
      assert.doesNotMatch(body, SECRET)
      assert.ok(logs.some(({ err }) => err !== undefined), 'it is in the log')
    }
  })

  test(`an onConnect that fails with ${what} does not reveal it`, async (t) => {
    const server = await start(t, { onConnect: async () => { throw await thrownBy(fail) } })
    const client = await server.connect()

    const { code, reason } = await client.closed
    assert.equal(reason, ({ 1011: 'internal error', 1013: 'try again later', 4403: 'Forbidden' } as Record<number, string>)[code])
    const told = code === 4403 ? 'onConnect refused a connection' : 'onConnect failed, the client should reconnect'
    assert.ok(server.logs.some(({ msg }) => msg === told))
  })
}

async function thrownBy (fail: () => unknown): Promise<unknown> {
  try {
    await fail()
  } catch (error) {
    return error
  }
  return new Error('secret')
}

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string().unique() } })

suite('errors of databases', () => {
  const queries: Record<string, (orm: MikroORM) => Promise<unknown>> = {
    async twice (orm) {
      const em = orm.em.fork()
      em.create(Todo, { title: 'secret' })
      em.create(Todo, { title: 'secret' })
      await em.flush()
    },
    sql: (orm) => orm.em.getConnection().execute('select secret from nowhere'),
    missing: (orm) => orm.em.fork().findOneOrFail(Todo, { title: 'secret' }),
    property: (orm) => orm.em.fork().find(Todo, { secret: 1 } as never)
  }

  async function assertAllHidden (t: TestContext, orm: MikroORM) {
    const server = await start(t, {
      with: (app) => {
        for (const [type, query] of Object.entries(queries)) app.rohrpost.handle(type, () => query(orm))
      }
    })
    const client = await server.connect()
    for (const type of Object.keys(queries)) assertHidden(await client.call(type), type, server.logs)
  }

  test('of SQLite appear only in the log', async (t) => assertAllHidden(t, await openSqlite(t, [Todo])))

  test('of PostgreSQL appear only in the log', async (t) => {
    const orm = await openServer(t, 'postgresql', [Todo])
    if (orm !== undefined) await assertAllHidden(t, orm)
  })
})

test('a reply that violates its schema reveals neither the reply nor the schema', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('report', { reply: Type.Object({ secret: Type.Literal('secret') }) }, () => ({ secret: 'other secret' }) as never)
  })
  const client = await server.connect()

  assertHidden(await client.call('report'), 'report', server.logs)
})

test('a failing broker is not revealed', async (t) => {
  const server = await start(t, {
    broker: { ...memoryBroker(), publish: () => Promise.reject(new Error('redis://secret@db')), subscribe: () => Promise.reject(new Error('redis://secret@db')) },
    with: (app) => app.rohrpost.group('todo', { authorize: () => true }).handle('send', () => app.rohrpost.sendToGroup('a', 1))
  })
  const client = await server.connect()

  assert.deepEqual(await client.call('subscribe', { type: 'todo', id: 5 }), { id: 1, type: 'subscribe', error: "Can't join 'todo-5' now", code: 'unavailable', retry: true })
  assertHidden(await client.call('send'), 'send', server.logs)
})

test("the client's error has the id of the log line", async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.handle('fail', () => { throw new Error('secret') }) })
  const client = new RohrpostClient(`${server.http.replace('http', 'ws')}/ws/rohrpost`)
  t.after(() => client.close())
  await client.ready()

  const [failed, unknown] = await Promise.all([client.call('fail'), client.call('nope')].map((call) => call.catch((error: unknown) => error)))

  assert.ok(failed instanceof RohrpostError && unknown instanceof RohrpostError)
  assert.equal(failed.message, 'Internal error.')
  assert.ok(server.logs.some((line) => line.error_id === failed.errorId && line.err?.message === 'secret'))
  assert.equal(unknown.errorId, undefined)
})

suite('the upgrade', () => {
  test('passes on errors that are meant for the client', async (t) => {
    const app = createApp()
    t.after(() => app.close())
    await app.register(rohrpost, { async onRequest () { throw Object.assign(new Error('Please sign in.'), { statusCode: 401 }) } })

    const { statusCode, body } = await app.inject('/ws/rohrpost')

    assert.equal(statusCode, 401)
    assert.deepEqual(JSON.parse(body), { statusCode: 401, error: 'Unauthorized', message: 'Please sign in.' })
  })

  test("calls the app's own error handler", async (t) => {
    class Refused extends Error {}
    const app = createApp()
    t.after(() => app.close())
    app.setErrorHandler((error, _request, reply) => error instanceof Refused
      ? reply.code(401).send({ own: error.message })
      : reply.code(500).send({ own: 'try later' }))
    await app.register(rohrpost, {
      async onRequest ({ query }) {
        throw (query as { known?: string }).known === undefined ? new Error('secret') : new Refused('known')
      }
    })
    const server = await listen(t, app)

    const [known, unknown] = await Promise.all(['/ws/rohrpost?known=1', '/ws/rohrpost'].map((url) => app.inject(url)))

    assert.deepEqual([known?.statusCode, known?.json()], [401, { own: 'known' }])
    assert.deepEqual([unknown?.statusCode, unknown?.json()], [500, { own: 'try later' }])
    assert.equal(await server.refused('/ws/rohrpost?known=1'), 401)
  })
})
