export { brokerSuite } from './broker-suite.ts'
export { TestClient } from './test-client.ts'
export type { BrokerCapabilities, BrokerFaults, BrokerSuiteOptions, DefineTest } from './types.ts'
export type { TestFrame, TestSocket } from './test-client.ts'
