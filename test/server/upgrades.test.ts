/** Upgrade requests that do not reach the plugin: other protocols, refusals by the app, and the stop. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import rohrpost from '../../lib/index.ts'
import { RawHttp } from '../support/raw-http.ts'
import { listen } from '../support/server.ts'
import { tls } from '../support/tls.ts'

const H2C = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA' }

function addRoutes (app: FastifyInstance): void {
  app.get('/hello', async () => 'hello')
  app.get('/slow', async () => {
    await new Promise(setImmediate)
    return 'slow'
  })
  app.post('/echo', async ({ body, headers }) => ({ body, length: headers['content-length'], chunked: headers['transfer-encoding'] }))
}

/** The same routes with and without the plugin. */
async function pair (t: TestContext, options: object = {}, before = async (_app: FastifyInstance) => {}): Promise<[without: FastifyInstance, having: FastifyInstance]> {
  const apps = [Fastify(options as FastifyServerOptions), Fastify(options as FastifyServerOptions)] as const
  for (const app of apps) {
    t.after(() => app.close())
    addRoutes(app)
  }
  await before(apps[1])
  await apps[1].register(rohrpost, '/ws')
  for (const app of apps) await app.listen({ port: 0, host: '127.0.0.1' })
  return [...apps]
}

const addressOf = ({ server }: { server: FastifyInstance['server'] }, protocol = 'http') => `${protocol}://127.0.0.1:${(server.address() as AddressInfo).port}`

/** Responses of a server to requests on one connection, without headers that change from one request to the next. */
async function answers (t: TestContext, address: string): Promise<string> {
  const raw = await RawHttp.connect(t, address)
  const json = { 'Content-Type': 'application/json' }
  const large = `{"large":"${'x'.repeat(200_000)}"}`
  const steps: [count: number, send: () => void][] = [
    [3, () => raw.request('GET /slow').request('GET /slow').request('GET /hello', H2C)],
    [4, () => raw.request('POST /echo', { ...H2C, ...json }, '{"a":1}')],
    [5, () => {
      raw.request('POST /echo', { ...H2C, ...json, 'Transfer-Encoding': 'chunked' })
      raw.socket.write('7\r\n{"a":2}\r\n0\r\n\r\n')
    }],
    [6, () => raw.request('GET /hello', { Connection: 'Upgrade', Upgrade: 'TLS/1.0' })],
    [7, () => raw.request('POST /echo', { Connection: 'Upgrade', Upgrade: 'websocket', ...json }, '{"a":3}')],
    [8, () => raw.request('GET /missing', H2C)],
    [9, () => raw.request('POST /echo', { ...H2C, ...json, Connection: 'close, Upgrade' }, large)]
  ]
  for (const [count, send] of steps) {
    send()
    await raw.count('HTTP/1.1 ', count)
  }
  await raw.ended
  return raw.text.replaceAll(/Date: .*\r\n/gi, '')
}

const secure = { https: tls }
for (const [name, options, protocol] of [['HTTP', {}, 'http'], ['HTTPS', secure, 'https'], ['an HTTP/2 server that allows HTTP/1', { http2: true, https: { ...tls, allowHTTP1: true } }, 'https']] as const) {
  test(`answers upgrade requests for other protocols as without the plugin: ${name}`, async (t) => {
    const [without, having] = await pair(t, options)

    const expected = await answers(t, addressOf(without, protocol))

    assert.equal(expected.match(/HTTP\/1\.1 200/g)?.length, 8)
    assert.equal(await answers(t, addressOf(having, protocol)), expected)
  })
}

test('answers upgrade requests for other protocols in an app that registered @fastify/websocket itself', async (t) => {
  const [without, having] = await pair(t, {}, async (app) => { await app.register(websocket) })

  assert.equal(await answers(t, addressOf(having)), await answers(t, addressOf(without)))
})

for (const secured of [false, true]) {
  test(`answers upgrade requests for other protocols on the second server of localhost: ${secured ? 'HTTPS' : 'HTTP'}`, async (t) => {
    const [without, having] = await pair(t, secured ? secure : {})
    // the servers that Fastify creates
    const further = secured ? (await import('node:https')).createServer(tls, having.routing as never) : http.createServer(having.routing as never)
    further.keepAliveTimeout = without.server.keepAliveTimeout
    further.on('upgrade', having.server.emit.bind(having.server, 'upgrade'))
    t.after(() => further.close())
    await once(further.listen(0, '127.0.0.1'), 'listening')
    const protocol = secured ? 'https' : 'http'

    assert.equal(await answers(t, addressOf({ server: further as never }, protocol)), await answers(t, addressOf(without, protocol)))
    const client = new WebSocket(`${addressOf({ server: further as never }).replace('http', 'ws')}/ws`)
    if (!secured) await new Promise((resolve, reject) => Object.assign(client, { onopen: resolve, onerror: reject }))
    client.close()
  })
}

test('works with a Node.js without shouldUpgradeCallback', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  const asked = app.server as { shouldUpgradeCallback?: (() => boolean) | undefined }
  const callback = asked.shouldUpgradeCallback
  asked.shouldUpgradeCallback = undefined
  await app.register(rohrpost)
  assert.equal(asked.shouldUpgradeCallback, undefined)
  asked.shouldUpgradeCallback = callback
  app.get('/hello', async () => 'hello')
  const server = await listen(t, app)
  const raw = await RawHttp.connect(t, server.http)

  raw.request('GET /hello', H2C)

  await raw.count('hello')
  assert.equal(raw.status, 200)
  assert.equal((await (await server.connect()).call('ping')).type, 'pong')
})

test('leaves other protocols to upgrade listeners of the app', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(rohrpost)
  app.server.on('upgrade', ({ headers }: IncomingMessage, socket: Socket) => {
    if (headers.upgrade === 'echo') socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n', () => socket.destroy())
  })
  const { http: address, connect } = await listen(t, app)
  const raw = await RawHttp.connect(t, address)

  raw.request('GET /', { Connection: 'Upgrade', Upgrade: 'echo' })

  await raw.ended
  assert.equal(raw.status, 101)
  assert.equal((await (await connect()).call('ping')).type, 'pong')
})

const within = (app: FastifyInstance) => app.register(async (child) => { await child.register(rohrpost, '/ws') }, { prefix: '/api' })
const hook = (onRequest: never) => (app: FastifyInstance) => {
  app.addHook('onRequest', onRequest)
  return app.register(rohrpost, '/ws')
}
const refusals: [name: string, path: string, status: number, prepare: (app: FastifyInstance) => PromiseLike<unknown>][] = [
  ['by a hook of the app', '/ws', 401, hook((async (_request: unknown, reply: { code (status: number): { send (): unknown } }) => reply.code(401).send()) as never)],
  ['by a hook of the app that throws', '/ws', 500, hook((async () => { throw new Error('no') }) as never)],
  ['by an error handler', '/ws', 418, (app) => {
    app.setErrorHandler((_error, _request, reply) => reply.code(418).send('teapot'))
    return hook((async () => { throw new Error('no') }) as never)(app)
  }],
  ['by a hook that ends the socket', '/ws', NaN, hook((async (request: { raw: IncomingMessage }, reply: { hijack (): void }) => {
    reply.hijack()
    request.raw.socket.end()
  }) as never)],
  ['by a hook that destroys the response', '/ws', NaN, hook((async (_request: unknown, reply: { hijack (): void, raw: http.ServerResponse }) => {
    reply.hijack()
    reply.raw.destroy()
  }) as never)],
  ['by a hook that writes the response', '/ws', 402, hook((async (_request: unknown, reply: { hijack (): void, raw: http.ServerResponse }) => {
    reply.hijack()
    reply.raw.writeHead(402).end('pay')
  }) as never)],
  ['by a bad URL', '/%zz', 400, (app) => app.register(rohrpost, '/ws')],
  ['by no route', '/nope', 404, (app) => app.register(rohrpost, '/ws')],
  ['by no route, with the plugin under a prefix', '/nope', 404, within],
  ['by an HTTP route, with the plugin under a prefix', '/hello', 200, (app) => {
    addRoutes(app)
    return within(app)
  }],
  ['by an HTTP route, in an app that registered @fastify/websocket itself', '/hello', 200, async (app) => {
    app.get('/hello', async () => 'hello')
    await app.register(websocket)
    await within(app)
  }]
]
for (const [name, path, status, prepare] of refusals) {
  test(`ends the socket of an upgrade that is refused ${name}, so that the app can stop`, async (t) => {
    const app = Fastify()
    t.after(() => app.close())
    await prepare(app)
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const raw = await RawHttp.connect(t, address)

    raw.upgrade(path)

    await raw.ended
    assert.equal(raw.status, status)
    await app.close()
  })
}

test('ends the socket of a handshake that ws refuses, and of one after an unanswered request', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  addRoutes(app)
  await app.register(rohrpost, '/ws')
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const [bad, behind] = [await RawHttp.connect(t, address), await RawHttp.connect(t, address)]

  bad.request('GET /ws', { Connection: 'Upgrade', Upgrade: 'WebSocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'short' })
  behind.request('GET /slow').upgrade('/ws')

  await Promise.all([bad.ended, behind.ended])
  assert.equal(bad.status, 400)
  assert.equal(behind.status, 200)
  await app.close()
})

test('closes connections whose client has ended its side like any other', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(rohrpost, '/ws')
  const raw = await RawHttp.connect(t, await app.listen({ port: 0, host: '127.0.0.1' }))
  raw.upgrade('/ws')
  await raw.count('101')

  raw.socket.end()

  await raw.ended
  await app.close()
})

test('serves WebSockets over TLS, also on an HTTP/2 server that allows HTTP/1', async (t) => {
  for (const options of [secure, { http2: true, https: { ...tls, allowHTTP1: true } }]) {
    const warnings: string[] = []
    const app = Fastify({ ...options, logger: { level: 'warn', stream: { write: (line: string) => warnings.push(line) } } } as FastifyServerOptions)
    t.after(() => app.close())
    await app.register(rohrpost, '/ws')
    const raw = await RawHttp.connect(t, await app.listen({ port: 0, host: '127.0.0.1' }))

    raw.upgrade('/ws')

    await raw.count('101 Switching Protocols')
    assert.deepEqual(warnings, [])
    await app.close()
  }
})

test('warns on a server that only supports HTTP/2, and serves HTTP', async (t) => {
  for (const options of [{ http2: true }, { http2: true, https: tls }]) {
    const warnings: string[] = []
    const app = Fastify({ ...options, logger: { level: 'warn', stream: { write: (line: string) => warnings.push(line) } } } as FastifyServerOptions)
    t.after(() => app.close())
    await app.register(rohrpost)
    await app.listen({ port: 0, host: '127.0.0.1' })

    assert.match(String(warnings), /no WebSocket client can connect: .*allowHTTP1/)
    assert.equal((await app.inject('/ws/rohrpost')).statusCode, 426)
  }
})
