/**
 * Recovery under any sequence of events: a member with positions receives each message once and in order, or a resync.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import type { WebSocket } from 'ws'
import type { Position } from '../../lib/index.ts'
import { start, type Client, type TestServer } from '../support/server.ts'
import { check } from './support/check.ts'
import { LaggingBroker } from './support/lagging-broker.ts'

const CLIENTS = 4
const GROUPS = 2

type Step =
  | { do: 'publish' | 'deliver' | 'trim', group: number, count: number }
  | { do: 'lose' | 'forbid' | 'allow', group: number }
  | { do: 'follow' | 'join' | 'leave', client: number, group: number }
  | { do: 'drop', client: number }
  | { do: 'answer', index: number, how: 'open' | 'fail' }
  | { do: 'turn', count: number }

const client = fc.nat(CLIENTS - 1)
const group = fc.nat(GROUPS - 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('publish' as const), group, count: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('deliver' as const), group, count: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), group, count: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('lose', 'forbid', 'allow', 'allow'), group }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('follow' as const), client, group }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('join', 'leave'), client, group }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('drop' as const), client }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('answer' as const), index: fc.nat(5), how: fc.constantFrom('open', 'open', 'open', 'open', 'fail') }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('turn' as const), count: fc.integer({ min: 1, max: 4 }) }) }
)

/** The state of a group at a client. */
interface Known {
  /** The kind of its membership on this connection. */
  member: 'no' | 'plain' | 'follower'
  /** Requests under way. */
  asking: number
  position: Position | undefined
  /** The number of the last message that it has, or that a resync has skipped. */
  last: number
  /** Whether the next message may be any later one. */
  isLoose: boolean
}

/** Counted over all runs: a server that refuses everything would satisfy every rule. */
const outcomes = { recovered: 0, refused: 0, resync: 0, heard: 0, failed: 0, denied: 0 }

/** A client that checks its messages against the rules. */
class Watcher {
  readonly #server: TestServer
  readonly #broker: LaggingBroker
  readonly #names: string[]
  readonly #known: Known[]
  readonly #asked = new Map<unknown, { group: number, recover: unknown, type: string }>()
  #socket: WebSocket | undefined
  #client: Client | undefined
  #ids = 0
  failure: unknown

  constructor (server: TestServer, broker: LaggingBroker, names: string[]) {
    this.#server = server
    this.#broker = broker
    this.#names = names
    this.#known = names.map(() => ({ member: 'no', asking: 0, position: undefined, last: 0, isLoose: false }))
  }

  async connect (): Promise<void> {
    this.#client = await this.#server.connect()
    const { socket } = this.#client
    this.#socket = socket
    socket.on('message', (data) => {
      if (socket !== this.#socket) return
      try {
        this.#hear(JSON.parse(String(data)))
      } catch (error) {
        this.failure ??= error
      }
    })
  }

  /** The connection breaks, and the client reconnects. */
  async drop (): Promise<void> {
    this.end()
    this.#asked.clear()
    for (const known of this.#known) Object.assign(known, { member: 'no', asking: 0 })
    await this.connect()
  }

  end (): void {
    const socket = this.#socket
    this.#socket = undefined
    socket?.terminate()
  }

  ask (type: 'subscribe' | 'unsubscribe', group: number, follows: boolean): void {
    const known = this.#of(group)
    const recover = !follows ? undefined : known.member !== 'no' || known.asking > 0 ? true : known.position ?? true
    const id = ++this.#ids
    known.asking++
    this.#asked.set(id, { group, recover, type })
    this.#client?.send({ id, type, data: { type: 'todo', id: Number(this.#names[group]?.split('-')[1]) }, recover })
  }

  /** Resolves when nothing is under way. */
  async answered (): Promise<void> {
    while (this.#asked.size > 0) await new Promise(setImmediate)
  }

  /** Resolves when all sent messages have arrived. */
  async sync (): Promise<void> {
    this.#socket?.ping()
    if (this.#socket !== undefined) await once(this.#socket, 'pong')
  }

  /** Asserts that no message is missing at the end. */
  finish (): void {
    if (this.failure !== undefined) throw this.failure
    for (const [group, { member, last }] of this.#known.entries()) {
      const name = this.#names[group] ?? ''
      if (member !== 'no') assert.equal(last, this.#broker.last(name), `${member} of ${name}`)
    }
  }

  #of (group: number): Known {
    return this.#known[group] ?? assert.fail()
  }

  #hear (frame: Record<string, unknown>): void {
    const request = this.#asked.get(frame.id)
    if (request !== undefined) {
      this.#asked.delete(frame.id)
      return this.#answered(request, frame)
    }
    const { n, position } = frame as { n?: number, position?: Position & { group: string } }
    const group = this.#names.indexOf(position?.group ?? String(frame.g))
    const known = this.#of(group)
    const name = this.#names[group] ?? ''
    assert.notEqual(known.member, 'no', `${JSON.stringify(frame)} before the reply`)

    if (n === undefined) {
      assert.equal(known.member, 'follower', 'a resync for who asked for none')
      outcomes.resync++
      this.#goOn(known, name, position)
    } else {
      outcomes.heard++
      assert.equal(position !== undefined, known.member === 'follower', 'a position for who asked, and for nobody else')
      const isSame = this.#broker.epochOf(name, n) === this.#broker.epochOf(name, known.last)
      // a member without positions gets no resync
      const isSure = !known.isLoose && (known.member === 'follower' || isSame)
      assert.ok(isSure ? n === known.last + 1 : n > known.last, `${n} after ${known.last} in ${name}`)
      if (position !== undefined) assert.equal(n, this.#broker.numberOf(name, position))
      Object.assign(known, { last: n, position, isLoose: false })
    }
  }

  #answered ({ group, recover, type }: { group: number, recover: unknown, type: string }, frame: Record<string, unknown>): void {
    const known = this.#of(group)
    const name = this.#names[group] ?? ''
    known.asking--
    if (frame.error !== undefined) {
      assert.ok(frame.code === 'access_denied' || (frame.code === 'unavailable' && frame.retry === true), JSON.stringify(frame))
      outcomes[frame.code === 'unavailable' ? 'failed' : 'denied']++
      return
    }
    if (type === 'unsubscribe') {
      known.member = 'no'
      known.position = undefined
      return
    }
    const position = frame.position as Position | undefined
    if (recover === undefined) {
      assert.deepEqual(Object.keys(frame), ['id', 'type', 'data'])
      if (known.member === 'no') known.isLoose = true
      Object.assign(known, { member: 'plain', position: undefined })
      return
    }

    const before = known.member
    known.member = 'follower'
    if (frame.recovered === true) {
      outcomes.recovered++
      const { epoch, offset } = recover as Position
      assert.deepEqual(position, { group: name, epoch, offset })
    } else {
      if (recover !== true) outcomes.refused++
      assert.equal(frame.recovered, recover === true ? undefined : false)
      // a member that subscribes again has every message up to its new position
      if (before === 'follower' && position !== undefined) assert.equal(this.#broker.numberOf(name, position), known.last)
      this.#goOn(known, name, position)
    }
  }

  /** Expects the message after a position next. */
  #goOn (known: Known, name: string, position: Position | undefined): void {
    assert.ok(position, 'this broker knows where it is')
    Object.assign(known, { position, last: this.#broker.numberOf(name, position), isLoose: false })
  }
}

for (const [offsets, stride] of [['contiguous', 1], ['sparse', 1000]] as const) {
  test(`each member with positions receives every message once and in order, or a resync; all others at most once, in order: ${offsets} offsets`, (t) => run(t, stride))
}

async function run (t: TestContext, stride: number): Promise<void> {
  Object.assign(outcomes, { recovered: 0, refused: 0, resync: 0, heard: 0, failed: 0, denied: 0 })
  const broker = new LaggingBroker(stride)
  const forbidden = new Set<string>()
  const server = await start(t, {
    broker,
    maxGroups: 10_000,
    recoveryLimit: { messages: 8, bytes: 1000 },
    with: (app) => app.rohrpost.group('todo', {
      async authorize ({ data }) {
        await null
        return !forbidden.has(`todo-${data.id}`)
      }
    })
  })
  let runs = 0

  await check(fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 100, size: 'max' }), async (steps) => {
    runs++
    broker.isPrompt = true
    const names = Array.from({ length: GROUPS }, (_, index) => `todo-${runs * GROUPS + index}`)
    const nameOf = (group: number) => names[group] ?? assert.fail()
    const watchers = Array.from({ length: CLIENTS }, () => new Watcher(server, broker, names))
    await Promise.all(watchers.map((watcher) => watcher.connect()))
    const publish = (group: number) => {
      const name = nameOf(group)
      server.app.rohrpost.sendToGroup(name, { n: broker.last(name) + 1, g: name })
    }

    // like most clients, they start as members with positions
    for (const watcher of watchers) watcher.ask('subscribe', 0, true)
    await Promise.all(watchers.map((watcher) => watcher.answered()))
    broker.isPrompt = false
    for (const step of steps) {
      if (step.do === 'publish') for (let n = 0; n < step.count; n++) publish(step.group)
      else if (step.do === 'deliver' || step.do === 'trim') broker[step.do](nameOf(step.group), step.count)
      else if (step.do === 'lose') broker.lose(nameOf(step.group))
      else if (step.do === 'forbid') forbidden.add(nameOf(step.group))
      else if (step.do === 'allow') forbidden.delete(nameOf(step.group))
      else if (step.do === 'answer') broker.answer(step.index, step.how)
      else if (step.do === 'turn') for (let n = 0; n < step.count; n++) await new Promise(setImmediate)
      else if (step.do === 'drop') await watchers[step.client]?.drop()
      else if ('client' in step) watchers[step.client]?.ask(step.do === 'leave' ? 'unsubscribe' : 'subscribe', step.group, step.do === 'follow')
    }

    broker.settle()
    await Promise.all(watchers.map((watcher) => watcher.answered()))
    for (const [group, name] of names.entries()) {
      // without a later message a gap is not visible
      publish(group)
      broker.deliver(name, Infinity)
    }
    await Promise.all(watchers.map((watcher) => watcher.sync()))
    for (const watcher of watchers) watcher.end()
    for (const watcher of watchers) watcher.finish()
  }), { numRuns: stride === 1 ? 300 : 150 })

  t.diagnostic(JSON.stringify(outcomes))
  for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 10, `${count} times ${outcome}`)
}
