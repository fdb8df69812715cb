/**
 * Batches under any sequence of events: members that take them receive each whole or not at all, all others every
 * change of it in order; positions stand at the ends of batches, and recovery repeats and omits nothing.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { WebSocket } from 'ws'
import { RohrpostClient } from '../../lib/client/index.ts'
import { memoryBroker, type Position } from '../../lib/index.ts'
import { encodeBatch, type EncodedChange } from '../../lib/protocol/batch.ts'
import { internalsOf } from '../../lib/server/internals.ts'
import { start, type Client, type TestServer } from '../support/server.ts'
import { check } from './support/check.ts'
import { LaggingBroker } from './support/lagging-broker.ts'

const CLIENTS = 4

/** What a subscribe asks for. */
interface Kind {
  recover: boolean
  batch: boolean
}

type Step =
  | { do: 'publish', changes: number }
  | { do: 'deliver' | 'trim' | 'turn', count: number }
  | { do: 'lose' }
  | { do: 'subscribe', client: number, kind: Kind }
  | { do: 'leave' | 'drop', client: number }
  | { do: 'cut', client: number, count: number }
  | { do: 'answer', index: number, how: 'open' | 'fail' }

const client = fc.nat(CLIENTS - 1)
const kind = fc.record({ recover: fc.constantFrom(true, true, false), batch: fc.boolean() })
const count = fc.integer({ min: 1, max: 4 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('publish' as const), changes: count }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('deliver' as const), count }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), count }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('subscribe' as const), client, kind }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('leave', 'drop'), client }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('cut' as const), client, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('answer' as const), index: fc.nat(5), how: fc.constantFrom('open', 'open', 'open', 'fail') }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('turn' as const), count }) }
)

/** Counted over all runs: a server that refuses everything would satisfy every rule. */
const outcomes = { whole: 0, parts: 0, recovered: 0, refused: 0, resync: 0, failed: 0, cutWithin: 0 }

/** The messages of a run. Their changes are numbered through all messages. */
class Log {
  /** The number of the last change of each message. */
  readonly #ends = [0]

  add (changes: number): { n: number, numbers: number[] } {
    const last = this.endOf(this.#ends.length - 1)
    this.#ends.push(last + changes)
    return { n: this.#ends.length - 1, numbers: Array.from({ length: changes }, (_, index) => last + 1 + index) }
  }

  /** The last change of a message. */
  endOf (n: number): number {
    return this.#ends[n] ?? assert.fail(`no message ${n}`)
  }

  /** The number of the message of a change. */
  messageOf (change: number): number {
    return this.#ends.findIndex((end) => end >= change)
  }
}

/** A client that checks its messages against the rules. */
class Watcher {
  readonly #server: TestServer
  readonly #broker: LaggingBroker
  readonly #group: string
  readonly #log: Log
  readonly #asked = new Map<unknown, Kind | undefined>()
  #socket: WebSocket | undefined
  #client: Client | undefined
  #ids = 0
  /** What the membership was made with; `undefined` without one. */
  #kind: Kind | undefined
  /** What the last subscribe asked for. */
  #wanted: Kind | undefined
  #position: Position | undefined
  /** The last change that it has, or that a resync has skipped. */
  #last = 0
  /** Whether the next change may be any later one. */
  #isLoose = true
  /** Changes until the connection breaks. */
  #untilCut = Infinity
  failure: unknown

  constructor (server: TestServer, broker: LaggingBroker, group: string, log: Log) {
    this.#server = server
    this.#broker = broker
    this.#group = group
    this.#log = log
  }

  get isCut (): boolean {
    return this.#socket === undefined
  }

  async connect (): Promise<void> {
    this.end()
    this.#asked.clear()
    this.#kind = undefined
    this.#untilCut = Infinity
    this.#isLoose = this.#position === undefined
    if (this.#position !== undefined) this.#last = this.#log.endOf(this.#broker.numberOf(this.#group, this.#position))
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

  /** Connects again, and asks for the messages that it missed. */
  async return (): Promise<void> {
    await this.connect()
    if (this.#wanted !== undefined) this.subscribe(this.#wanted)
  }

  end (): void {
    const socket = this.#socket
    this.#socket = undefined
    socket?.terminate()
  }

  cutAfter (count: number): void {
    this.#untilCut = count
  }

  subscribe (kind: Kind): void {
    const isMember = this.#kind !== undefined || this.#asked.size > 0
    const id = ++this.#ids
    this.#wanted = kind
    this.#asked.set(id, kind)
    const recover = !kind.recover ? undefined : isMember ? true : this.#position ?? true
    this.#client?.send({ id, type: 'subscribe', data: dataOf(this.#group), recover, batch: kind.batch })
  }

  leave (): void {
    const id = ++this.#ids
    this.#wanted = undefined
    this.#asked.set(id, undefined)
    this.#client?.send({ id, type: 'unsubscribe', data: dataOf(this.#group) })
  }

  async answered (): Promise<void> {
    while (this.#asked.size > 0 && !this.isCut) await new Promise(setImmediate)
  }

  async sync (): Promise<void> {
    if (this.#socket === undefined) return
    this.#socket.ping()
    await once(this.#socket, 'pong')
  }

  finish (lastChange: number): void {
    if (this.failure !== undefined) throw this.failure
    if (this.#kind !== undefined && !this.isCut) assert.equal(this.#last, lastChange)
  }

  #hear (frame: Record<string, unknown>): void {
    // the id of a notification is random
    if (frame.type !== 'subscription-update') return this.#answered(frame)
    const { data, position } = frame as { data: { type: string, changes?: { object: number }[], object?: number }, position?: Position }
    const kind = this.#kind ?? assert.fail(`${JSON.stringify(frame)} without a membership`)
    if (data.type === 'resync') {
      assert.ok(kind.recover, 'a resync for who asked for none')
      outcomes.resync++
      return this.#goOn(position)
    }

    const numbers = data.changes?.map(({ object }) => object) ?? [Number(data.object)]
    const [first = 0, last = first] = [numbers[0], numbers.at(-1)]
    const isWhole = numbers.length > 1
    const message = this.#log.messageOf(last)
    const size = this.#log.endOf(message) - this.#log.endOf(message - 1)
    if (kind.batch) assert.equal(numbers.length, size, 'a batch comes whole')
    else assert.equal(data.type, 'update', 'a batch for who asked for none')
    if (size > 1) outcomes[isWhole ? 'whole' : 'parts']++

    const isEnd = last === this.#log.endOf(message)
    const isSame = this.#broker.epochOf(this.#group, message) === this.#broker.epochOf(this.#group, this.#log.messageOf(this.#last))
    const isStart = first === this.#log.endOf(message - 1) + 1
    // a member without positions gets no resync, but no message begins in the middle
    if (!this.#isLoose && (kind.recover || isSame || !isStart)) assert.equal(first, this.#last + 1)
    else assert.ok(first > this.#last && isStart, `${first} after ${this.#last}`)
    for (const [index, number] of numbers.entries()) assert.equal(number, first + index)
    assert.equal(position !== undefined, kind.recover && isEnd, 'a position at the end, for who asked')
    if (position !== undefined) assert.equal(message, this.#broker.numberOf(this.#group, position))
    this.#last = last
    this.#isLoose = false
    if (isEnd) this.#position = position

    this.#untilCut -= numbers.length
    if (this.#untilCut > 0) return
    if (!isEnd) outcomes.cutWithin++
    this.end()
  }

  #answered (frame: Record<string, unknown>): void {
    const kind = this.#asked.get(frame.id)
    this.#asked.delete(frame.id)
    if (frame.error !== undefined) {
      assert.equal(frame.code, 'unavailable')
      outcomes.failed++
      return
    }
    const before = this.#kind
    this.#kind = kind
    if (kind === undefined) {
      this.#position = undefined
      this.#isLoose = true
      return
    }
    const position = frame.position as Position | undefined
    if (!kind.recover) {
      if (before === undefined) this.#isLoose = true
      this.#position = undefined
      return
    }
    if (frame.recovered === true) {
      outcomes.recovered++
      assert.deepEqual({ ...position }, { group: this.#group, ...this.#position })
      this.#last = this.#log.endOf(this.#broker.numberOf(this.#group, position ?? assert.fail()))
      this.#isLoose = false
    } else {
      if (frame.recovered === false) outcomes.refused++
      this.#goOn(position)
    }
  }

  /** Expects the message after a position next. */
  #goOn (position: Position | undefined): void {
    assert.ok(position, 'this broker knows where it is')
    this.#position = position
    this.#last = this.#log.endOf(this.#broker.numberOf(this.#group, position))
    this.#isLoose = false
  }
}

function dataOf (group: string) {
  return { type: 'todo', id: Number(group.split('-')[1]) }
}

/** Encodes the changes of one transaction. */
function encode (group: string, numbers: readonly number[]): string {
  return encodeBatch(group, numbers.map((n): EncodedChange => ({ type: 'update', object: String(n) })))[0]?.text ?? assert.fail()
}

for (const [offsets, stride] of [['contiguous', 1], ['sparse', 1000]] as const) {
  test(`batches come whole to members that ask, and in parts to others, each change once and in order: ${offsets} offsets`, (t) => run(t, stride))
}

async function run (t: TestContext, stride: number): Promise<void> {
  for (const outcome of Object.keys(outcomes)) outcomes[outcome as keyof typeof outcomes] = 0
  const broker = new LaggingBroker(stride)
  const server = await start(t, {
    broker,
    maxGroups: 10_000,
    recoveryLimit: { messages: 8, bytes: 2000 },
    with: (app) => app.rohrpost.group('todo', { authorize: () => true })
  })
  let runs = 0

  await check(fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 100, size: 'max' }), async (steps) => {
    const group = `todo-${++runs}`
    const log = new Log()
    broker.isPrompt = true
    const watchers = Array.from({ length: CLIENTS }, () => new Watcher(server, broker, group, log))
    await Promise.all(watchers.map((watcher) => watcher.connect()))
    const publish = (changes: number) => {
      const { numbers } = log.add(changes)
      internalsOf(server.app.rohrpost).publishObject(group, encode(group, numbers))
      return numbers.at(-1) ?? 0
    }

    for (const [index, watcher] of watchers.entries()) watcher.subscribe({ recover: index < 3, batch: index % 2 === 0 })
    await Promise.all(watchers.map((watcher) => watcher.answered()))
    broker.isPrompt = false
    for (const step of steps) {
      const watcher = watchers['client' in step ? step.client : 0] as Watcher
      if ('client' in step && watcher.isCut) await watcher.return()
      if (step.do === 'publish') publish(step.changes)
      else if (step.do === 'deliver' || step.do === 'trim') broker[step.do](group, step.count)
      else if (step.do === 'lose') broker.lose(group)
      else if (step.do === 'answer') broker.answer(step.index, step.how)
      else if (step.do === 'turn') for (let n = 0; n < step.count; n++) await new Promise(setImmediate)
      else if (step.do === 'subscribe') watcher.subscribe(step.kind)
      else if (step.do === 'leave') watcher.leave()
      else if (step.do === 'cut') watcher.cutAfter(step.count)
      else await watcher.return()
    }

    for (const watcher of watchers) watcher.cutAfter(Infinity)
    broker.settle()
    for (const watcher of watchers) if (watcher.isCut) await watcher.return()
    await Promise.all(watchers.map((watcher) => watcher.answered()))
    // without a later message a gap is not visible
    const last = publish(2)
    broker.deliver(group, Infinity)
    await Promise.all(watchers.map((watcher) => watcher.sync()))
    for (const watcher of watchers) {
      watcher.finish(last)
      watcher.end()
    }
  }), { numRuns: 120 })

  t.diagnostic(JSON.stringify(outcomes))
  for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 0, `${count} times ${outcome}`)
}

/** Row states of one transaction, by key; `undefined` deletes the row. */
type Transaction = ReadonlyMap<number, string | undefined>

interface Row { id: number, text: string }

/** A WebSocket whose connection breaks after some notifications; the next one breaks after the next count. */
function breakingSockets (counts: number[]) {
  return class extends WebSocket {
    #left = counts.shift() ?? Infinity

    override emit (event: string | symbol, ...args: unknown[]): boolean {
      const isNotification = event === 'message' && String(args[0]).includes('"subscription-update"')
      if (isNotification && this.#left-- <= 0) return true
      const heard = super.emit(event, ...args)
      if (isNotification && this.#left === 0) this.terminate()
      return heard
    }
  }
}

/** The rows as text, in the order of their keys. */
function show (rows: Iterable<Row>): string {
  return [...rows].sort((a, b) => a.id - b.id).map(({ id, text }) => `${id}${text}`).join()
}

const transaction: fc.Arbitrary<Transaction> = fc.array(
  fc.tuple(fc.nat(4), fc.option(fc.constantFrom('a', 'b', 'c', '"]}}'), { nil: undefined, freq: 4 })),
  { minLength: 1, maxLength: 5 }
).map((entries) => new Map(entries))

test('a live collection shows the states between transactions only, and a loop has each change once, over any cuts', async (t) => {
  const table = new Map<number, Row>()
  const server = await start(t, {
    broker: memoryBroker({ history: { size: 1000, ttl: 60_000 } }),
    maxGroups: 10_000,
    with: (app) => app.rohrpost.group('todo', { authorize: () => true }).handle('list', () => [...table.values()])
  })
  const url = `${server.http.replace('http', 'ws')}/ws/rohrpost`
  const total = { shown: 0, cuts: 0, changes: 0 }
  let runs = 0

  await check(fc.asyncProperty(
    fc.array(transaction, { minLength: 5, maxLength: 30 }),
    fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 8 }),
    fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 8 }),
    async (transactions, liveCounts, loopCounts) => {
      const group = `todo-${++runs}`
      const todo = { type: 'todo', id: runs }
      table.clear()
      const sentChanges: string[] = []
      const states = new Set([''])
      const cuts = liveCounts.length + loopCounts.length
      const options = { backoff: { min: 1, max: 2 }, pingInterval: 60_000 }
      const liveClient = new RohrpostClient(url, { ...options, WebSocket: breakingSockets(liveCounts) })
      const loopClient = new RohrpostClient(url, { ...options, WebSocket: breakingSockets(loopCounts) })
      const plain = await server.connect()
      try {
        await plain.subscribe(todo)
        const [looped, shared] = [[] as string[], [] as string[]]
        const follow = async (client: RohrpostClient, heard: string[]) => {
          for await (const change of client.changes(todo, { resync: true })) {
            heard.push(change.type === 'resync' ? 'resync' : `${change.type} ${JSON.stringify(change.object)}`)
          }
        }
        const following = [follow(loopClient, looped), follow(liveClient, shared)]
        await Promise.all([loopClient.subscribe(todo), liveClient.subscribe(todo)])

        const todos = liveClient.live<string, Row>(todo, { load: () => liveClient.call('list') as Promise<Row[]> })
        const shown: string[] = []
        let isLoaded = false
        todos.subscribe((rows) => {
          isLoaded ||= todos.status === 'current'
          if (isLoaded) shown.push(show(rows))
        })
        for (const rows of transactions) {
          const changes: EncodedChange[] = []
          for (const [id, text] of rows) {
            const type = text === undefined ? 'delete' : table.has(id) ? 'update' : 'create'
            const row = { id, text: text ?? '' }
            if (type === 'delete') table.delete(id)
            else table.set(id, row)
            changes.push({ type, object: JSON.stringify(type === 'delete' ? { id } : row) })
          }
          states.add(show(table.values()))
          sentChanges.push(...changes.map(({ type, object }) => `${type} ${object}`))
          for (const { text } of encodeBatch(group, changes)) internalsOf(server.app.rohrpost).publishObject(group, text)
          for (let n = 0; n < 3; n++) await new Promise(setImmediate)
        }

        while (looped.length < sentChanges.length || shared.length < sentChanges.length || todos.status !== 'current') {
          await new Promise((resolve) => setTimeout(resolve, 1))
        }
        assert.deepEqual(looped, sentChanges)
        assert.deepEqual(shared, sentChanges)
        assert.equal(show(todos.getSnapshot()), show(table.values()))
        for (const text of shown) assert.ok(states.has(text), `${text} is no state`)
        const heard = (await plain.untilPong()).map(({ data }) => {
          const { type, object } = data as { type: string, object: unknown }
          return `${type} ${JSON.stringify(object)}`
        })
        assert.deepEqual(heard, sentChanges)
        total.shown += shown.length
        total.cuts += cuts - liveCounts.length - loopCounts.length
        total.changes += sentChanges.length
        liveClient.close()
        loopClient.close()
        await Promise.all(following)
      } finally {
        liveClient.close()
        loopClient.close()
        plain.socket.terminate()
      }
    }
  ), { numRuns: 60 })

  t.diagnostic(JSON.stringify(total))
  for (const [what, count] of Object.entries(total)) assert.ok(count > 0, `${count} ${what}`)
})
