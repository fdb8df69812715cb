import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConnectionException, DeadlockException } from '@mikro-orm/core'
import { Redis } from 'ioredis'
import { errors } from '../../lib/errors.ts'
import { closeFor } from '../../lib/server/upgrade/admission.ts'
import { memoryBroker } from '../../lib/index.ts'
import { RohrpostClient } from '../../lib/client/index.ts'
import { start } from '../support/server.ts'

const withFields = (fields: object, message = 'x') => Object.assign(new Error(message), fields)
const cycle = new Error('a cycle')
cycle.cause = cycle
let long: Error = withFields({ syscall: 'connect' })
for (let n = 0; n < 50; n++) long = new Error('wrapped', { cause: long })

const thrown: [what: string, error: unknown, code: number][] = [
  ['a plain error', new Error('banned'), 4403],
  ['an error with status 401', withFields({ statusCode: 401 }), 4403],
  ['a text', 'no', 4403],
  ['nothing', undefined, 4403],
  ['a cycle of causes', cycle, 4403],
  ['a very long chain of causes', long, 4403],
  ['a plain error that tells of a time-out', new Error('Your session has timed out.'), 4403],
  ['an error of SQL', withFields({ code: '42P01' }), 4403],
  ['an answer of Redis about a wrong type', withFields({ name: 'ReplyError' }, 'WRONGTYPE Operation'), 4403],

  ['an error that says so', withFields({ retry: true }), 1013],
  ['a broker that is away', new errors.RP_ERR_BROKER_UNAVAILABLE('away'), 1013],
  ['a group that is away', new errors.RP_ERR_UNAVAILABLE('a'), 1013],
  ['a message that was not published', new errors.RP_ERR_NOT_PUBLISHED('away'), 1013],
  ...[408, 425, 429, 500, 503].map((statusCode): [string, unknown, number] => [`an error with status ${statusCode}`, withFields({ statusCode }), 1013]),
  ['an error of a system call', withFields({ syscall: 'connect', code: 'ECONNREFUSED' }), 1013],
  ['a reset of Node.js without system call', withFields({ code: 'ECONNRESET' }, 'socket hang up'), 1013],
  ['an error that wraps one', new Error('no user', { cause: new Error('x', { cause: withFields({ syscall: 'connect' }) }) }), 1013],
  ['a failed fetch', new TypeError('fetch failed', { cause: withFields({ code: 'UND_ERR_CONNECT_TIMEOUT' }) }), 1013],
  ['errors of several addresses', new AggregateError([withFields({ syscall: 'connect' })]), 1013],
  ['a deadline', AbortSignal.abort(new DOMException('late', 'TimeoutError')).reason, 1013],
  ['a connection that pg lost', new Error('Connection terminated unexpectedly'), 1013],
  ['a server that pg sees shut down', withFields({ code: '57P01' }), 1013],
  ['a connection that mariadb lost', withFields({ sqlState: '08S01', code: 'ER_SOCKET_UNEXPECTED_CLOSE' }), 1013],
  ['a connection that mysql2 lost', withFields({ code: 'PROTOCOL_CONNECTION_LOST' }), 1013],
  ['a connection that MikroORM lost', new ConnectionException(new Error('x')), 1013],
  ['a deadlock of MikroORM', new DeadlockException(new Error('x')), 1013],
  ['a Redis that loads', withFields({ name: 'ReplyError' }, 'LOADING Redis is loading the dataset in memory'), 1013],
  ['a Redis that ioredis lost', withFields({ name: 'MaxRetriesPerRequestError' }), 1013],

  ['a TypeError', new TypeError('x is undefined'), 1011],
  ['a ReferenceError', new ReferenceError('x'), 1011],
  ['a RangeError', new RangeError('x'), 1011],
  ['a SyntaxError', new SyntaxError('x'), 1011],
  ['an AggregateError', new AggregateError([new Error('x')]), 1011],
  ['an error whose getter throws', Object.defineProperty(new Error('x'), 'cause', { get () { throw new Error('y') } }), 1011]
]

for (const [what, error, code] of thrown) {
  test(`${what} closes with ${code}, and with 1012 while the server stops`, () => {
    assert.equal(closeFor(error, false).code, code)
    assert.equal(closeFor(error, true).code, 1012)
  })
}

test('a client of ioredis that was closed is a temporary error', async (t) => {
  const redis = new Redis({ lazyConnect: true, retryStrategy: () => null, port: 1, host: '127.0.0.1' })
  redis.on('error', () => {})
  t.after(() => redis.disconnect())

  const error: unknown = await redis.get('a').catch((error: unknown) => error)

  assert.equal(closeFor(error, false).code, 1013)
})

test('a client reconnects after a temporary error in onConnect', async (t) => {
  const memory = memoryBroker()
  let isAway = true
  const server = await start(t, {
    broker: { ...memory, subscribe: async (group) => { if (isAway) throw new Error('away'); return memory.subscribe(group) } },
    async onConnect (connection) { await connection.join('user:7') }
  })
  const client = new RohrpostClient(`${server.http.replace('http', 'ws')}/ws/rohrpost`, { backoff: { min: 5, max: 10 } })
  t.after(() => client.close())
  const codes: unknown[] = []
  const isClosed = new Promise<void>((resolve) => client.on('state', (_state, { code }) => {
    codes.push(code)
    if (code !== undefined) resolve()
  }))
  await isClosed
  isAway = false
  await client.ready()

  assert.ok(codes.includes(1013))
  assert.ok(server.logs.some(({ msg, level, code }) => msg === 'onConnect failed, the client should reconnect' && level === 50 && code === 1013))
})

test('an error in onConnect while the server stops lets the client reconnect', async (t) => {
  const [asked, away] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = await start(t, { onConnect: () => { asked.resolve(); return away.promise } })
  const client = await server.connect()
  await asked.promise

  const drained = server.app.rohrpost.drain()
  away.reject(new Error('draining'))

  assert.equal((await client.closed).code, 1012)
  await drained
})
