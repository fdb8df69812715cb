/** Tests of the conformance suite itself: a broker that violates a rule fails the test of that rule. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBroker, type Broker, type Position, type Receiver } from '../../lib/index.ts'
import { brokerSuite, type BrokerSuiteOptions } from '../../lib/testing/index.ts'

const SIZE = 20
const history = { size: SIZE, ttl: 60_000 }

/** A server for several brokers: one memory broker that delivers to all of them. */
class Hub {
  readonly receivers = new Map<Receiver, Set<string>>()
  readonly log: Broker
  isAway = false
  waiting: (() => void)[] = []

  constructor (keeps: boolean) {
    this.log = memoryBroker(keeps ? { history } : {})
    this.log.open({
      deliver: (group, payload, position) => this.each(group, (receiver) => receiver.deliver(group, payload, position)),
      lost: () => {},
      error: () => {}
    })
  }

  each (group: string, tell: (receiver: Receiver) => void): void {
    for (const [receiver, groups] of this.receivers) if (groups.has(group)) tell(receiver)
  }

  /** Runs a function now, or at the end of the outage. */
  do<Value> (run: () => Value | Promise<Value>): Value | Promise<Value> {
    return this.isAway ? new Promise((resolve) => this.waiting.push(() => resolve(run()))) : run()
  }

  back (): void {
    this.isAway = false
    for (const run of this.waiting.splice(0)) run()
  }

  open (receiver: Receiver): Broker {
    const groups = new Set<string>()
    let isClosed = false
    this.receivers.set(receiver, groups)
    return {
      keepsHistory: this.log.keepsHistory === true,
      open () { throw new Error('it is open') },
      publish: (group, payload) => this.do(() => { if (!isClosed) return this.log.publish(group, payload) }) as void,
      subscribe: (group) => this.do<Position | undefined | void>(() => {
        groups.add(group)
        return this.log.subscribe(group)
      }),
      unsubscribe: (group) => { groups.delete(group) },
      history: (...args) => this.log.history(...args),
      health: () => ({ ok: !this.isAway }),
      close: () => {
        isClosed = true
        groups.clear()
        this.receivers.delete(receiver)
      }
    }
  }
}

/** Runs the suite against a changed broker. @returns the names of the failed tests */
async function failures (change: (broker: Broker, hub: Hub, receiver: Receiver) => Partial<Broker>, { keeps = true, only = /./, receiving = (receiver: Receiver, _hub: Hub) => receiver } = {}): Promise<string[]> {
  const hub = new Hub(keeps)
  const tests: [string, () => Promise<void>][] = []
  const options: BrokerSuiteOptions = {
    test: (name, run) => only.test(name) && tests.push([name, run]),
    open: (given) => {
      const receiver = receiving(given, hub)
      const broker = hub.open(receiver)
      return { ...broker, ...change(broker, hub, receiver) }
    },
    capabilities: { processes: true, ...(keeps && { history: { size: SIZE } }) },
    fault: {
      disconnect: () => {},
      away: async () => {
        hub.isAway = true
        return () => hub.back()
      }
    }
  }
  brokerSuite(options)

  const failed: string[] = []
  for (const [name, run] of tests) {
    try {
      await run()
    } catch {
      failed.push(name.replace('broker: ', ''))
    }
    hub.back()
  }
  return failed
}

test('a correct broker passes', async () => {
  assert.deepEqual(await failures(() => ({})), [])
  assert.deepEqual(await failures(() => ({}), { keeps: false }), [])
})

test('a correct broker with sparse offsets passes', async () => {
  const sparse = (position: Position) => ({ ...position, offset: position.offset * 7 + 3 })
  const dense = ({ epoch, offset }: Position) => ({ epoch, offset: Math.floor((offset - 3) / 7) })
  const change = (broker: Broker): Partial<Broker> => ({
    hasSparseOffsets: true,
    subscribe: async (group) => {
      const top = await broker.subscribe(group)
      return top && sparse(top)
    },
    history: async (group, after, limit, bytes) => {
      const entries = await broker.history(group, dense(after), limit, bytes)
      if (entries?.length === 0 && (await broker.history(group, dense(after), 1))?.length === 1) return undefined
      return entries?.map(({ payload, position }) => ({ payload, position: sparse(position) }))
    }
  })
  const receiving = (receiver: Receiver): Receiver => ({
    ...forwardTo(receiver), deliver: (group, payload, position) => receiver.deliver(group, payload, position && sparse(position))
  })

  assert.deepEqual(await failures(change, { receiving }), [])
})

test('a correct broker of a single process passes', async () => {
  const ran: Promise<void>[] = []
  let isAway = false
  const waiting: (() => void)[] = []
  brokerSuite({
    test: (_name, run) => ran.push(ran.reduce((before, next) => before.then(() => next), Promise.resolve()).then(run)),
    open: (receiver) => {
      const broker = memoryBroker()
      broker.open(receiver)
      const { publish, subscribe } = broker
      return {
        ...broker,
        publish: (group, payload) => isAway ? new Promise<void>((resolve) => waiting.push(() => resolve(publish(group, payload)))) : publish(group, payload),
        subscribe: (group) => isAway ? new Promise((resolve) => waiting.push(() => resolve(subscribe(group)))) : subscribe(group),
        health: () => ({ ok: !isAway })
      }
    },
    fault: {
      disconnect: () => {},
      away: async () => {
        isAway = true
        return () => {
          isAway = false
          for (const run of waiting.splice(0)) run()
        }
      }
    }
  })

  await Promise.all(ran)
})

test('a broker that violates a rule fails the test of that rule', async (t) => {
  const breaking = async (rule: RegExp, change: Parameters<typeof failures>[0], options: Parameters<typeof failures>[1] = {}) => {
    assert.equal((await failures(change, { ...options, only: rule })).length, 1, String(rule))
  }
  // shortens the wait for events that never happen
  const { setTimeout } = globalThis
  t.mock.method(globalThis, 'setTimeout', (run: () => void, delay: number) => setTimeout(run, Math.min(delay, 100)))

  await breaking(/subscribed groups, and no others/, (broker) => ({ unsubscribe: () => {}, subscribe: (group) => { broker.subscribe(`${group}-other`); return broker.subscribe(group) } }))
  await breaking(/nothing between unsubscribe/, () => ({ unsubscribe: () => {} }))
  await breaking(/refuses a second open/, () => ({ open: () => {} }))
  await breaking(/nothing after close/, () => ({ close: () => {} }))
  await breaking(/that it works/, () => ({ health: () => ({ ok: false }) }))
  await breaking(/payloads unchanged/, (broker) => ({ publish: (group, payload) => broker.publish(group, payload.trim().replaceAll('\t', ' ')) }))
  await breaking(/characters of group names/, (broker) => ({ publish: (group, payload) => broker.publish(group.replace('*', 'a'), payload) }))
  await breaking(/published in one turn/, (broker) => ({ publish: async (group, payload) => { if (payload.endsWith('7}')) await null; return broker.publish(group, payload) } }))
  await breaking(/order within each of many/, (broker) => ({ publish: async (group, payload) => { if (payload.endsWith('7}')) await null; return broker.publish(group, payload) } }))
  await breaking(/after subscribe has resolved/, (broker) => ({ subscribe: (group) => { setImmediate(() => broker.subscribe(group)); return { epoch: 'e', offset: 0 } } }))
  await breaking(/in every process that/, (_broker, hub, receiver) => ({ publish: (group, payload) => { if (hub.receivers.get(receiver)?.has(group)) receiver.deliver(group, payload) } }), { keeps: false })
  await breaking(/same order everywhere/, () => ({}), { receiving: (receiver, hub) => hub.receivers.size > 0 ? receiver : { ...forwardTo(receiver), deliver: (...args) => { if (args[1].includes('"sender":1')) setImmediate(() => receiver.deliver(...args)); else receiver.deliver(...args) } } })
  await breaking(/waiting messages before it closes/, (broker) => {
    const waiting: unknown[][] = []
    return { publish: (...args) => { waiting.push(args) }, close: () => { waiting.length = 0; return broker.close() } }
  })
  await breaking(/no positions and no history/, () => ({ history: () => [] }), { keeps: false })
  await breaking(/has keepsHistory set/, () => ({ keepsHistory: false }))
  await breaking(/a position after the last one/, () => ({}), { receiving: (receiver) => ({ ...forwardTo(receiver), deliver: (group, payload) => receiver.deliver(group, payload) }) })
  await breaking(/position of the last message/, () => ({ subscribe: () => ({ epoch: 'e', offset: 0 }) }))
  await breaking(/returns the messages after a position/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.reverse() }))
  await breaking(/beyond the top/, (broker) => ({ history: (...args) => broker.history(...args) ?? [] }))
  await breaking(/exactly `size` messages/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.slice(0, SIZE - 1) }))
  await breaking(/no more than the requested bytes/, (broker) => ({ history: (group, after, limit) => broker.history(group, after, limit) }))
  await breaking(/same position in every process/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.slice(1) }))
  await breaking(/with which subscribe has resolved/, (broker) => ({ subscribe: async (group) => { const top = await broker.subscribe(group); return top && { ...top, offset: Math.max(0, top.offset - 3) } } }))
  await breaking(/repeats and reorders no messages/, () => ({}), { keeps: false, receiving: (receiver) => ({ ...forwardTo(receiver), deliver: (...args) => { receiver.deliver(...args); receiver.deliver(...args) } }) })
  await breaking(/loses no messages/, () => ({}), { receiving: (receiver) => ({ ...forwardTo(receiver), deliver: (group, payload, position) => position?.offset === 3 ? receiver.lost(group, position) : receiver.deliver(group, payload, position) }) })
  await breaking(/messages of an outage in order/, (broker, hub) => ({ publish: (group, payload) => hub.isAway ? undefined : broker.publish(group, payload) }))
  await breaking(/joined during an outage/, (broker, hub) => ({ subscribe: (group) => hub.isAway ? Promise.reject(new Error('away')) : broker.subscribe(group) }))
  await breaking(/loses no messages/, () => ({}), { receiving: (receiver) => ({ ...forwardTo(receiver), deliver: (...args) => { if (args[2]?.offset !== 3) receiver.deliver(...args) } }) })
})

function forwardTo (receiver: Receiver): Receiver {
  return {
    deliver: (...args) => receiver.deliver(...args),
    lost: (...args) => receiver.lost(...args),
    error: (...args) => receiver.error(...args)
  }
}
