/** What a broker's test file hands to the suite. Type-only. */
import type { Broker, Receiver } from '../brokers/broker.ts'

/** The test function of a test runner: `test` of `node:test`, of Vitest, or one like them. */
export type DefineTest = (name: string, run: () => Promise<void>) => unknown

/** What a broker can do besides what each one must. */
export interface BrokerCapabilities {
  /** Whether brokers that are opened one after another are like processes that share their groups. @defaultValue false */
  processes?: boolean
  /** How many messages of a group the broker keeps: at least 3 and, so that tests stay short, at most some hundreds. @defaultValue none */
  history?: { size: number }
}

/** Ways to harm what is behind the broker. Tests of what is not given are left out. */
export interface BrokerFaults {
  /** Cuts all connections to the server; they can be made again at once. */
  disconnect? (): void | Promise<void>
  /** Takes the server away, and returns what brings the same one back, nothing forgotten. Everything must be back within the time that a publish may wait. */
  away? (): Promise<() => void | Promise<void>>
  /** Makes the server forget all that it knows. */
  forget? (): void | Promise<void>
  /** Resolves when all that was kept until now is too old to be had. */
  expire? (): void | Promise<void>
}

/** Options of `brokerSuite`. */
export interface BrokerSuiteOptions {
  test: DefineTest
  /** Makes a broker and opens it with the receiver. The suite closes it. Tests use groups of their own, so the server behind may be the same for all. */
  open: (receiver: Receiver) => Broker | Promise<Broker>
  capabilities?: BrokerCapabilities
  fault?: BrokerFaults
}
