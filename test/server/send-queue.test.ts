import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import type { WebSocket } from 'ws'
import { Frame } from '../../lib/server/sending/frame.ts'
import { FrameList } from '../../lib/server/sending/frame-list.ts'
import { FlushScheduler } from '../../lib/server/sending/flush-scheduler.ts'
import { SendQueue } from '../../lib/server/sending/send-queue.ts'
import { start, type Client } from '../support/server.ts'

const LIMITS = { highWaterMark: 1000, slowTimeout: 1000, maxUnsent: 1000 }

/** Outboxes with fake sockets that record their writes. */
function lines (count: number, onSlowConsumer: () => void = assert.fail) {
  const scheduler = new FlushScheduler(LIMITS)
  return Array.from({ length: count }, () => {
    const socket = {
      extensions: '',
      readyState: 1,
      OPEN: 1,
      bufferedAmount: 0,
      close: () => { socket.readyState = 2 },
      terminate: () => { socket.readyState = 3 }
    }
    const line = {
      socket,
      written: [] as Buffer[],
      corks: 0,
      cork () { line.corks++ },
      uncork () { line.corks-- },
      fails: false,
      write (bytes: Buffer) {
        if (line.fails) throw new Error('broken')
        line.written.push(bytes)
      }
    }
    const sendQueue = new SendQueue(socket as unknown as WebSocket, line as unknown as Duplex, scheduler, LIMITS, { onSlowConsumer })
    return Object.assign(line, { sendQueue })
  })
}

type Line = ReturnType<typeof lines>[number]

const lineOf = (client: Client) => (client.socket as unknown as { _socket: Duplex })._socket
const texts = (written: Buffer[]) => written.map((bytes) => bytes.toString('latin1').replaceAll(/\x81./g, '|'))
const endOfTurn = () => new Promise(process.nextTick)

test('encodes texts of every length as frames', async (t) => {
  const server = await start(t, { maxPayload: 1_000_000, with: (app) => app.rohrpost.handle('repeat', ({ data }) => 'ä'.repeat(Number(data))) })
  const client = await server.connect()

  for (const length of [0, 1, 48, 49, 50, 51, 60, 32_740, 32_750, 32_760, 100_000]) {
    assert.equal((await client.call('repeat', length)).data, 'ä'.repeat(length))
  }
})

test('encodes a frame once', () => {
  const frame = new Frame('x')

  assert.equal(frame.bytes, frame.bytes)
})

test('writes once for each socket and turn, and shares the bytes of equal lists', async () => {
  const [ada, bob, eve] = lines(3) as [Line, Line, Line]
  const [one, two, three] = [new Frame('1'), new Frame('2'), new Frame('3')]
  for (const { sendQueue } of [ada, bob]) sendQueue.send(one)
  eve.sendQueue.send(one)
  for (const { sendQueue } of [ada, bob]) sendQueue.send(two)
  eve.sendQueue.send(three)

  await endOfTurn()

  assert.deepEqual([ada, bob, eve].map(({ written }) => texts(written)), [['|1|2'], ['|1|2'], ['|1|3']])
  assert.equal(ada.written[0], bob.written[0])
})

test('writes a large frame without copying it, whatever else is sent in the turn', async () => {
  const [ada, bob] = lines(2) as [Line, Line]
  const [small, large] = [new Frame('1'), new Frame('x'.repeat(20_000))]
  for (const { sendQueue } of [ada, bob]) {
    sendQueue.send(new Frame('2'))
    sendQueue.send(new Frame('3'))
    sendQueue.send(large)
    sendQueue.send(small)
  }

  await endOfTurn()

  for (const { written, corks } of [ada, bob]) {
    assert.equal(corks, 0)
    assert.deepEqual(written.map(({ length }) => length), [6, 20_004, 3])
    assert.equal(written[1], large.bytes)
  }
})

test('joins small frames around large ones, in order', () => {
  const frames = ['1', 'x'.repeat(20_000), 'y'.repeat(20_000), '2', '3', 'z'.repeat(20_000)].map((text) => new Frame(text))

  const { bytes } = frames.reduce((list, frame) => list.append(frame), new FrameList())

  assert.ok(Array.isArray(bytes))
  assert.deepEqual(bytes.map(({ length }) => length), [3, 20_004, 20_004, 6, 20_004])
  assert.deepEqual(Buffer.concat(bytes), Buffer.concat(frames.map(({ bytes }) => bytes)))
})

test('writes all replies and group messages of a turn at once, in order', async (t) => {
  const server = await start(t, {
    onConnect: (connection) => connection.join('a'),
    with: (app) => app.rohrpost
      .handle('sync', () => app.rohrpost.sendToGroup('a', { id: 'news' }).then(() => 1))
      .handle('count', (_message, { request }) => {
        const { write } = request.raw.socket
        let writes = 0
        request.raw.socket.write = function (this: typeof request.raw.socket, ...args: Parameters<typeof write>) {
          writes++
          return write.apply(this, args)
        } as typeof write
        server.app.rohrpost.handle('counted', () => writes)
      })
  })
  const client = await server.connect()
  await client.call('count')

  client.socket.send('{"id":0,"type":"ping"}')
  const order: unknown[] = [(await client.next()).id]
  const burst = Array.from({ length: 16 }, (_, id) => JSON.stringify({ id, type: 'sync' }))
  lineOf(client).cork()
  for (const message of burst) client.socket.send(message)
  lineOf(client).uncork()
  for (let i = 0; i < 32; i++) order.push((await client.next()).id)

  assert.deepEqual(order.filter((id) => id !== 'news'), [0, ...Array(16).keys()])
  assert.ok(order.indexOf('news') < order.lastIndexOf(0), 'a group message stands where it was published')
  const { data } = await client.call('counted')
  assert.ok(Number(data) <= 5, `${data} writes for 33 messages`)
})

test('yields to the event loop during a flush of many sockets, and keeps the order', async () => {
  const all = lines(2500)
  const [one, two] = [new Frame('1'), new Frame('2')]
  for (const { sendQueue } of all) sendQueue.send(one)
  const served = () => all.filter(({ written }) => written.length > 0).length

  await endOfTurn()
  assert.equal(served(), 1000)
  for (const { sendQueue } of all) sendQueue.send(two)
  await new Promise(setImmediate)
  assert.equal(served(), 2000)
  while (all.some(({ written }) => !texts(written).join('').endsWith('|2'))) await new Promise(setImmediate)

  for (const { written } of all) assert.equal(texts(written).join(''), '|1|2')
})

test('reports a slow consumer once', async () => {
  let times = 0
  const [{ sendQueue, socket, written }] = lines(1, () => { times++ }) as [Line]
  socket.bufferedAmount = LIMITS.maxUnsent + 1
  for (let n = 0; n < 2; n++) {
    sendQueue.send(new Frame('1'))
    await endOfTurn()
  }

  assert.equal(times, 1)
  assert.deepEqual(written, [])
})

test('terminates a socket whose write fails, and serves the others', async () => {
  const [broken, other] = lines(2) as [Line, Line]
  broken.fails = true
  const frame = new Frame('1')
  broken.sendQueue.send(frame)
  other.sendQueue.send(frame)

  await endOfTurn()

  assert.equal(broken.socket.readyState, 3)
  assert.deepEqual(texts(other.written), ['|1'])
})

test('sends frames from before a close at once, and drops later ones', async () => {
  const [{ sendQueue, written, socket }] = lines(1) as [Line]
  sendQueue.send(new Frame('1'))

  socket.close()
  socket.close()
  sendQueue.send(new Frame('2'))
  await endOfTurn()

  assert.deepEqual(texts(written), ['|1'])
})

for (const [what, close] of [
  ['closes', (client) => client.socket.close()],
  ['breaks the rules', (client) => lineOf(client).write(Buffer.from([0xf1, 0x80, 0, 0, 0, 0]))]
] as [string, (client: Client) => void][]) {
  test(`answers a message that arrives in one chunk with the frame by which the client ${what}`, async (t) => {
    const server = await start(t)
    const client = await server.connect()

    lineOf(client).cork()
    client.send({ id: 1, type: 'ping' })
    close(client)
    lineOf(client).uncork()

    assert.equal((await client.next()).type, 'pong')
    await client.closed
  })
}

test('serves compressed and uncompressed connections, each in order', async (t) => {
  const server = await start(t, {
    onConnect: (connection) => connection.join('a'),
    websocket: { options: { perMessageDeflate: { threshold: 0 } } }
  })
  const compressed = await server.connect()
  const plain = await server.connect(undefined, { perMessageDeflate: false })
  assert.deepEqual([compressed, plain].map(({ socket }) => socket.extensions), ['permessage-deflate', ''])
  await Promise.all([compressed.call('ping'), plain.call('ping')])

  for (let n = 0; n < 50; n++) server.app.rohrpost.sendToGroup('a', { n, text: 'x'.repeat(n * 100) })

  for (const client of [compressed, plain]) {
    assert.deepEqual((await client.untilPong()).map(({ n }) => n), [...Array(50).keys()])
  }
  const closing = Promise.all([compressed.closed, plain.closed])
  await server.app.rohrpost.drain()
  assert.deepEqual((await closing).map(({ code }) => code), [1012, 1012])
})

test('serves a connection that was injected by injectWS', async (t) => {
  const server = await start(t)

  const socket = await server.app.injectWS('/ws/rohrpost')
  const answer = new Promise((resolve) => socket.once('message', (data) => resolve(String(data))))
  socket.send('{"id":1,"type":"ping"}')

  assert.equal(await answer, '{"id":1,"type":"pong"}')
  socket.terminate()
})
