/** Preloaded (`node --import`): somebody listens to every channel, and counts. */
import { diagnostics, type DiagnosticsChannel } from '../../lib/diagnostics.ts'

const counts: Record<string, number> = {}

for (const channel of Object.values(diagnostics) as DiagnosticsChannel<object>[]) {
  counts[channel.name] = 0
  channel.subscribe((_event, name) => { counts[name] = (counts[name] ?? 0) + 1 })
}
