/**
 * The memberships of one connection against a model, in any interleaving: subscribes with and without `recover`,
 * unsubscribe, join, leave, disconnect, the application's decisions, a broker that answers late, fails or hangs,
 * deadlines, and closes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Broker, HistoryEntry, Position, Receiver, RohrpostConnection } from '../../lib/index.ts'
import { start, type Client, type Frame } from '../support/server.ts'
import { check } from './support/check.ts'

const TIMEOUT = 60_000
const GROUPS = 2
const turn = () => new Promise(setImmediate)

type Step =
  | { do: 'subscribe', group: number, recover: 'none' | 'positions' | 'old' }
  | { do: 'unsubscribe' | 'join' | 'leave' | 'publish', group: number }
  | { do: 'disconnect', by: 'group' | 'predicate', group: number }
  | { do: 'decide', index: number, how: 'allow' | 'deny' | 'fail', isQuick: boolean }
  | { do: 'answer', index: number, how: 'open' | 'fail', isQuick: boolean }
  | { do: 'expire' | 'close' }

const group = fc.nat(GROUPS - 1)
const index = fc.nat(4)
/** Whether the next step precedes the reaction of the server. */
const isQuick = fc.boolean()
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('subscribe' as const), group, recover: fc.constantFrom('none', 'positions', 'old', 'old') }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unsubscribe' as const), group }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('join' as const), group }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('leave' as const), group }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('publish' as const), group }) },
  { weight: 10, arbitrary: fc.record({ do: fc.constant('decide' as const), index, how: fc.constantFrom('allow', 'allow', 'allow', 'allow', 'deny', 'fail'), isQuick }) },
  { weight: 10, arbitrary: fc.record({ do: fc.constant('answer' as const), index, how: fc.constantFrom('open', 'open', 'open', 'open', 'fail'), isQuick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('expire', 'expire', 'close') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('disconnect' as const), by: fc.constantFrom('group', 'predicate'), group }) }
)

/** Counted over all runs: a server that refuses everything would satisfy every rule. */
const outcomes = {
  success: 0, recovered: 0, access_denied: 0, unavailable: 0, timeout: 0, internal: 0, heard: 0, left: 0, disconnected: 0, spared: 0, joined: 0, 'not joined': 0, closed: 0
}

/** A broker whose answers each wait for a step. */
class GatedBroker implements Broker {
  readonly keepsHistory = true
  readonly subscribed = new Set<string>()
  readonly #logs = new Map<string, HistoryEntry[]>()
  /** Calls under way for a group: never two. */
  readonly #busy = new Set<string>()
  #gates: { open (): void, fail (): void }[] = []
  #receiver: Receiver | undefined
  isPrompt = false
  failure: unknown

  open (receiver: Receiver): void {
    this.#receiver = receiver
  }

  publish (group: string, payload: string): void {
    const log = this.logOf(group)
    const position = { epoch: 'e', offset: log.length + 1 }
    log.push({ payload, position })
    if (this.subscribed.has(group)) this.#receiver?.deliver(group, payload, position)
  }

  subscribe (group: string): Promise<Position> {
    return this.#change(group, () => {
      this.subscribed.add(group)
      return { epoch: 'e', offset: this.logOf(group).length }
    })
  }

  unsubscribe (group: string): Promise<void> {
    // a failed call has only lost its answer
    this.subscribed.delete(group)
    return this.#change(group, () => {})
  }

  async history (group: string, after: Position, limit: number): Promise<HistoryEntry[]> {
    await this.#gate()
    return this.logOf(group).slice(after.offset, after.offset + limit)
  }

  health () {
    return { ok: true }
  }

  close (): void {}

  answer (index: number, how: 'open' | 'fail'): void {
    const [gate] = this.#gates.splice(index % Math.max(1, this.#gates.length), 1)
    gate?.[how]()
  }

  settle (): void {
    this.isPrompt = true
    for (const { open } of this.#gates.splice(0)) open()
  }

  /** How many calls are under way for a group. */
  calls (group: string): number {
    return this.#busy.has(group) ? 1 : 0
  }

  logOf (group: string): HistoryEntry[] {
    let log = this.#logs.get(group)
    if (log === undefined) this.#logs.set(group, log = [])
    return log
  }

  async #change<Result> (group: string, change: () => Result): Promise<Result> {
    if (this.#busy.has(group)) this.failure ??= new Error(`two calls for ${group}`)
    this.#busy.add(group)
    try {
      await this.#gate()
      return change()
    } finally {
      this.#busy.delete(group)
    }
  }

  async #gate (): Promise<void> {
    if (this.isPrompt) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#gates.push({ open: resolve, fail: () => reject(new Error('not now')) })
    await promise
  }
}

/** A request of the client without an answer. */
interface Asked {
  type: 'subscribe' | 'unsubscribe'
  group: string
  /** The event that ended it before its answer. */
  ended?: 'left' | 'expired'
}

/** The reasons for a membership. */
interface Known {
  /** The client has a successful reply to `subscribe`. */
  subscribed: boolean
  /** The application called `join`. */
  joined: boolean
}

/** The client and the application of one connection, and the model of its memberships. */
class Watcher {
  readonly client: Client
  readonly connection: RohrpostConnection
  readonly #known = new Map<string, Known>()
  readonly #asked = new Map<unknown, Asked>()
  readonly #joining: Promise<void>[] = []
  #ids = 0
  #failure: unknown
  isClosed = false
  /** The groups whose last message has arrived. */
  readonly last: string[] = []

  constructor (client: Client, connection: RohrpostConnection, names: string[]) {
    this.client = client
    this.connection = connection
    for (const name of names) this.#known.set(name, { subscribed: false, joined: false })
    client.socket.on('message', (data) => {
      try {
        this.#hear(JSON.parse(String(data)))
      } catch (error) {
        this.#failure ??= error
      }
    })
  }

  isMember (group: string): boolean {
    const { subscribed, joined } = this.#of(group)
    return subscribed || joined
  }

  ask (type: Asked['type'], group: string, recover: unknown): void {
    const id = ++this.#ids
    this.#asked.set(id, { type, group })
    this.client.send({ id, type, data: { type: 'todo', id: Number(group.split('-')[1]) }, recover })
  }

  join (group: string): void {
    const known = this.#of(group)
    known.joined = true
    const joining = Promise.resolve(this.connection.join(group)).then(() => { outcomes.joined++ }, () => {
      outcomes['not joined']++
      known.joined = false
    })
    this.#joining.push(joining)
  }

  leave (group: string): void {
    this.connection.leave(group)
    this.#forget(group)
    for (const asked of this.#asked.values()) if (asked.group === group && asked.type === 'subscribe') asked.ended ??= 'left'
  }

  /** Advances the time to the deadline of all open requests. An unsubscribe takes effect nevertheless. */
  expire (pass: () => void): void {
    for (const asked of this.#asked.values()) asked.ended = 'expired'
    pass()
  }

  /** Whether a group's disconnect must find the connection. */
  isAboutTo (group: string): boolean {
    return this.isMember(group) || [...this.#asked.values()].some((asked) => asked.group === group && asked.type === 'subscribe' && asked.ended === undefined)
  }

  close (close: () => unknown): void {
    close()
    this.isClosed = true
    for (const group of this.#known.keys()) this.#forget(group)
  }

  /** Resolves when the client has read all sent messages. */
  async sync (): Promise<void> {
    if (!this.isClosed) await this.client.read()
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Resolves when nothing is under way. */
  async settled (): Promise<void> {
    await Promise.all(this.#joining)
    while (this.#asked.size > 0 && !this.isClosed) await this.sync()
    await this.sync()
  }

  #of (group: string): Known {
    return this.#known.get(group) ?? assert.fail()
  }

  #forget (group: string): void {
    Object.assign(this.#of(group), { subscribed: false, joined: false })
  }

  #hear (frame: Frame): void {
    if (frame.id === undefined) {
      const group = String(frame.g)
      outcomes.heard++
      assert.ok(this.isMember(group), `${JSON.stringify(frame)} for no member`)
      if (frame.last === true) this.last.push(group)
      return
    }

    const asked = this.#asked.get(frame.id) ?? assert.fail(`a second answer: ${JSON.stringify(frame)}`)
    this.#asked.delete(frame.id)
    const outcome = String(frame.code ?? 'success')
    assert.ok(outcome in outcomes, outcome)
    outcomes[outcome as keyof typeof outcomes]++
    if (this.isClosed) return
    if (asked.ended === 'expired') {
      assert.equal(outcome, 'timeout')
      if (asked.type === 'unsubscribe') this.#forget(asked.group)
      return
    }
    if (asked.ended === 'left') {
      outcomes.left++
      return assert.ok(outcome === 'access_denied' || outcome === 'internal', `${outcome} after leave`)
    }
    assert.notEqual(outcome, 'timeout')
    if (outcome !== 'success') return
    if (frame.recovered === true) outcomes.recovered++
    if (asked.type === 'subscribe') this.#of(asked.group).subscribed = true
    else this.#forget(asked.group)
  }
}

test('each connection is in the groups of the model, receives nothing of other groups, and gets one answer for each request', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const broker = new GatedBroker()
  const decisions: { resolve (allowed: boolean): void, reject (error: Error): void }[] = []
  let asks = false
  const server = await start(t, {
    broker,
    handlerTimeout: TIMEOUT,
    with: (app) => app.rohrpost.group('todo', {
      authorize () {
        if (!asks) return true
        const decision = Promise.withResolvers<boolean>()
        decisions.push(decision)
        return decision.promise
      }
    })
  })
  const { rohrpost } = server.app
  let runs = 0

  /** Releases all waiting calls, and all later ones at once. */
  const settle = () => {
    asks = false
    broker.settle()
    for (const { resolve } of decisions.splice(0)) resolve(true)
  }

  await check(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), async (steps) => {
    runs++
    broker.isPrompt = false
    asks = true
    const names = Array.from({ length: GROUPS }, (_, index) => `todo-${runs * GROUPS + index}`)
    const nameOf = (group: number) => names[group] ?? assert.fail()
    const publish = (name: string, fields = {}) => rohrpost.sendToGroup(name, { n: broker.logOf(name).length + 1, g: name, ...fields })
    for (const name of names) for (let n = 1; n <= 3; n++) publish(name)
    const client = await server.connect()
    const [connection] = rohrpost.connections
    const watcher = new Watcher(client, connection ?? assert.fail(), names)

    const end = async () => {
      client.socket.terminate()
      settle()
      await until(() => rohrpost.connections.size === 0 && names.every((name) => broker.calls(name) === 0))
    }

    try {
      for (const step of steps) {
        if (watcher.isClosed) break
        if (step.do === 'subscribe') {
          watcher.ask('subscribe', nameOf(step.group), { none: undefined, positions: true, old: { epoch: 'e', offset: 1 } }[step.recover])
        } else if (step.do === 'unsubscribe') {
          watcher.ask('unsubscribe', nameOf(step.group), undefined)
        } else if (step.do === 'join' || step.do === 'leave') {
          watcher[step.do](nameOf(step.group))
        } else if (step.do === 'publish') {
          publish(nameOf(step.group))
        } else if (step.do === 'decide') {
          const [decision] = decisions.splice(step.index % Math.max(1, decisions.length), 1)
          if (step.how === 'fail') decision?.reject(new Error('no database'))
          else decision?.resolve(step.how === 'allow')
        } else if (step.do === 'answer') {
          broker.answer(step.index, step.how)
        } else if (step.do === 'expire') {
          watcher.expire(() => t.mock.timers.tick(TIMEOUT))
        } else if (step.do === 'close') {
          outcomes.closed++
          watcher.close(() => connection?.close(4000))
        } else if (step.do === 'disconnect' && (step.by === 'predicate' || watcher.isAboutTo(nameOf(step.group)))) {
          outcomes.disconnected++
          const target = step.by === 'predicate' ? () => true : nameOf(step.group)
          watcher.close(() => rohrpost.disconnect(target))
        } else if (step.do === 'disconnect') {
          outcomes.spared++
          await rohrpost.disconnect(nameOf(step.group))
        }
        if (!('isQuick' in step && step.isQuick)) await watcher.sync()
      }

      settle()
      if (watcher.isClosed) await client.closed
      await watcher.settled()
      const expected = names.filter((name) => watcher.isMember(name))
      if (!watcher.isClosed) assert.deepEqual([...watcher.connection.groups].sort(), expected, 'groups')
      await until(() => names.every((name) => broker.calls(name) === 0))
      assert.deepEqual(names.filter((name) => broker.subscribed.has(name)), expected, 'subscriptions at the broker')
      for (const name of names) publish(name, { last: true })
      await watcher.sync()
      assert.deepEqual(watcher.last.sort(), expected, 'heard')

      await end()
      assert.deepEqual(names.filter((name) => broker.subscribed.has(name)), [], 'subscriptions without connections')
      if (broker.failure !== undefined) throw broker.failure
    } finally {
      await end()
    }
  }), { numRuns: 400 })

  t.diagnostic(JSON.stringify(outcomes))
  for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 10, `${count} times ${outcome}`)
})

/** Resolves when a condition holds. */
async function until (isSo: () => unknown): Promise<void> {
  while (!isSo()) await turn()
}
