/**
 * Pending `subscribe` requests: everything that ends a membership cancels them, and they never undo a membership that
 * the application made. The suites cover each place where a `subscribe` waits (see `Stage`) and each way in which it
 * may end.
 */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { memoryBroker, type Broker, type Position, type RohrpostConnection, type RohrpostOptions } from '../../lib/index.ts'
import { start, type Frame } from '../support/server.ts'

/**
 * The places where a `subscribe` waits:
 *
 * - `authorize`: the application decides.
 * - `order`: an earlier `subscribe` of the same group waits for `authorize`.
 * - `replay`: the client has not read the missed messages of another group.
 * - `broker`: the broker subscribes for the first member of the group.
 * - `history`: the broker reads the missed messages.
 */
type Stage = 'authorize' | 'order' | 'replay' | 'broker' | 'history'

const STAGES: readonly Stage[] = ['authorize', 'order', 'replay', 'broker', 'history']
const GROUP = 'todo-2'
const TIMEOUT = 60_000

const turn = () => new Promise(setImmediate)

/** Resolves when a condition holds. */
async function until (isSo: () => unknown): Promise<void> {
  while (!isSo()) await turn()
}

/** A server, and a client whose `subscribe` with the id `waiting` waits for the group `todo-2`. */
async function pend (t: TestContext, stage: Stage, options: RohrpostOptions = {}, before: (connection: RohrpostConnection) => unknown = () => {}) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const memory = memoryBroker({ history: { size: 100, ttl: 600_000 } })
  const gate = Promise.withResolvers<void>()
  let asked = 0
  let isGated = false
  const pass = (at: Stage, group: string) => {
    if (!isGated || group !== GROUP || at !== (stage === 'order' ? 'authorize' : stage)) return
    asked++
    return gate.promise
  }
  const subscribed = new Set<string>()
  const broker: Broker = {
    ...memory,
    async subscribe (group) {
      await pass('broker', group)
      subscribed.add(group)
      return memory.subscribe(group)
    },
    async unsubscribe (group) {
      subscribed.delete(group)
      return memory.unsubscribe(group)
    },
    async history (group, after, limit, bytes) {
      await pass('history', group)
      return memory.history(group, after, limit, bytes)
    }
  }
  let answer: boolean | undefined
  let authorized = 0
  const server = await start(t, {
    broker,
    handlerTimeout: TIMEOUT,
    recoveryLimit: { messages: 100, bytes: 10_000_000 },
    ...options,
    with: (app) => app.rohrpost.group('todo', {
      async authorize ({ data }) {
        if (data.id === 2) {
          authorized++
          await pass('authorize', GROUP)
        }
        return data.id !== 2 || (answer ?? true)
      }
    })
  })
  const { app } = server

  const first = await server.connect()
  const positions: Position[] = []
  for (const id of [1, 2]) positions.push((await first.ask({ id, type: 'subscribe', data: { type: 'todo', id }, recover: true })).position as Position)
  const [one, two] = positions
  first.socket.terminate()
  await until(() => app.rohrpost.connections.size === 0 && !subscribed.has('todo-1') && !subscribed.has(GROUP))
  for (let n = 0; n < 30; n++) app.rohrpost.sendToGroup('todo-1', { text: 'x'.repeat(10_000) })
  app.rohrpost.sendToGroup(GROUP, { n: 1 })

  const client = await server.connect()
  const frames: Frame[] = []
  client.socket.on('message', (data) => frames.push(JSON.parse(String(data))))
  const [connection] = [...app.rohrpost.connections] as [RohrpostConnection]
  await before(connection)
  authorized = 0
  isGated = true
  const line = connection.request.raw.socket
  const subscribe = (id: unknown, group: number, recover?: unknown) => client.send({ id, type: 'subscribe', data: { type: 'todo', id: group }, recover })
  if (stage === 'replay') {
    // writes do not leave the socket, so the replay pauses
    line.cork()
    subscribe('other', 1, one)
    await until(() => connection.groups.has('todo-1'))
  }
  if (stage === 'order') subscribe('earlier', 2, two)
  subscribe('waiting', 2, two)
  await until(() => authorized > 0)
  if (stage === 'replay') for (let n = 0; n < 3; n++) await turn()
  else await until(() => asked === 1)
  // the server reads in order, so it has read the pending one
  if (stage === 'order') await client.read()

  return {
    ...server,
    client,
    connection,
    frames,
    subscribed,
    subscribe,
    /** The answers to the pending `subscribe`. */
    answers: (id: unknown = 'waiting') => frames.filter((frame) => frame.id === id),
    /** Advances the time to the request's deadline. */
    expire: () => t.mock.timers.tick(TIMEOUT),
    /** Makes `authorize` return false. */
    refuse () { answer = false },
    fail: (error: Error) => gate.reject(error),
    /** Continues the stage at which the `subscribe` waits. */
    release () {
      gate.resolve()
      line.uncork()
    }
  }
}

type Pending = Awaited<ReturnType<typeof pend>>

interface End {
  end (pending: Pending): unknown
  /** The code of the answer, `success`, or `none` if the connection closes before it. */
  answer: string
  /** The close code, if the connection closes. */
  closes?: number
}

const ENDS: Record<string, End> = {
  'connection.leave': { answer: 'access_denied', end: ({ connection }) => connection.leave(GROUP) },
  'disconnect of the group': { answer: 'access_denied', closes: 4403, end: ({ app }) => app.rohrpost.disconnect(GROUP) },
  'disconnect by a predicate': { answer: 'access_denied', closes: 4401, end: ({ app }) => app.rohrpost.disconnect(() => true, 4401) },
  'connection.close': { answer: 'none', closes: 1000, end: ({ connection }) => connection.close() },
  'the loss of the connection': { answer: 'none', closes: 1006, end: ({ client }) => client.socket.terminate() },
  'the drain': { answer: 'unavailable', closes: 1012, end: ({ app }) => { app.rohrpost.drain() } },
  'the deadline': { answer: 'timeout', end: ({ expire }) => expire() },
  'an unsubscribe': {
    answer: 'success',
    async end ({ client, release, answers }) {
      client.send({ id: 'out', type: 'unsubscribe', data: { type: 'todo', id: 2 } })
      release()
      await until(() => answers('out').length === 1)
    }
  }
}

suite('a pending subscribe', () => {
  for (const stage of STAGES) {
    for (const [name, { end, answer, closes }] of Object.entries(ENDS)) {
      test(`at '${stage}' is cancelled by ${name}`, async (t) => {
        const pending = await pend(t, stage)
        const { app, client, connection, frames, subscribed, answers, release } = pending

        await end(pending)
        release()
        if (closes !== undefined) assert.equal((await client.closed).code, closes)
        else await until(() => answers().length === 1)
        await until(() => !subscribed.has(GROUP))
        for (let n = 0; n < 3; n++) await turn()
        app.rohrpost.sendToGroup(GROUP, { secret: true })
        if (closes === undefined) await client.read()

        assert.deepEqual(frames.filter(({ secret }) => secret), [])
        assert.deepEqual(answers().map(({ code }) => code ?? 'success'), answer === 'none' ? [] : [answer])
        if (closes === undefined) assert.equal(connection.groups.has(GROUP), false)
      })
    }
  }

  for (const stage of STAGES) {
    test(`at '${stage}' counts towards maxGroups after authorize, until its deadline`, async (t) => {
      const { client, connection, answers, expire, release, subscribe } = await pend(t, stage, { maxGroups: stage === 'replay' ? 3 : 2 }, (connection) => connection.join('another'))

      subscribe('third', 3)
      await until(() => connection.groups.has('todo-3') || answers('third').length === 1)
      const isCounted = stage === 'broker' || stage === 'history'
      assert.equal(connection.groups.has('todo-3'), !isCounted)
      expire()
      if (isCounted) {
        assert.equal(answers('third')[0]?.code, 'too_many_groups')
        subscribe('fourth', 4)
        await until(() => connection.groups.has('todo-4'))
      }
      release()
      await until(() => answers().length === 1)
      await client.read()

      assert.equal(answers()[0]?.code, 'timeout')
      assert.ok(!connection.groups.has(GROUP))
    })

    test(`at '${stage}' does not prevent a join after a leave`, async (t) => {
      const { app, client, connection, frames, answers, release } = await pend(t, stage)

      connection.leave(GROUP)
      const joined = connection.join(GROUP)
      release()
      await joined
      await until(() => answers().length === 1)
      app.rohrpost.sendToGroup(GROUP, { n: 2 })
      await client.read()

      assert.equal(answers()[0]?.code, 'access_denied')
      assert.deepEqual(frames.filter(({ n }) => n === 2), [{ n: 2 }])
      assert.ok(connection.groups.has(GROUP))
    })
  }

  test('at \'authorize\' fails if authorize returns false or throws', async (t) => {
    const { connection, answers, refuse, release } = await pend(t, 'authorize')
    refuse()
    release()
    await until(() => answers().length === 1)

    assert.equal(answers()[0]?.code, 'access_denied')
    assert.equal(connection.groups.has(GROUP), false)
  })

  test('logs an authorize that fails after the cancellation', async (t) => {
    const { client, connection, answers, fail, logs } = await pend(t, 'authorize')
    connection.leave(GROUP)
    fail(new Error('no database'))
    await until(() => answers().length === 1)
    await client.read()

    assert.equal(answers()[0]?.code, 'internal')
    assert.deepEqual(logs.filter(({ level }) => level === 50).map(({ err }) => err?.message), ['no database'])
  })
})

suite('a membership by the application', () => {
  const whens = ['before', 'while'] as const
  const hows = { 'the deadline': ({ expire }: Pending) => expire(), 'a refusal': ({ refuse }: Pending) => refuse(), 'a broker that fails': ({ fail }: Pending) => fail(new Error('away')) }

  for (const when of whens) {
    for (const stage of STAGES) {
      for (const [how, end] of Object.entries(hows)) {
        if (how === 'a refusal' && stage !== 'authorize') continue
        if (how === 'a broker that fails' && stage !== 'history') continue
        // a group with a member needs no subscription
        if (stage === 'broker' && when === 'before') continue

        test(`made ${when} a subscribe waits at '${stage}' outlasts ${how}, and ends with leave`, async (t) => {
          const pending = await pend(t, stage, {}, when === 'before' ? (connection) => connection.join(GROUP) : undefined)
          const { app, client, connection, frames, subscribed, answers, release } = pending

          if (stage === 'history') app.rohrpost.sendToGroup(GROUP, { n: 2 })
          const joined = when === 'while' ? connection.join(GROUP) : undefined
          if (stage === 'history') app.rohrpost.sendToGroup(GROUP, { n: 3 })
          end(pending)
          release()
          await joined
          await until(() => answers().length === 1)
          app.rohrpost.sendToGroup(GROUP, { n: 4 })
          await client.read()

          assert.notEqual(answers()[0]?.code, undefined)
          // without positions, since the join
          const heard = stage !== 'history' ? [4] : when === 'before' ? [2, 3, 4] : [3, 4]
          assert.deepEqual(frames.filter((frame) => 'n' in frame), heard.map((n) => ({ n })))
          assert.ok(connection.groups.has(GROUP))

          connection.leave(GROUP)
          app.rohrpost.sendToGroup(GROUP, { n: 5 })
          await client.read()
          assert.deepEqual(frames.filter(({ n }) => n === 5), [])
          await until(() => !subscribed.has(GROUP))
        })
      }
    }
  }

  for (const end of ['connection.leave', 'connection.close', 'disconnect of the group', 'disconnect by a predicate']) {
    test(`receives no buffered messages after ${end}`, async (t) => {
      const pending = await pend(t, 'history', {}, (connection) => connection.join(GROUP))
      const { app, client, frames, release } = pending
      app.rohrpost.sendToGroup(GROUP, { n: 2 })

      const { closes, end: run } = ENDS[end] ?? assert.fail()
      await run(pending)
      release()
      await (closes === undefined ? client.read() : client.closed)

      assert.deepEqual(frames.filter((frame) => 'n' in frame), [])
    })
  }

  test('made during a subscribe fails only with the broker, and can be retried', async (t) => {
    const { app, client, connection, answers, fail, frames } = await pend(t, 'broker')
    const joining = Promise.resolve(connection.join(GROUP))
    fail(new Error('away'))

    await assert.rejects(joining, { code: 'RP_ERR_UNAVAILABLE' })
    await until(() => answers().length === 1)
    assert.equal(answers()[0]?.code, 'unavailable')
    assert.equal(connection.groups.has(GROUP), false)
    assert.equal(app.rohrpost.connections.size, 1)
    await client.read()
    assert.deepEqual(frames.filter((frame) => 'n' in frame), [])
  })

  test('ends when onConnect refuses the client afterwards', async (t) => {
    const memory = memoryBroker()
    const left = Promise.withResolvers<string>()
    const refusal = Promise.withResolvers<void>()
    const server = await start(t, {
      broker: { ...memory, unsubscribe: (group) => left.resolve(group) },
      async onConnect (connection) {
        connection.join(GROUP)
        await refusal.promise
        throw new Error('unknown user')
      }
    })
    const client = await server.connect()
    const [connection] = server.app.rohrpost.connections
    refusal.resolve()

    assert.equal(await left.promise, GROUP)
    await connection?.join('another')
    assert.deepEqual([...connection?.groups ?? []], [GROUP])
    assert.equal((await client.closed).code, 4403)
  })
})

suite('a broker that fails for one group', () => {
  for (const how of ['rejects', 'throws', 'hangs'] as const) {
    test(`and ${how} does not affect the other groups of a connection`, async (t) => {
      const memory = memoryBroker()
      const server = await start(t, {
        broker: {
          ...memory,
          subscribe (group) {
            if (group !== GROUP) return memory.subscribe(group)
            if (how === 'throws') throw new Error('away')
            return how === 'hangs' ? new Promise(() => {}) : Promise.reject(new Error('away'))
          }
        },
        with: (app) => app.rohrpost.group('todo', { authorize: () => true })
      })
      const client = await server.connect()
      const frames: Frame[] = []
      client.socket.on('message', (data) => frames.push(JSON.parse(String(data))))
      for (const id of [1, 2, 3]) client.send({ id, type: 'subscribe', data: { type: 'todo', id } })
      await until(() => frames.length === (how === 'hangs' ? 2 : 3))

      for (const { id, code } of frames) assert.equal(code, id === 2 ? 'unavailable' : undefined)
      const [connection] = server.app.rohrpost.connections
      assert.deepEqual([...connection?.groups ?? []], how === 'hangs' ? ['todo-1', GROUP, 'todo-3'] : ['todo-1', 'todo-3'])
      assert.deepEqual(server.logs.filter(({ level }) => level === 50).map(({ group }) => group), how === 'hangs' ? [] : [GROUP])
      for (const id of [1, 2, 3]) server.app.rohrpost.sendToGroup(`todo-${id}`, { heard: id })
      await client.read()
      assert.deepEqual(frames.flatMap(({ heard }) => heard ?? []), [1, 3])
    })
  }

  test('and ends an unsubscribe late lets the group be joined again afterwards', async (t) => {
    const memory = memoryBroker()
    const calls: string[] = []
    const late = Promise.withResolvers<void>()
    const server = await start(t, {
      broker: {
        ...memory,
        subscribe (group) {
          if (group === GROUP) calls.push('subscribe')
          return memory.subscribe(group)
        },
        async unsubscribe (group) {
          calls.push('unsubscribe')
          await late.promise
          return memory.unsubscribe(group)
        }
      },
      with: (app) => app.rohrpost.group('todo', { authorize: () => true })
    })
    const client = await server.connect()
    const data = { type: 'todo', id: 2 }
    await client.call('subscribe', data)
    await client.call('unsubscribe', data)
    client.send({ id: 'again', type: 'subscribe', data })
    assert.deepEqual(await client.untilPong(), [])
    late.resolve()

    assert.equal((await client.next()).id, 'again')
    server.app.rohrpost.sendToGroup(GROUP, { n: 1 })
    assert.deepEqual(await client.next(), { n: 1 })
    assert.deepEqual(calls, ['subscribe', 'unsubscribe', 'subscribe'])
  })
})
