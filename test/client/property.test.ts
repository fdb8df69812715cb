/** Random sequences of calls and failures: all promises settle, no listeners remain, client and server agree. */
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test, type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { WebSocket } from 'ws'
import { RohrpostClient } from '../../lib/client/index.ts'
import { check } from '../property/support/check.ts'
import type { TestServer } from '../support/server.ts'
import { serve, until, urlOf } from './support/client.ts'
import { settled } from './support/fake-socket.ts'
import { openLine, type Line } from './support/line.ts'

/** Groups from here on are denied. */
const DENIED = 4

const group = fc.nat({ max: DENIED })
const step = fc.oneof(
  fc.record({ do: fc.constantFrom('open', 'drop', 'settle', 'answered', 'never', 'abort') }),
  fc.record({ do: fc.constantFrom('subscribe', 'unsubscribe', 'follow', 'leave'), id: group })
) as fc.Arbitrary<Step>

interface Step {
  do: 'open' | 'drop' | 'settle' | 'answered' | 'never' | 'abort' | 'subscribe' | 'unsubscribe' | 'follow' | 'leave'
  id?: number
}

/** The timers that the client has set and not cleared. */
function watchTimers (t: TestContext): Set<unknown> {
  const live = new Set<unknown>()
  const { setTimeout, clearTimeout } = globalThis
  t.mock.method(globalThis, 'setTimeout', (run: () => void, delay?: number) => {
    const { stack = '' } = new Error()
    const own = stack.includes('/lib/client/') && !stack.includes('/node_modules/')
    const timer = setTimeout(() => {
      live.delete(timer)
      run()
    }, delay)
    if (own) live.add(timer)
    return timer
  })
  t.mock.method(globalThis, 'clearTimeout', (timer?: NodeJS.Timeout) => {
    live.delete(timer)
    clearTimeout(timer)
  })
  return live
}

/** A client under test, with the calls that it has received and their expected results. */
class Run {
  readonly client: RohrpostClient
  readonly controller = new AbortController()
  readonly promises: Promise<unknown>[] = []
  readonly #line: Line
  /** Calls of `subscribe` without `unsubscribe`, for each group. */
  readonly #wanted = new Map<number, number>()
  readonly #followed = new Map<number, AsyncIterableIterator<unknown>>()

  constructor (line: Line, implementation: typeof WebSocket | undefined) {
    this.#line = line
    this.client = new RohrpostClient(urlOf(line), { backoff: { min: 1, max: 4 }, WebSocket: implementation })
  }

  get groups (): string[] {
    return [...new Set([...this.#wanted.keys(), ...this.#followed.keys()])].map((id) => `todo-${id}`).sort()
  }

  async take ({ do: what, id = 0 }: Step): Promise<void> {
    const { client } = this
    const todo = { type: 'todo', id }
    if (what === 'open') await until(client, 'open')
    if (what === 'drop') this.#line.cut()
    if (what === 'settle') await settled()
    if (what === 'answered') this.promises.push(client.call('echo', 1))
    if (what === 'never') this.promises.push(client.call('never', 1, { timeout: 20 }))
    if (what === 'abort') {
      const { signal } = this.controller
      this.promises.push(client.call('never', 1, { signal }), client.ready({ signal }))
    }
    if (what === 'subscribe') {
      this.promises.push(client.subscribe(todo))
      if (id < DENIED) this.#wanted.set(id, (this.#wanted.get(id) ?? 0) + 1)
    }
    if (what === 'unsubscribe') {
      this.promises.push(client.unsubscribe(todo))
      const left = (this.#wanted.get(id) ?? 0) - 1
      if (left > 0) this.#wanted.set(id, left)
      else this.#wanted.delete(id)
    }
    if (what === 'follow' && id < DENIED && !this.#followed.has(id)) {
      const changes = client.changes(todo, { signal: this.controller.signal })
      this.#followed.set(id, changes)
      this.promises.push(changes.next())
    }
    if (what === 'leave') {
      this.promises.push(this.#followed.get(id)?.return?.() ?? Promise.resolve())
      this.#followed.delete(id)
    }
    for (const promise of this.promises) promise.catch(() => {})
  }

  /** Waits until client and server agree, after all messages in transit have arrived. */
  async agree (): Promise<void> {
    let seen: unknown
    for (let tries = 0; tries < 50; tries++) {
      await this.client.ready()
      const server = await this.client.call('groups').catch(() => undefined)
      seen = { server, client: [...this.client.groups].sort() }
      if (isDeepStrictEqual(seen, { server: this.groups, client: this.groups })) return
    }
    assert.deepEqual(seen, { server: this.groups, client: this.groups })
  }
}

function serveTodos (t: TestContext): Promise<TestServer> {
  return serve(t, {
    with: ({ rohrpost }) => rohrpost
      .group('todo', { authorize: ({ data }) => data.id !== DENIED })
      .handle('echo', ({ data }) => data)
      .handle('never', { parallel: true }, () => new Promise(() => {}))
      .handle('groups', (_, { groups }) => [...groups].sort())
  })
}

for (const [kind, implementation] of Object.entries({ "Node's own WebSocket": undefined, ws: WebSocket })) {
  test(`settles all promises, keeps no listeners, and agrees with the server (${kind})`, async (t) => {
    const server = await serveTodos(t)
    const line = await openLine(t, server)
    const timers = watchTimers(t)

    await check(fc.asyncProperty(fc.array(step, { maxLength: 20 }), fc.boolean(), async (steps, meet) => {
      const run = new Run(line, implementation)
      const { client, controller } = run
      try {
        for (const each of steps) await run.take(each)
        if (meet) await run.agree()
      } finally {
        controller.abort()
        client.close()
      }

      await Promise.allSettled(run.promises)
      await assert.rejects(client.call('echo'), { code: 'closed' })
      await settled()
      assert.equal(timers.size, 0, 'a timer is left')
      assert.equal(getEventListeners(controller.signal, 'abort').length, 0, 'a listener is left')
      assert.equal(client.groups.size, 0)
    }), { numRuns: 100 })
  })
}
