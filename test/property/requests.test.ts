/**
 * Every request gets exactly one reply and starts in order, for any behaviour of handlers, any `concurrency`, and any
 * choice of parallel handlers.
 */
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import type { Handler, RohrpostConnection, RohrpostMessage } from '../../lib/index.ts'
import { check, fuzz } from './support/check.ts'
import { frame } from './support/frames.ts'
import { start } from './support/server.ts'

const TIMEOUT = 30_000
/** The functions of Node.js, before they are mocked. */
const real = { setTimeout, clearTimeout }

interface Answer {
  id: unknown
  type: string
  error?: string
  data?: unknown
  code?: string
  error_id?: string
}

interface Call {
  message: RohrpostMessage
  connection: RohrpostConnection
  /** Resolves when the test releases the handler. */
  gate: Promise<void>
}

interface Behaviour {
  run (call: Call): unknown
  /** The answer, without `id` and `type`. */
  answer: Omit<Answer, 'id' | 'type'>
  /** Whether it is still running after the call. */
  goesOn?: true
  /** Whether it always misses its deadline. */
  hangs?: true
}

const INTERNAL = { error: 'Internal error.', code: 'internal', error_id: 'some id' }
const cycle: unknown[] = []
cycle.push(cycle)
const meant = () => Object.assign(new Error('not like this'), { statusCode: 409, code: 'conflict' })

/** The behaviours of handlers. A handler that answers twice has one answer: the first. */
const behaviours: Record<string, Behaviour> = {
  'returns nothing': { run: () => {}, answer: {} },
  'returns data': { run: () => 0, answer: { data: 0 } },
  throws: { run: () => { throw new Error('secret') }, answer: INTERNAL },
  'throws for the client': { run: () => { throw meant() }, answer: { error: 'not like this', code: 'conflict' } },
  replies: { run: ({ message }) => message.reply('replied'), answer: { data: 'replied' } },
  'replies twice, then returns': {
    run ({ message }) {
      message.reply('first')
      message.reply('second')
      return 'third'
    },
    answer: { data: 'first' }
  },
  'replies, then throws': {
    run ({ message }) {
      message.reply('replied')
      throw new Error('secret')
    },
    answer: { data: 'replied' }
  },
  'sends a success, then returns': {
    run ({ message: { id, type }, connection }) {
      connection.sendSuccess({ id, type, data: 'sent' })
      return 'returned'
    },
    answer: { data: 'sent' }
  },
  'sends an error, then returns': {
    run ({ message: { id, type }, connection }) {
      connection.sendError({ id, type, error: 'sent' })
      return 'returned'
    },
    answer: { error: 'sent' }
  },
  'returns what has no JSON form': { run: () => cycle, answer: INTERNAL },
  resolves: { run: ({ gate }) => gate.then(() => 'resolved'), answer: { data: 'resolved' }, goesOn: true },
  'resolves to nothing': { run: ({ gate }) => gate, answer: {}, goesOn: true },
  rejects: { run: ({ gate }) => gate.then(() => Promise.reject(meant())), answer: { error: 'not like this', code: 'conflict' }, goesOn: true },
  'replies at last': { run: ({ message, gate }) => gate.then(() => message.reply('late')), answer: { data: 'late' }, goesOn: true },
  'sends at last, then rejects': {
    async run ({ message: { id, type }, connection, gate }) {
      await gate
      connection.sendSuccess({ id, type, data: 'sent' })
      throw new Error('secret')
    },
    answer: { data: 'sent' },
    goesOn: true
  },
  hangs: { run: ({ gate }) => gate.then(() => 'too late'), answer: { error: `The handler did not settle within ${TIMEOUT} ms.`, code: 'timeout' }, goesOn: true, hangs: true },
  'hangs, then replies and rejects': {
    async run ({ message, gate }) {
      await gate
      message.reply('too late')
      throw meant()
    },
    answer: { error: `The handler did not settle within ${TIMEOUT} ms.`, code: 'timeout' },
    goesOn: true,
    hangs: true
  }
}

/** Parallel requests that run at once. */
const MAX_PARALLEL = 16
const PARALLEL = 'parallel: '
const behaviourOf = (type: string) => behaviours[type.replace(PARALLEL, '')]
const isParallel = (type: string) => type.startsWith(PARALLEL)

/** A server with two handlers for each behaviour, and the controls of the running handlers. */
async function startGated (t: TestContext, limits: { concurrency: number, maxPending: { messages: number, bytes: number } }) {
  const server = await start(t, { ...limits, handlerTimeout: TIMEOUT })
  const progress = new EventEmitter()
  const started: unknown[] = []
  const running = new Map<unknown, { id: unknown, type: string, hangs: boolean, isOverdue: boolean, release: () => void }>()
  const most = { ordered: 0, parallel: 0 }

  for (const [name, { run, hangs = false }] of Object.entries(behaviours)) {
    const handler: Handler = (message, connection) => {
      const { type } = message
      const gate = Promise.withResolvers<void>()
      started.push(message.id)
      running.set(message.id, { id: message.id, type, hangs, isOverdue: false, release: gate.resolve })
      const all = [...running.values()]
      most.ordered = Math.max(most.ordered, all.filter(({ type, isOverdue }) => !isParallel(type) && !isOverdue).length)
      most.parallel = Math.max(most.parallel, all.filter(({ type }) => isParallel(type)).length)
      progress.emit('change')
      const end = () => {
        running.delete(message.id)
        progress.emit('change')
      }

      let result
      try {
        result = run({ message, connection, gate: gate.promise })
      } finally {
        if (!(result instanceof Promise)) end()
      }
      return result instanceof Promise ? result.finally(end) : result
    }
    server.app.rohrpost.handle(name, handler).handle(PARALLEL + name, { parallel: true }, handler)
  }
  return { server, progress, started, running, most }
}

const stream = fc.record({
  concurrency: fc.integer({ min: 1, max: 4 }),
  messages: fc.integer({ min: 1, max: 4 }),
  types: fc.array(fc.constantFrom('ping', 'ping', ...Object.keys(behaviours), ...Object.keys(behaviours).map((name) => PARALLEL + name)), {
    minLength: 1, maxLength: 40
  }),
  chunk: fc.integer({ min: 1, max: 30 }),
  choices: fc.infiniteStream(fc.nat())
})

test('each request gets exactly one answer, and starts in order of arrival, at most `concurrency` at once', { timeout: 60_000 * fuzz }, async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  // before the servers are closed, which would wait for mocked timers
  t.after(() => t.mock.timers.reset())
  let stuck = false

  await check(fc.asyncProperty(stream, async ({ concurrency, messages, types, chunk, choices }) => {
    // each smaller case would take as long to fail
    if (stuck) return

    const { server, progress, started, running, most } = await startGated(t, { concurrency, maxPending: { messages, bytes: 1_000_000 } })
    const client = await server.raw()
    const requests = types.map((type, n) => ({ id: n % 2 === 0 ? n : `${n}`, type }))
    const answers = new Map<unknown, Answer>()
    let failure: unknown
    const until = async (condition: () => boolean) => {
      while (!condition()) {
        if (failure !== undefined) throw failure
        const patience = new AbortController()
        const timer = real.setTimeout(() => patience.abort(new Error('nothing goes on any more')), 5000)
        try {
          await once(progress, 'change', { signal: patience.signal })
        } catch (error) {
          stuck = true
          throw error
        } finally {
          real.clearTimeout(timer)
        }
      }
    }
    const listening = (async () => {
      while (!answers.has('last')) {
        const [text = ''] = await client.take(1)
        const answer: Answer = JSON.parse(text)
        if (answer.error_id !== undefined) answer.error_id = 'some id'
        assert.equal(answers.has(answer.id), false, `a second answer: ${text}`)
        answers.set(answer.id, answer)
        progress.emit('change')
      }
    })().catch((error: unknown) => {
      failure = error
      progress.emit('change')
    })

    for (let at = 0; at < requests.length; at += chunk) {
      client.write(...requests.slice(at, at + chunk).map((request) => frame(JSON.stringify(request))))
      await new Promise(setImmediate)
    }
    for (const id of reachableAtOnce(requests, { concurrency, messages })) await until(() => answers.has(id))
    while (answers.size < requests.length || running.size > 0) {
      const waiting = [...running.values()]
      const others = waiting.filter(({ hangs }) => !hangs)
      const candidates = others.length > 0 ? others : waiting
      const chosen = candidates[choices.next().value % candidates.length]
      if (chosen === undefined) {
        await until(() => running.size > 0 || answers.size === requests.length)
        continue
      }

      if (chosen.hangs) {
        for (const handler of waiting) handler.isOverdue = true
        t.mock.timers.tick(TIMEOUT)
        await until(() => answers.has(chosen.id))
      }
      chosen.release()
      await until(() => answers.has(chosen.id) && running.get(chosen.id) !== chosen)
    }
    client.write(frame('{"id":"last","type":"ping"}'))
    await until(() => answers.has('last'))
    await listening
    assert.equal(failure, undefined)

    const expected = requests.map(({ id, type }) => type === 'ping' ? { id, type: 'pong' } : { id, type, ...behaviourOf(type)?.answer })
    assert.deepEqual(requests.map(({ id }) => answers.get(id)), expected)
    for (const parallel of [false, true]) {
      const inOrder = requests.filter(({ type }) => type !== 'ping' && isParallel(type) === parallel).map(({ id }) => id)
      assert.deepEqual(started.filter((id) => inOrder.some((known) => known === id)), inOrder)
    }
    assert.ok(most.ordered <= concurrency, `${most.ordered} ordered handlers at once`)
    assert.ok(most.parallel <= MAX_PARALLEL, `${most.parallel} parallel handlers at once`)
    client.destroy()
    await server.app.close()
  }), { numRuns: 150 })
})

/**
 * The answers that are due while all unfinished handlers still run: earlier requests, and pings until the socket is
 * paused.
 */
function reachableAtOnce (requests: { id: unknown, type: string }[], limits: { concurrency: number, messages: number }): unknown[] {
  const ids: unknown[] = []
  const running = { ordered: 0, parallel: 0 }
  const places = { ordered: limits.concurrency, parallel: MAX_PARALLEL }
  let waiting = 0
  for (const { id, type } of requests) {
    if (waiting >= limits.messages) break
    const lane = isParallel(type) ? 'parallel' : 'ordered'
    if (type === 'ping') ids.push(id)
    else if (running[lane] === places[lane]) waiting++
    else if (behaviourOf(type)?.goesOn) running[lane]++
    else ids.push(id)
  }
  return ids
}
