/** The conformance suite of brokers: what the contract says, as tests that any of them can be put to. */
import type { Broker } from '../brokers/broker.ts'
import { faultTests } from './broker-faults.ts'
import { groupTests } from './broker-groups.ts'
import { historyTests } from './broker-history.ts'
import { processTests } from './broker-processes.ts'
import { Recorder } from './recorder.ts'
import type { BrokerCapabilities, BrokerFaults, BrokerSuiteOptions } from './suite-setup.ts'

/** A broker with what it told. */
export interface Opened {
  broker: Broker
  recorder: Recorder
}

/** What one test works with. */
export interface Scene {
  /** Opens one more broker, which is closed after the test. */
  open: () => Promise<Opened>
  /** A group that no other test uses. */
  group: string
}

/** What the parts of the suite are made with. */
export interface Parts {
  define: (name: string, run: (scene: Scene) => Promise<void>) => void
  capabilities: BrokerCapabilities
  fault: BrokerFaults
}

/**
 * Defines the tests that a broker has to pass. What a broker may do, but need not, is tested if `capabilities` has it; how it bears the faults of what
 * is behind it, if `fault` can provoke them.
 *
 * ```ts
 * import { test } from 'node:test'
 * import { brokerSuite } from 'fastify-rohrpost/testing'
 *
 * brokerSuite({
 *   test,
 *   open: async (receiver) => {
 *     const broker = myBroker()
 *     await broker.open(receiver)
 *     return broker
 *   },
 *   capabilities: { processes: true }
 * })
 * ```
 */
export function brokerSuite ({ test, open, capabilities = {}, fault = {} }: BrokerSuiteOptions): void {
  // other than in any other run against the same server
  const run = crypto.randomUUID()
  let groups = 0

  const define: Parts['define'] = (name, body) => {
    const group = `test-${run}-${++groups}`
    test(`broker: ${name}`, async () => {
      const brokers: Broker[] = []
      try {
        await body({
          group,
          open: async () => {
            const recorder = new Recorder()
            const broker = await open(recorder)
            brokers.push(broker)
            return { broker, recorder }
          }
        })
      } finally {
        await Promise.all(brokers.map((broker) => broker.close()))
      }
    })
  }

  const parts = { define, capabilities, fault }
  groupTests(parts)
  if (capabilities.processes === true) processTests(parts)
  historyTests(parts)
  faultTests(parts)
}
