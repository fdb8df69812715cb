/** Events of diagnostics channels during a test. */
import type { TestContext } from 'node:test'
import { diagnostics, type DiagnosticsChannel, type DiagnosticsEvents } from '../../lib/index.ts'

type Name = keyof typeof diagnostics
type Recorded = { [Channel in Name]: DiagnosticsEvents[`rohrpost:${Channel}`][] }

/** Records the events of some channels: a list for each channel, and the order of all. */
export function record (t: TestContext, ...names: Name[]): Recorded & { order: string[] } {
  const order: string[] = []
  const recorded = Object.fromEntries(Object.keys(diagnostics).map((name) => [name, []])) as unknown as Recorded
  for (const name of names) {
    const channel: DiagnosticsChannel<object> = diagnostics[name] as never
    const listener = (event: object): void => {
      order.push(name)
      recorded[name].push(event as never)
    }
    channel.subscribe(listener)
    t.after(() => channel.unsubscribe(listener))
  }
  return { ...recorded, order }
}
