/** A client that sends too much of anything is limited or disconnected, and other clients are served meanwhile. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { suite, test, type TestContext } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { deflateRawSync } from 'node:zlib'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import rohrpost, { memoryBroker } from '../../lib/index.ts'
import { frame, fragments, Opcode } from './support/frames.ts'
import { RawSocket } from './support/raw-socket.ts'
import { ask, start } from './support/server.ts'

const PING = '{"id":"still there?","type":"ping"}'
const DEFLATE = { headers: ['Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover'] }
const MIB = 2 ** 20

/** A server with a well-behaved client, and the assertion that it is served. */
async function startWitnessed (t: TestContext, options: Parameters<typeof start>[1] = {}) {
  const server = await start(t, options)
  const witness = await server.connect()
  return {
    ...server,
    async served () {
      assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
    }
  }
}

/** Writes the same bytes until the server closes the connection, or all are written. */
async function pour (client: RawSocket, bytes: Buffer, times: number): Promise<void> {
  for (let i = 0; i < times && !client.ended; i++) {
    client.write(bytes)
    await client.written()
    await new Promise(setImmediate)
  }
}

suite('fragments', () => {
  test('a message of more fragments than any client sends is closed with 1008', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw()

    client.write(...fragments('x'.repeat(20_000), 1))

    assert.equal((await client.end()).code, 1008)
    await served()
  })

  test('empty fragments count, too', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw()
    const empty = frame('', { opcode: Opcode.CONTINUATION, fin: false })

    client.write(frame('', { fin: false }), ...Array.from({ length: 20_000 }, () => empty))

    assert.equal((await client.end()).code, 1008)
    await served()
  })

  test('many fragments are one message, and a message that exceeds the limit with its fragments is closed with 1009', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw()
    const data = 'x'.repeat(10_000)
    client.write(...fragments(`{"id":1,"type":"echo","data":"${data}"}`, 1))
    assert.deepEqual(await client.take(1), [`{"id":1,"type":"echo","data":"${data}"}`])

    client.write(...fragments('x'.repeat(MIB + 1), 1000))

    assert.equal((await client.end()).code, 1009)
    await served()
  })
})

suite('compression', () => {
  const compressing = { websocket: { options: { perMessageDeflate: true } } }
  const bomb = frame(deflateRawSync(Buffer.alloc(200 * MIB)), { rsv: 4 })

  test('a bomb is closed with 1009 before it is inflated', async (t) => {
    const { raw, served } = await startWitnessed(t, compressing)
    const client = await raw(DEFLATE)
    const small = deflateRawSync(`{"id":1,"type":"echo","data":"${'x'.repeat(1000)}"}`)
    client.write(frame(small, { rsv: 4 }))
    // the answer is compressed: its arrival on an open connection is enough
    client.write(frame(PING))

    client.write(bomb)

    assert.equal((await client.end()).code, 1009)
    await served()
  })

  test('a fragmented bomb is closed with 1009, too', async (t) => {
    const { raw, served } = await startWitnessed(t, compressing)
    const client = await raw(DEFLATE)
    const piece = deflateRawSync(Buffer.alloc(MIB - 1))

    client.write(frame(piece, { rsv: 4, fin: false }))
    await pour(client, frame(piece, { opcode: Opcode.CONTINUATION, fin: false }), 50)

    assert.equal((await client.end()).code, 1009)
    await served()
  })

  test('a bomb is closed with 1009 if the app registered @fastify/websocket with its own limit', async (t) => {
    const app = Fastify()
    t.after(() => app.close())
    await app.register(websocket, { options: { perMessageDeflate: true, maxPayload: 2 * MIB } })
    await app.register(rohrpost)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const client = await RawSocket.open((app.server.address() as AddressInfo).port, DEFLATE)
    t.after(() => client.destroy())

    client.write(bomb)

    assert.equal((await client.end()).code, 1009)
  })

  test('is off by default: a compressed message is closed with 1002', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw(DEFLATE)

    client.write(bomb)

    assert.equal((await client.end()).code, 1002)
    await served()
  })
})

suite('pings', () => {
  test('100,000 pings are answered, each once and in order, to a client that reads', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw()
    for (let n = 0; n < 100; n++) {
      client.write(...Array.from({ length: 1000 }, (_, i) => frame(`{"id":${n * 1000 + i},"type":"ping"}`)))
      await served()
      assert.deepEqual(await client.take(1000), Array.from({ length: 1000 }, (_, i) => `{"id":${n * 1000 + i},"type":"pong"}`))
    }
  })

  test('a client that does not read the replies is closed', async (t) => {
    const { raw, served, app } = await startWitnessed(t, { maxUnsent: 4 * MIB, slowTimeout: 50 })
    const client = await raw()
    client.pause()

    await pour(client, frame(`{"id":1,"type":"ping","data":"${'x'.repeat(100_000)}"}`), 500)
    while (app.rohrpost.connections.size > 1) await new Promise(setImmediate)

    await served()
  })

  test("WebSocket's own pings end a client that does not read the pongs", async (t) => {
    const { raw, served, app } = await startWitnessed(t)
    const client = await raw()
    client.pause()

    await pour(client, Buffer.concat(Array.from({ length: 1000 }, () => frame('x'.repeat(125), { opcode: Opcode.PING }))), 1000)
    while (app.rohrpost.connections.size > 1) await new Promise(setImmediate)

    await served()
  })
})

suite('groups', () => {
  test('10,000 subscriptions of one client make it a member of 1000 groups', async (t) => {
    const server = await startWitnessed(t)
    server.app.rohrpost.group('todo', { authorize: () => true })
    const client = await server.raw()

    client.write(...Array.from({ length: 10_000 }, (_, id) => frame(`{"id":${id},"type":"subscribe","data":{"type":"todo","id":${id}}}`)))
    const answers = await client.take(10_000)
    const codes = answers.map((text) => (JSON.parse(text) as { code?: string }).code)

    assert.equal(codes.filter((code) => code === undefined).length, 1000)
    assert.equal(codes.filter((code) => code === 'too_many_groups').length, 9000)
    assert.deepEqual([...server.app.rohrpost.connections].map(({ groups }) => groups.size).sort(), [0, 1000])
    await server.served()
  })

  test('10,000 handlers of one client that join make it a member of 1000 groups', async (t) => {
    const server = await startWitnessed(t)
    const client = await server.raw()

    client.write(...Array.from({ length: 10_000 }, (_, id) => frame(`{"id":${id},"type":"join","data":"group-${id}"}`)))

    const answers = await client.take(10_000)
    assert.equal(answers.filter((text) => text.includes('"too_many_groups"')).length, 9000)
    await server.served()
  })

  test('10,000 pairs of subscribe and unsubscribe leave no memory behind', async (t) => {
    const server = await startWitnessed(t)
    server.app.rohrpost.group('todo', { authorize: () => true })
    const client = await server.raw()
    const turn = ['subscribe', 'unsubscribe'].map((type) => frame(`{"id":1,"type":"${type}","data":{"type":"todo","id":1}}`))

    client.write(...Array.from({ length: 10_000 }, () => turn).flat())

    const answers = await client.take(20_000)
    assert.deepEqual(answers.slice(-2), ['{"id":1,"type":"subscribe","data":{"group":"todo-1"}}', '{"id":1,"type":"unsubscribe"}'])
    assert.deepEqual([...server.app.rohrpost.connections].map(({ groups }) => groups.size), [0, 0])
  })
})

test('the unsent bytes of a client that recovers again and again without reading are bounded', async (t) => {
  const server = await startWitnessed(t, { broker: memoryBroker({ history: { size: 1000, ttl: 60_000 } }) })
  const { rohrpost } = server.app
  rohrpost.group('todo', { authorize: () => true })
  const client = await server.raw()
  const first = JSON.parse(await client.ask('{"id":1,"type":"subscribe","data":{"type":"todo","id":1},"recover":true}')) as { position: { epoch: string } }
  for (let i = 0; i < 900; i++) rohrpost.sendToGroup('todo-1', { data: 'x'.repeat(1000) })
  await client.take(900)
  const [connection] = [...rohrpost.connections].filter(({ groups }) => groups.size > 0)
  client.pause()
  const recover = { epoch: first.position.epoch, offset: 0 }

  client.write(...Array.from({ length: 200 }, (_, id) => frame(JSON.stringify({ id, type: 'subscribe', data: { type: 'todo', id: 1 }, recover }))))
  for (let i = 0; i < 50; i++) await server.served()

  assert.ok(Number(connection?.request.raw.socket.writableLength) < 4 * MIB, `${connection?.request.raw.socket.writableLength} bytes`)
  client.resume()
  assert.equal((await client.take(901)).length, 901)
})

suite('the upgrade request', () => {
  test('a client that never ends its headers is disconnected', async (t) => {
    const app = Fastify({ http: { headersTimeout: 100, connectionsCheckingInterval: 20 } })
    t.after(() => app.close())
    await app.register(rohrpost)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as AddressInfo
    const slow = connect(port, '127.0.0.1')
    t.after(() => slow.destroy())
    slow.write(`GET /ws/rohrpost HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n`)
    const timer = setInterval(() => slow.write('X-A: b\r\n'), 5)
    t.after(() => clearInterval(timer))
    slow.on('error', () => {})

    let answer = ''
    slow.on('data', (bytes) => { answer += String(bytes) })

    await new Promise((resolve) => slow.on('close', resolve))

    // the answer of the server may be lost, as it reads no further
    assert.match(answer, /^(?:HTTP\/1\.1 408 .*)?$/s)
  })

  test('may take a minute for its headers by default', async (t) => {
    const { app } = await start(t)

    assert.equal(app.server.headersTimeout, 60_000)
  })

  test('frames in the same write are answered', async (t) => {
    const { raw } = await startWitnessed(t, { onRequest: async () => { await new Promise(setImmediate) }, onConnect: async () => { await new Promise(setImmediate) } })
    const client = await raw({ early: Buffer.concat(Array.from({ length: 100 }, (_, id) => frame(`{"id":${id},"type":"echo"}`))) })

    assert.deepEqual(await client.take(100), Array.from({ length: 100 }, (_, id) => `{"id":${id},"type":"echo"}`))
  })

  test('a second request after it is not answered', async (t) => {
    const { raw, served } = await startWitnessed(t)
    const client = await raw({ early: Buffer.from('GET /ws/rohrpost HTTP/1.1\r\nHost: x\r\n\r\n') })

    assert.equal((await client.end()).code, 1002)
    await served()
  })

  test('a second request after a refused one is not answered', async (t) => {
    const { port } = await start(t, { onRequest: async (_request, reply) => reply.code(401).send('no') })
    const socket = connect(port, '127.0.0.1')
    t.after(() => socket.destroy())
    const request = `GET /ws/rohrpost HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`
    socket.write(request + request)
    let answer = ''
    socket.on('data', (bytes) => { answer += String(bytes) })
    await once(socket, 'close')

    assert.equal(answer.match(/HTTP\/1\.1 401/g)?.length, 1)
  })
})

test('floods leave no memory behind', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const server = await startWitnessed(t)
  const used = async () => {
    for (let i = 0; i < 5; i++) {
      await new Promise(setImmediate)
      gc()
    }
    const { heapUsed, external } = process.memoryUsage()
    return (heapUsed + external) / MIB
  }
  const flood = async () => {
    for (let n = 0; n < 4; n++) {
      const client = await server.raw()
      client.write(...Array.from({ length: 1000 }, (_, i) => frame(`{"id":"${'x'.repeat(1000)}","type":"join","data":"flood-${n}-${i}"}`)))
      client.write(...Array.from({ length: 1000 }, (_, i) => frame(`{"id":${i},"type":"${'y'.repeat(1000)}${i}"}`)))
      await client.take(2000)
      client.write(...fragments('z'.repeat(900_000), 1000).slice(0, -1))
      await client.written()
      client.destroy()
    }
    while (server.app.rohrpost.connections.size > 1) await new Promise(setImmediate)
  }
  await flood()
  const before = await used()

  for (let i = 0; i < 3; i++) await flood()

  const grown = await used() - before
  assert.ok(grown < 8, `${grown.toFixed(1)} MiB more than before`)
  await server.served()
})
