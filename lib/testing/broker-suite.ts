/** The conformance suite of brokers: tests of the contract in `brokers/broker.ts`. */
import type { Broker } from '../brokers/broker.ts'
import { faultTests } from './broker-faults.ts'
import { groupTests } from './broker-groups.ts'
import { historyTests } from './broker-history.ts'
import { processTests } from './broker-processes.ts'
import { Recorder } from './recorder.ts'
import type { BrokerSuiteOptions, BrokerTests } from './suite-setup.ts'

/**
 * Defines the tests that a broker has to pass. `capabilities` selects the tests of optional abilities, and `fault` the
 * tests in which the server behind the broker fails.
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
  // unique, so that runs against the same server do not share groups
  const run = crypto.randomUUID()
  let groups = 0

  const define: BrokerTests['define'] = (name, body) => {
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

  const tests = { define, capabilities, fault }
  groupTests(tests)
  if (capabilities.processes === true) processTests(tests)
  historyTests(tests)
  faultTests(tests)
}
