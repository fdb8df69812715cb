/** Options of `brokerSuite`, and the types that its parts share. Type-only. */
import type { Broker, Receiver } from '../brokers/broker.ts'
import type { Recorder } from './recorder.ts'

/** The test function of a test runner: `test` of `node:test`, of Vitest, or a similar one. */
export type DefineTest = (name: string, run: () => Promise<void>) => unknown

/** Optional abilities of a broker. */
export interface BrokerCapabilities {
  /** Whether several open brokers act as processes that share their groups. @defaultValue false */
  processes?: boolean
  /**
   * Number of messages that the broker keeps for each group: at least 3, and at most a few hundred, so that the tests
   * stay short.
   *
   * @defaultValue none
   */
  history?: { size: number }
}

/** Functions that make the server behind the broker fail. A missing function leaves out the tests that need it. */
export interface BrokerFaults {
  /** Cuts all connections to the server, which accepts new ones at once. */
  disconnect? (): void | Promise<void>
  /**
   * Makes the server unreachable.
   *
   * @returns a function that makes it reachable again, with all of its data. The suite calls it before publishing times
   * out
   */
  away? (): Promise<() => void | Promise<void>>
  /** Deletes all data of the server. */
  forget? (): void | Promise<void>
  /** Resolves when all messages so far are older than the history keeps them. */
  expire? (): void | Promise<void>
}

/** Options of `brokerSuite`. */
export interface BrokerSuiteOptions {
  test: DefineTest
  /**
   * Makes a broker and opens it with the receiver. The suite closes it. Each test uses groups of its own, so that all
   * tests can share a server.
   */
  open: (receiver: Receiver) => Broker | Promise<Broker>
  capabilities?: BrokerCapabilities
  fault?: BrokerFaults
}

/** An open broker, and a recording of the calls that its receiver gets. */
export interface RecordedBroker {
  broker: Broker
  recorder: Recorder
}

/** The argument of one test of the suite. */
export interface BrokerTestContext {
  /** Opens another broker, which is closed after the test. */
  open: () => Promise<RecordedBroker>
  /** Name of a group that no other test uses. */
  group: string
}

/** The argument of each part of the suite. */
export interface BrokerTests {
  define: (name: string, run: (context: BrokerTestContext) => Promise<void>) => void
  capabilities: BrokerCapabilities
  fault: BrokerFaults
}
