import assert from 'node:assert/strict'
import { test } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost, { type RohrpostOptions } from '../../lib/index.ts'
import { createApp, listen, start, type LogLine } from '../support/server.ts'

test('accepts a string as its path', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  await app.register(rohrpost, '/live')
  const server = await listen(t, app)

  const client = await server.connect('/live')

  assert.equal((await client.call('ping')).type, 'pong')
})

test('adds its prefix between the prefix of the surrounding plugin and the path, with single slashes', async (t) => {
  const registrations: [outer: string | undefined, options: RohrpostOptions, paths: string[]][] = [
    [undefined, { prefix: '/api', path: '/ws' }, ['/api/ws', '/api/ws/']],
    [undefined, { prefix: '/api' }, ['/api/ws/rohrpost']],
    [undefined, { prefix: 'api', path: '/ws' }, ['/api/ws']],
    [undefined, { prefix: '/api/', path: '/ws' }, ['/api/ws']],
    [undefined, { prefix: '/api', path: '/' }, ['/api', '/api/']],
    [undefined, { prefix: '/', path: '/ws' }, ['/ws']],
    [undefined, { prefix: '', path: '/ws' }, ['/ws']],
    ['/v1', { prefix: '/api', path: '/ws' }, ['/v1/api/ws', '/v1/api/ws/']],
    ['/v1/', { prefix: '/api', path: '/ws' }, ['/v1/api/ws']],
    ['/:tenant', { prefix: '/api', path: '/ws' }, ['/one/api/ws', '/two/api/ws/']],
    ['/v1', { prefix: '/api', path: '/' }, ['/v1/api', '/v1/api/']],
    ['/v1', { path: '/' }, ['/v1', '/v1/']]
  ]
  for (const [outer, options, paths] of registrations) {
    const app = createApp()
    t.after(() => app.close())
    if (outer === undefined) await app.register(rohrpost, options)
    else await app.register(async (child) => { await child.register(rohrpost, options) }, { prefix: outer })
    const address = (await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')

    for (const path of paths) {
      const client = new WebSocket(address + path)
      await new Promise((resolve, reject) => Object.assign(client, { onopen: resolve, onerror: () => reject(new Error(`${outer} ${path}`)) }))
      client.close()
    }
  }
})

test('applies logLevel and logSerializers to its connections, and to no other route', async (t) => {
  const logs: LogLine[] = []
  const app = createApp(logs)
  t.after(() => app.close())
  await app.register(rohrpost, { logLevel: 'warn', logSerializers: { card: (card) => `card ${card}` } })
  app.rohrpost.handle('log', (_message, { log }) => {
    log.info({ card: 1 }, 'quiet')
    log.warn({ card: 2 }, 'loud')
  })
  app.get('/log', async ({ log }) => { log.info({ card: 3 }, 'route') })
  const server = await listen(t, app, logs)
  const client = await server.connect()

  await client.call('log')
  await fetch(`${server.http}/log`)

  assert.deepEqual(logs.filter(({ card }) => card !== undefined).map(({ msg, card }) => [msg, card]), [['loud', 'card 2'], ['route', 3]])
  assert.ok(logs.every(({ req }) => (req as { url?: string } | undefined)?.url !== '/ws/rohrpost'))
})

test('accepts options from a function, and the option name of the plugin loader', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  const options: RohrpostOptions & { name: string } = { path: '/live', name: 'live' }
  await app.register(rohrpost, () => options)
  const server = await listen(t, app)

  assert.equal((await (await server.connect('/live')).call('ping')).type, 'pong')
})

test('refuses Fastify options with a wrong type or an unknown level', async (t) => {
  const wrong: [object, string, RegExp][] = [
    [{ prefix: 5 }, 'RP_ERR_INVALID_OPTION', /'prefix': expected a string, got 5/],
    [{ logLevel: 5 }, 'RP_ERR_INVALID_OPTION', /'logLevel': expected a level of the logger, such as 'warn', got 5/],
    [{ logLevel: 'loud' }, 'FST_ERR_ROUTE_LOG_LEVEL_INVALID', /loud/],
    [{ logSerializers: 5 }, 'RP_ERR_INVALID_OPTION', /'logSerializers'/],
    [{ name: 5 }, 'RP_ERR_INVALID_OPTION', /'name'/]
  ]
  for (const [options, code, message] of wrong) {
    const app = createApp()
    t.after(() => app.close())

    await assert.rejects(async () => { await app.register(rohrpost, options) }, { code, message })
  }
})

test('serves paths with parameters, regular expressions and wildcards', async (t) => {
  const paths: [string, string[], unknown][] = [
    ['/live/:room', ['/live/5', '/live/5/'], { room: '5' }],
    ['/live/:room(^\\d+$)', ['/live/5', '/live/5/'], { room: '5' }],
    ['/live/:room/', ['/live/5', '/live/5/'], { room: '5' }],
    ['/live/:a-:b', ['/live/5-6'], { a: '5', b: '6' }],
    ['/live/:room?', ['/live/5'], { room: '5' }],
    ['/live/:room?', ['/live'], { room: undefined }],
    ['/live/*', ['/live/5'], { '*': '5' }],
    ['/live/*', ['/live/5/6/'], { '*': '5/6/' }],
    ['/*', ['/5'], { '*': '5' }]
  ]
  for (const [path, urls, params] of paths) {
    const server = await start(t, { path, with: (app) => app.rohrpost.handle('params', (_message, { request }) => ({ ...request.params as object })) })

    for (const url of urls) {
      const client = await server.connect(url)
      assert.deepEqual((await client.call('params')).data, JSON.parse(JSON.stringify(params)), path)
    }
  }
  const server = await start(t, { path: '/live/:room(^\\d+$)' })
  assert.equal(await server.refused('/live/five'), 404)
})

test('refuses a path that the router cannot serve, with the reason', async (t) => {
  for (const path of ['/live/*/5', '/live/*?', '/live/:room?/5', '/live/:room(^[$)', '/live/:room(^(a+)+$)', '/live/:room(']) {
    const app = createApp()
    t.after(() => app.close())

    await assert.rejects(async () => { await app.register(rohrpost, { path }) }, {
      code: 'RP_ERR_INVALID_OPTION', message: /^Invalid option 'path': expected a path that Fastify accepts as a route \(.+\), got "\/live/
    }, path)
  }
})

test('leaves the error for a duplicate route to Fastify', async (t) => {
  const app: FastifyInstance = Fastify()
  t.after(() => app.close())
  app.get('/live', async () => 'taken')

  await assert.rejects(async () => { await app.register(rohrpost, { path: '/live' }) }, { code: 'FST_ERR_DUPLICATED_ROUTE' })
})
