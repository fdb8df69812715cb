/** The nginx of docs/operations.md, as it stands there. */
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import Fastify, { type FastifyServerOptions } from 'fastify'
import { WebSocket, type ClientOptions } from 'ws'
import rohrpost, { type RohrpostOptions } from '../../lib/index.ts'
import { blocksOf, readDocument } from '../docs/support/markdown.ts'
import { findProgram } from '../support/install.ts'
import { Client, listen, type TestServer } from '../support/server.ts'

const [documented = ''] = blocksOf(readDocument('docs/operations.md')).filter(({ language }) => language === 'nginx').map(({ text }) => text)

const nginx = await findProgram('/usr/sbin/nginx', 'nginx-light')
if (nginx instanceof Error && process.env['CI'] === 'true') throw nginx

/** What a page at the proxy sends. */
const page = (url: string): ClientOptions => ({ origin: url.replace('ws', 'http') })

suite('behind nginx', { skip: nginx instanceof Error && nginx.message }, () => {
  test('accepts a page of the same host, and refuses a page of another host', async (t) => {
    const server = await startApp(t)
    const url = await startNginx(t, [server])

    const client = await open(t, url, page(url))

    assert.equal((await client.call('ping')).type, 'pong')
    assert.equal(await refused(url, page('ws://elsewhere.example')), 403)
  })

  test('refuses all pages if the proxy does not forward the host, in Host or X-Forwarded-Host', async (t) => {
    const server = await startApp(t, {}, { trustProxy: '127.0.0.1' })
    const line = 'proxy_set_header Host $http_host;'
    const [without, otherwise] = [
      await startNginx(t, [server], [[line, '']]),
      await startNginx(t, [server], [[line, 'proxy_set_header X-Forwarded-Host $http_host;']])
    ]

    assert.equal(await refused(without, page(without)), 403)
    assert.ok(server.logs.some(({ origin, host }) => origin === page(without).origin && host === 'app'))
    await open(t, otherwise, page(otherwise))
  })

  test('provides the client\'s address with trustProxy, which clients can\'t forge', async (t) => {
    const addresses: string[] = []
    const onConnect: RohrpostOptions['onConnect'] = ({ request }) => { addresses.push(`${request.ip} ${request.protocol}`) }
    const [trusting, wary] = [await startApp(t, { onConnect }, { trustProxy: '127.0.0.1' }), await startApp(t, { onConnect })]
    const options = { localAddress: '127.0.0.9', headers: { 'x-forwarded-for': '10.0.0.1', 'x-forwarded-proto': 'https' } }

    for (const server of [trusting, wary]) await open(t, await startNginx(t, [server]), options)

    assert.deepEqual(addresses, ['127.0.0.9 http', '127.0.0.1 http'])
  })

  test('keeps a silent connection open for longer than the proxy\'s timeout', async (t) => {
    const quick: Replacement = ['proxy_read_timeout 75s;', 'proxy_read_timeout 6s;']
    const [beating, silent] = [await startApp(t, { heartbeatInterval: 500 }), await startApp(t)]
    const client = await open(t, await startNginx(t, [beating], [quick]))
    const cut = await open(t, await startNginx(t, [silent], [quick]))

    assert.equal((await cut.closed).code, 1006)
    for (let beats = 0; beats < 4; beats++) await once(client.socket, 'ping')
    assert.equal((await client.call('ping')).type, 'pong')
  })

  test('sends new connections to the other processes while one stops, and closes its connections with 1012', async (t) => {
    const release = Promise.withResolvers<void>()
    const [stopping, other] = [
      await startApp(t, {}, {}, () => release.promise),
      await startApp(t)
    ]
    const url = await startNginx(t, [stopping, other])
    const first = await untilOn(t, url, stopping)
    first.send({ id: 1, type: 'slow' })
    await first.untilPong()

    const drained = stopping.app.rohrpost.drain()
    const before = other.app.rohrpost.connections.size
    await Promise.all(Array.from({ length: 10 }, () => open(t, url)))

    assert.equal(other.app.rohrpost.connections.size, before + 10)
    assert.equal(stopping.app.rohrpost.connections.size, 1)
    release.resolve()
    assert.equal((await first.next()).id, 1)
    assert.deepEqual(await first.closed, { code: 1012, reason: 'service restart' })
    await drained
  })

  test('passes large messages in both directions', async (t) => {
    const server = await startApp(t)
    const client = await open(t, await startNginx(t, [server]))
    const data = 'x'.repeat(1_000_000)

    assert.equal((await client.call('ping', data)).data, data)
  })
})

type Replacement = [documented: string, instead: string]

async function startApp (t: TestContext, options: RohrpostOptions = {}, fastify: FastifyServerOptions = {}, slow = () => {}): Promise<TestServer> {
  const logs: TestServer['logs'] = []
  const app = Fastify({ ...fastify, logger: { level: 'info', stream: { write: (line: string) => { logs.push(JSON.parse(line)) } } } })
  t.after(() => app.close())
  await app.register(rohrpost, options)
  app.rohrpost.handle('slow', () => slow())
  return listen(t, app, logs)
}

/** Starts the documented nginx before these processes. Gives where it listens, `ws://…`. */
async function startNginx (t: TestContext, servers: TestServer[], replacements: Replacement[] = []): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-nginx-'))
  const port = await freePort()
  const [first, second = first] = servers.map(({ http }) => new URL(http).host)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')
  const text = [
    ['listen 80;', `listen 127.0.0.1:${port};`],
    ['server 127.0.0.1:3000;', `server ${first};`],
    ['server 127.0.0.1:3001;', servers.length > 1 ? `server ${second};` : ''],
    ['worker_processes auto;', 'worker_processes 1;'],
    ['http {\n', `http {\n  access_log off; ${temporary}\n`],
    ...replacements
  ].reduce((text, [from = '', to = '']) => {
    assert.equal(text.split(from).length, 2, `'${from}' stands in docs/operations.md once`)
    return text.replace(from, () => to)
  }, documented)
  writeFileSync(join(folder, 'nginx.conf'), text)

  const child = spawn(String(nginx), ['-p', folder, '-c', 'nginx.conf', '-e', 'stderr', '-g', `daemon off; pid ${folder}/pid;`], { stdio: ['ignore', 'ignore', 'pipe'] })
  t.after(async () => {
    child.kill('SIGTERM')
    if (child.exitCode === null) await once(child, 'exit')
    rmSync(folder, { recursive: true })
  })
  await ready(child, port)
  return `ws://127.0.0.1:${port}`
}

async function ready (child: ChildProcess, port: number): Promise<void> {
  let said = ''
  child.stderr?.on('data', (text) => { said += text })
  for (;;) {
    if (child.exitCode !== null) throw new Error(`nginx did not start\n${said}`)
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return
    } catch {
      await new Promise(setImmediate)
    } finally {
      socket.destroy()
    }
  }
}

async function open (t: TestContext, url: string, options: ClientOptions = {}): Promise<Client> {
  const client = new Client(new WebSocket(`${url}/ws/rohrpost`, options))
  t.after(() => client.socket.terminate())
  await once(client.socket, 'open')
  return client
}

/** Opens connections until one is on this process. */
async function untilOn (t: TestContext, url: string, server: TestServer): Promise<Client> {
  for (;;) {
    const client = await open(t, url)
    if (server.app.rohrpost.connections.size > 0) return client
  }
}

async function refused (url: string, options: ClientOptions): Promise<number> {
  const socket = new WebSocket(`${url}/ws/rohrpost`, options)
  socket.on('error', () => {})
  const [, response] = await once(socket, 'unexpected-response')
  response.resume()
  socket.terminate()
  return response.statusCode
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
