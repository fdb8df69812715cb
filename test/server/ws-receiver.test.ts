import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Duplex, Writable } from 'node:stream'
import { suite, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import * as ws from 'ws'
import type { WebSocket } from 'ws'
import { mergeChunks, resumeReading, pauseReading } from '../../lib/server/requests/ws-receiver.ts'
import { fragments, frame } from '../property/support/frames.ts'
import { record } from '../support/events.ts'
import { start, type Client } from '../support/server.ts'

interface Parser extends Writable {
  _buffers: Buffer[]
  _fragments: Buffer[]
}

const { Receiver } = ws as unknown as { Receiver: new (options: object) => Parser }
const lineOf = (client: Client) => (client.socket as unknown as { _socket: Duplex })._socket

/** A socket with the parser of `ws`, and the messages that it emits. */
function open (listener?: (socket: WebSocket, count: number) => void) {
  const receiver = new Receiver({ isServer: true })
  const socket = {
    isPaused: false,
    pause () { socket.isPaused = true },
    resume () { socket.isPaused = false },
    _receiver: receiver,
    _socket: new Duplex({ read () {}, write () {} })
  }
  const messages: string[] = []
  receiver.on('message', (data: Buffer) => {
    messages.push(String(data))
    listener?.(socket as unknown as WebSocket, messages.length)
  })
  return { receiver, messages, line: socket._socket, socket: socket as unknown as WebSocket }
}

suite('the limits of waiting messages', () => {
  const flood = Array.from({ length: 1000 }, (_, n) => `{"id":${n},"type":"work"}`)

  for (const [what, options] of [['', { perMessageDeflate: false }], [', compressed', {}]] as const) {
    for (const when of ['a handler is busy', 'onConnect runs']) {
      test(`accepts no more than maxPending of the messages that arrive in one chunk${what}, while ${when}`, async (t) => {
        const events = record(t, 'reply')
        const gate = Promise.withResolvers<void>()
        t.after(() => gate.resolve())
        const server = await start(t, {
          maxPending: { messages: 50, bytes: 1_000_000 },
          drainTimeout: 60_000,
          websocket: { options: { perMessageDeflate: { threshold: 0 } } },
          ...(when === 'onConnect runs' && { onConnect: () => gate.promise }),
          with: (app) => app.rohrpost.handle('work', () => gate.promise)
        })
        const client = await server.connect(undefined, options)
        lineOf(client).cork()
        for (const text of flood) client.socket.send(text)
        lineOf(client).uncork()
        await server.paused()
        if (when === 'onConnect runs') {
          gate.resolve()
          for (const [id] of flood.entries()) assert.equal((await client.next()).id, id)
          return
        }

        const drained = server.app.rohrpost.drain()
        assert.equal(events.reply.filter(({ code }) => code === 'unavailable').length, 50)

        for (const [id] of flood.entries()) if (id > 0) assert.deepEqual([(await client.next()).code, id], ['unavailable', id])
        gate.resolve()
        assert.equal((await client.next()).id, 0)
        await drained
      })
    }
  }
})

test('merges the chunks of a message that arrives byte by byte', async () => {
  const { receiver, messages, socket } = open()
  mergeChunks(socket)
  const text = randomBytes(20_000).toString('hex')
  let most = 0

  for (const byte of frame(text)) {
    receiver.write(Buffer.from([byte]))
    most = Math.max(most, receiver._buffers.length)
  }

  assert.deepEqual(messages, [text])
  assert.ok(most < 60, `${most} pieces`)
})

test('does not copy large chunks to merge a small one', () => {
  const { receiver, messages, socket } = open()
  mergeChunks(socket)
  const text = 'x'.repeat(100_000)
  const bytes = frame(text)
  let at = 0
  const feed = (size: number) => {
    receiver.write(bytes.subarray(at, at + size))
    at += size
  }

  for (let n = 0; n < 31; n++) feed(2000)
  feed(1)
  feed(1)
  assert.equal(receiver._buffers.length, 33)
  feed(bytes.length)

  assert.deepEqual(messages, [text])
})

test('any division of a message into chunks gives the whole message in few buffers', async () => {
  const sizes = fc.array(fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 3000 })), { minLength: 1, maxLength: 300 })

  fc.assert(fc.property(fc.nat({ max: 60_000 }), fc.integer({ min: 1, max: 5000 }), sizes, (length, fragment, cuts) => {
    const { receiver, messages, socket } = open()
    mergeChunks(socket)
    const text = 'abc'.repeat(length).slice(0, length)
    const bytes = Buffer.concat([...fragments(text, fragment), frame('next')])

    for (let at = 0, turn = 0; at < bytes.length; turn++) {
      const size = 1 + Number(cuts[turn % cuts.length])
      receiver.write(bytes.subarray(at, at + size))
      at += size
      assert.ok(receiver._buffers.length < 60, `${receiver._buffers.length} pieces`)
    }

    assert.deepEqual(messages, [text, 'next'])
  }), { numRuns: 200 })
})

test('merges the fragments that arrived in earlier chunks', () => {
  const { receiver, messages, socket } = open()
  mergeChunks(socket)
  let most = 0

  for (const bytes of fragments('x'.repeat(5000), 1)) {
    receiver.write(bytes)
    most = Math.max(most, receiver._fragments.length)
  }

  assert.deepEqual(messages, ['x'.repeat(5000)])
  assert.ok(most < 60, `${most} fragments`)
})

suite('a paused receiver', () => {
  const three = () => Buffer.concat(['1', '2', '3'].map((text) => frame(text)))

  test('emits no further message of the same or the next chunk until it is resumed', async () => {
    const { receiver, messages, socket } = open((socket, count) => { if (count === 1) pauseReading(socket) })
    receiver.write(three())
    receiver.write(frame('4'))
    await setImmediate()
    assert.deepEqual(messages, ['1'])

    resumeReading(socket)
    assert.deepEqual(messages, ['1'])
    await setImmediate()

    assert.deepEqual(messages, ['1', '2', '3', '4'])
  })

  test('resumes without a write during the pause', async () => {
    const { receiver, messages, socket } = open((socket, count) => { if (count === 1) pauseReading(socket) })
    receiver.write(three())

    resumeReading(socket)
    await setImmediate()

    assert.deepEqual(messages, ['1', '2', '3'])
    receiver.write(frame('4'))
    assert.equal(messages.length, 4)
  })

  test('stays paused if it is paused again before it has resumed', async () => {
    const { receiver, messages, socket } = open((socket, count) => { if (count === 1) pauseReading(socket) })
    receiver.write(three())

    resumeReading(socket)
    pauseReading(socket)
    await setImmediate()
    assert.deepEqual(messages, ['1'])
    resumeReading(socket)
    await setImmediate()

    assert.equal(messages.length, 3)
  })

  test('ends when the socket closes, even with a pending write', async () => {
    for (const writes of [1, 2]) {
      const { receiver, messages, line, socket } = open((socket, count) => { if (count === 1) pauseReading(socket) })
      receiver.write(three())
      if (writes === 2) receiver.write(frame('4'))
      const finished = once(receiver, 'finish')

      receiver.end()
      line.destroy()
      await finished
      resumeReading(socket)
      await setImmediate()

      // messages that were already read are not emitted any more
      assert.equal(messages.length, writes === 1 ? 1 : 4)
    }
  })

  test('of an unknown shape does not prevent the pause of the socket', () => {
    for (const receiver of [undefined, null, {}, { _buffers: [] }, { _buffers: [], _fragments: [] }]) {
      const { socket } = open()
      Object.assign(socket, { _receiver: receiver })

      mergeChunks(socket)
      pauseReading(socket)
      assert.equal(socket.isPaused, true)
      resumeReading(socket)

      assert.equal(socket.isPaused, false)
    }
  })
})

test('the disconnect of a client is noticed while its socket is paused', async (t) => {
  const [gone, entered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = await start(t, {
    drainTimeout: 10,
    maxPending: { messages: 2, bytes: 1000 },
    onDisconnect: () => gone.resolve(),
    with: (app) => app.rohrpost.handle('work', () => { entered.resolve(); return new Promise(() => {}) })
  })
  const client = await server.connect()
  for (let id = 0; id < 100; id++) client.send({ id, type: 'work' })
  await entered.promise
  await server.paused()

  const [connection] = server.app.rohrpost.connections
  connection?.request.raw.socket.destroy()

  await gone.promise
})
