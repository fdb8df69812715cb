/** The suite finds what it is for: brokers that break one rule each fail the test of that rule. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBroker, type Broker, type Position, type Receiver } from '../../lib/index.ts'
import { brokerSuite, type BrokerSuiteOptions } from '../../lib/testing/index.ts'

const SIZE = 20
const history = { size: SIZE, ttl: 60_000 }

/** Processes that share a memory: one broker that tells all of them. */
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

  /** Runs something now, or when the server is back. */
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

/** What of the suite a broker fails. */
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

test('a broker that keeps all rules passes', async () => {
  assert.deepEqual(await failures(() => ({})), [])
  assert.deepEqual(await failures(() => ({}), { keeps: false }), [])
})

test('a broker of one process that keeps all rules passes', async () => {
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

test('a broker that breaks a rule fails the test of it', async (t) => {
  const breaking = async (rule: RegExp, change: Parameters<typeof failures>[0], options: Parameters<typeof failures>[1] = {}) => {
    assert.equal((await failures(change, { ...options, only: rule })).length, 1, String(rule))
  }
  // nothing that a broken broker never says is waited for longer than that
  const { setTimeout } = globalThis
  t.mock.method(globalThis, 'setTimeout', (run: () => void, delay: number) => setTimeout(run, Math.min(delay, 100)))

  await breaking(/to nobody else/, (broker) => ({ unsubscribe: () => {}, subscribe: (group) => { broker.subscribe(`${group}-other`); return broker.subscribe(group) } }))
  await breaking(/nothing after unsubscribe/, () => ({ unsubscribe: () => {} }))
  await breaking(/can be opened once/, () => ({ open: () => {} }))
  await breaking(/once it is closed/, () => ({ close: () => {} }))
  await breaking(/is well/, () => ({ health: () => ({ ok: false }) }))
  await breaking(/payloads as they are/, (broker) => ({ publish: (group, payload) => broker.publish(group, payload.trim().replaceAll('\t', ' ')) }))
  await breaking(/names of groups/, (broker) => ({ publish: (group, payload) => broker.publish(group.replace('*', 'a'), payload) }))
  await breaking(/keeps the order of a group,/, (broker) => ({ publish: async (group, payload) => { if (payload.endsWith('7}')) await null; return broker.publish(group, payload) } }))
  await breaking(/order of each of many/, (broker) => ({ publish: async (group, payload) => { if (payload.endsWith('7}')) await null; return broker.publish(group, payload) } }))
  await breaking(/hears everything from the moment/, (broker) => ({ subscribe: (group) => { setImmediate(() => broker.subscribe(group)); return { epoch: 'e', offset: 0 } } }))
  await breaking(/every process/, (_broker, hub, receiver) => ({ publish: (group, payload) => { if (hub.receivers.get(receiver)?.has(group)) receiver.deliver(group, payload) } }), { keeps: false })
  await breaking(/one order for all/, () => ({}), { receiving: (receiver, hub) => hub.receivers.size > 0 ? receiver : { ...told(receiver), deliver: (...args) => { if (args[1].includes('"sender":1')) setImmediate(() => receiver.deliver(...args)); else receiver.deliver(...args) } } })
  await breaking(/lets out what waits/, (broker) => {
    const waiting: unknown[][] = []
    return { publish: (...args) => { waiting.push(args) }, close: () => { waiting.length = 0; return broker.close() } }
  })
  await breaking(/no positions and no history/, () => ({ history: () => [] }), { keeps: false })
  await breaking(/says that it keeps history/, () => ({ keepsHistory: false }))
  await breaking(/begins at offset 0/, () => ({}), { receiving: (receiver) => ({ ...told(receiver), deliver: (group, payload) => receiver.deliver(group, payload) }) })
  await breaking(/where the group stands/, () => ({ subscribe: () => ({ epoch: 'e', offset: 0 }) }))
  await breaking(/gives what came after a position/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.reverse() }))
  await breaking(/can not answer for/, (broker) => ({ history: (...args) => broker.history(...args) ?? [] }))
  await breaking(/as many messages as it says/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.slice(0, SIZE - 1) }))
  await breaking(/no more than the bytes/, (broker) => ({ history: (group, after, limit) => broker.history(group, after, limit) }))
  await breaking(/same positions in every process/, (broker) => ({ history: async (...args) => (await broker.history(...args))?.slice(1) }))
  await breaking(/without a gap from where/, (broker) => ({ subscribe: async (group) => { const top = await broker.subscribe(group); return top && { ...top, offset: Math.max(0, top.offset - 3) } } }))
  await breaking(/never repeats or reorders/, () => ({}), { keeps: false, receiving: (receiver) => ({ ...told(receiver), deliver: (...args) => { receiver.deliver(...args); receiver.deliver(...args) } }) })
  await breaking(/loses its connections, and nothing else/, () => ({}), { receiving: (receiver) => ({ ...told(receiver), deliver: (group, payload, position) => position?.offset === 3 ? receiver.lost(group, position) : receiver.deliver(group, payload, position) }) })
  await breaking(/keeps what is published while the server is away/, (broker, hub) => ({ publish: (group, payload) => hub.isAway ? undefined : broker.publish(group, payload) }))
  await breaking(/joins a group while/, (broker, hub) => ({ subscribe: (group) => hub.isAway ? Promise.reject(new Error('away')) : broker.subscribe(group) }))
  await breaking(/loses its connections, and/, () => ({}), { receiving: (receiver) => ({ ...told(receiver), deliver: (...args) => { if (args[2]?.offset !== 3) receiver.deliver(...args) } }) })
})

function told (receiver: Receiver): Receiver {
  return {
    deliver: (...args) => receiver.deliver(...args),
    lost: (...args) => receiver.lost(...args),
    error: (...args) => receiver.error(...args)
  }
}
