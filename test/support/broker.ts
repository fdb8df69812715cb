/** Opens a Redis broker with a recorder, and closes it after the test. */
import type { TestContext } from 'node:test'
import { redisBroker, type RedisBrokerOptions } from '../../lib/brokers/redis/index.ts'
import type { Broker } from '../../lib/index.ts'
import { Recorder } from '../../lib/testing/recorder.ts'

export async function openBroker (t: TestContext, options: RedisBrokerOptions): Promise<{ broker: Broker, recorder: Recorder }> {
  const recorder = new Recorder()
  const broker = redisBroker(options)
  t.after(() => broker.close())
  await broker.open(recorder)
  return { broker, recorder }
}

/** Resolves when a condition holds. */
export async function poll (isSo: () => unknown): Promise<void> {
  while (!await isSo()) await new Promise((resolve) => setTimeout(resolve, 5))
}
