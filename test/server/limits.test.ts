import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import { start } from '../support/server.ts'

/** Handlers that end when the test releases them, with a record of starts and ends. */
function gate () {
  const log: string[] = []
  const open = new Map<unknown, () => void>()
  let changed = Promise.withResolvers<void>()
  return {
    log,
    async handler ({ id }: { id: unknown }) {
      log.push(`start ${id}`)
      changed.resolve()
      changed = Promise.withResolvers()
      await new Promise<void>((resolve) => open.set(id, resolve))
      log.push(`end ${id}`)
    },
    release (id: unknown) {
      open.get(id)?.()
    },
    async started (id: unknown) {
      while (!log.includes(`start ${id}`)) await changed.promise
    }
  }
}

test('runs concurrency handlers at once, in order of arrival, and answers ping meanwhile', async (t) => {
  const { handler, log, release, started } = gate()
  const server = await start(t, { concurrency: 2, with: (app) => app.rohrpost.handle('work', handler) })
  const client = await server.connect()
  for (const id of [1, 2, 3, 4]) client.send({ id, type: 'work' })

  assert.deepEqual(await client.untilPong(), [])
  assert.deepEqual(log, ['start 1', 'start 2'])
  release(2)
  assert.equal((await client.next()).id, 2)
  release(1)
  release(3)
  assert.equal((await client.next()).id, 1)
  await started(4)
  release(3)
  release(4)
  await client.next()
  await client.next()

  assert.deepEqual(log.filter((line) => line.startsWith('start')), ['start 1', 'start 2', 'start 3', 'start 4'])
})

test('runs handlers one after another by default', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('work', async ({ data }) => {
      await new Promise(setImmediate)
      return data
    })
  })
  const client = await server.connect()
  for (let i = 0; i < 50; i++) client.send({ id: i, type: 'work', data: i })

  for (let i = 0; i < 50; i++) assert.equal((await client.next()).data, i)
})

test('runs parallel handlers next to the others, up to 16 at once, and neither waits for the other', async (t) => {
  const { handler, log, release, started } = gate()
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('work', handler).handle('ask', { parallel: true }, handler).group('news', { id: false, authorize: () => true })
  })
  const client = await server.connect()
  client.send({ id: 'one', type: 'work' })
  for (let id = 1; id <= 17; id++) client.send({ id, type: 'ask' })
  client.send({ id: 'two', type: 'work' })

  await client.untilPong()
  assert.deepEqual(log, ['start one', ...Array.from({ length: 16 }, (_, n) => `start ${n + 1}`)])
  release('one')
  assert.equal((await client.next()).id, 'one')
  await started('two')
  release(5)
  assert.equal((await client.next()).id, 5)
  await started(17)
  // all parallel slots are taken, so a subscription waits for one of them
  client.send({ id: 'sub', type: 'subscribe', data: { type: 'news' } })
  assert.deepEqual(await client.untilPong(), [])
  release(1)
  assert.deepEqual([(await client.next()).id, (await client.next()).id], [1, 'sub'])
})

for (const [what, maxPending, size] of [
  ['messages', { messages: 4, bytes: 1_000_000 }, 10],
  ['bytes', { messages: 1000, bytes: 4000 }, 1000]
] as const) {
  test(`pauses the socket while too many ${what} wait, and loses none`, async (t) => {
    const { handler, release, started } = gate()
    const server = await start(t, { concurrency: 1, maxPending, with: (app) => app.rohrpost.handle('work', handler).handle('more', () => 1) })
    const client = await server.connect()
    client.send({ id: 'first', type: 'work' })
    await started('first')
    for (let i = 0; i < 20; i++) client.send({ id: i, type: 'more', data: 'x'.repeat(size) })
    // much larger than one read of the socket, so that most of it stays unread
    client.send({ id: 'huge', type: 'ping', data: 'x'.repeat(900_000) })
    await server.paused()

    release('first')

    assert.equal((await client.next()).id, 'first')
    for (let i = 0; i < 20; i++) assert.equal((await client.next()).id, i)
    assert.equal((await client.next()).id, 'huge')
  })
}

test('does not terminate a client whose messages wait while it is silent', async (t) => {
  const { handler, release, started } = gate()
  const server = await start(t, {
    concurrency: 1, heartbeatInterval: 10, maxPending: { messages: 1, bytes: 1000 }, with: (app) => app.rohrpost.handle('work', handler)
  })
  const client = await server.connect(undefined, { autoPong: false })
  client.send({ id: 1, type: 'work' })
  client.send({ id: 2, type: 'work' })
  await started(1)
  await server.connect(undefined, { autoPong: false }).then(({ closed }) => closed)

  release(1)
  await started(2)
  release(2)

  assert.equal((await client.next()).id, 1)
  assert.equal((await client.next()).id, 2)
})

test('replies timeout for an overdue handler, aborts its signal and runs the next one', async (t) => {
  const { handler, log, release, started } = gate()
  let reason: unknown
  const server = await start(t, {
    handlerTimeout: 20,
    with: (app) => app.rohrpost.handle('slow', async (message) => {
      message.signal.addEventListener('abort', () => { reason = message.signal.reason })
      await handler(message)
      return 'late'
    }).handle('next', ({ id }) => { log.push(`start ${id}`) })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })
  client.send({ id: 2, type: 'next' })
  await started(1)

  assert.deepEqual(await client.next(), { id: 1, type: 'slow', error: 'The handler did not settle within 20 ms.', code: 'timeout' })
  assert.deepEqual(await client.next(), { id: 2, type: 'next' })
  assert.equal((reason as DOMException).name, 'TimeoutError')
  assert.deepEqual(log, ['start 1', 'start 2'])
  release(1)
  assert.deepEqual(await client.untilPong(), [])
  assert.ok(server.logs.some(({ msg }) => msg === 'a second reply to one request was not sent'))
})

test('lets at most 16 overdue handlers give up their slots', async (t) => {
  const { handler, log, release, started } = gate()
  const server = await start(t, { handlerTimeout: 5, drainTimeout: 10, with: (app) => app.rohrpost.handle('slow', handler).handle('next', () => 1) })
  const client = await server.connect()
  for (let id = 1; id <= 18; id++) client.send({ id, type: 'slow' })
  client.send({ id: 'next', type: 'next' })

  for (let id = 1; id <= 17; id++) assert.deepEqual([(await client.next()).code, id], ['timeout', id])
  assert.deepEqual(await client.untilPong(), [])
  assert.equal(log.includes('start 18'), false)
  release(1)
  await started(18)
  assert.equal((await client.next()).id, 18)
  release(2)

  assert.deepEqual(await client.next(), { id: 'next', type: 'next', data: 1 })
})

test('an overdue parallel handler keeps its slot until it ends', async (t) => {
  const { handler, log, release, started } = gate()
  const server = await start(t, { handlerTimeout: 5, drainTimeout: 10, with: (app) => app.rohrpost.handle('ask', { parallel: true }, handler) })
  const client = await server.connect()
  for (let id = 1; id <= 17; id++) client.send({ id, type: 'ask' })

  for (let id = 1; id <= 16; id++) assert.equal((await client.next()).code, 'timeout')
  assert.deepEqual(await client.untilPong(), [])
  assert.equal(log.includes('start 17'), false)
  release(3)

  await started(17)
})

test('a signal that is first read after the deadline is already aborted', async (t) => {
  const { handler, release, started } = gate()
  const aborted = Promise.withResolvers<boolean>()
  const server = await start(t, {
    handlerTimeout: 10,
    with: (app) => app.rohrpost.handle('slow', async (message) => {
      await handler(message)
      aborted.resolve(message.signal.aborted)
    })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'slow' })
  await started(1)
  await client.next()

  release(1)

  assert.equal(await aborted.promise, true)
})

test('aborts the signal when the client disconnects, and does not log the resulting error of the handler', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<void>()
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('watch', { parallel: true }, async ({ signal }) => {
        resolve()
        await once(signal, 'abort')
        ended.resolve()
        signal.throwIfAborted()
      })
      .handle('listen', { parallel: true }, ({ signal }) => once(new EventEmitter(), 'never', { signal }))
      .handle('return', { parallel: true }, async ({ signal }) => {
        await once(signal, 'abort')
        return 'to nobody'
      })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'return' })
  client.send({ id: 2, type: 'listen' })
  client.send({ id: 3, type: 'watch' })
  await promise

  client.socket.terminate()
  await ended.promise
  await server.app.close()

  assert.deepEqual(server.logs.filter(({ level }) => level >= 40), [])
})

test('keeps a client that sends messages but no pongs', async (t) => {
  const server = await start(t, { heartbeatInterval: 30 })
  const silent = await server.connect(undefined, { autoPong: false })
  const talking = await server.connect(undefined, { autoPong: false })
  const timer = setInterval(() => talking.send({ id: 'alive', type: 'ping' }), 10)
  t.after(() => clearInterval(timer))

  await silent.closed

  while (server.app.rohrpost.connections.size > 1) await new Promise(setImmediate)
  assert.equal((await talking.next()).id, 'alive')
})

test('notices a disconnect while the socket is paused', async (t) => {
  const { handler, started } = gate()
  const gone = Promise.withResolvers<void>()
  const server = await start(t, {
    concurrency: 1,
    heartbeatInterval: 20,
    drainTimeout: 10,
    maxPending: { messages: 1, bytes: 1000 },
    onDisconnect: () => gone.resolve(),
    with: (app) => app.rohrpost.handle('work', handler)
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'work' })
  await started(1)
  for (let id = 2; id < 10; id++) client.send({ id, type: 'work', data: 'x'.repeat(100_000) })
  await server.paused()

  client.socket.terminate()

  await gone.promise
})

test('closes with 1009 on a message that is too large', async (t) => {
  const server = await start(t, { maxPayload: 1000 })
  const client = await server.connect()

  client.send({ id: 1, type: 'ping', data: 'x'.repeat(1000) })

  assert.equal((await client.closed).code, 1009)
})

test('refuses a group beyond maxGroups', async (t) => {
  const server = await start(t, {
    maxGroups: 2,
    with: (app) => app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data)))
      .handle('leave', ({ data }, connection) => connection.leave(String(data)))
  })
  const client = await server.connect()
  await client.call('join', 'a')
  await client.call('join', 'b')

  assert.equal((await client.call('join', 'b')).error, undefined)
  assert.deepEqual(await client.call('join', 'c'), {
    id: 4, type: 'join', error: "Can't join 'c': the connection is in 2 groups, the maximum", code: 'too_many_groups'
  })
  await client.call('leave', 'a')
  assert.equal((await client.call('join', 'c')).error, undefined)
})

test('terminates a silent client, and only that one', async (t) => {
  const server = await start(t, { heartbeatInterval: 20 })
  const alive = await server.connect()
  const silent = await server.connect(undefined, { autoPong: false })

  const { code } = await silent.closed

  assert.equal(code, 1006)
  assert.equal((await alive.call('ping')).type, 'pong')
  assert.equal(server.app.rohrpost.connections.size, 1)
})

test("counts a client's own ping as a sign of life", async (t) => {
  const server = await start(t, { heartbeatInterval: 30 })
  const silent = await server.connect(undefined, { autoPong: false })
  const pinging = await server.connect(undefined, { autoPong: false })
  const timer = setInterval(() => pinging.socket.ping(), 10)
  t.after(() => clearInterval(timer))

  await silent.closed

  assert.equal((await pinging.call('ping')).type, 'pong')
})
