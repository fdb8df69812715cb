/** Rows in which a server publishes and all members must hear of it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pair, perFrame } from './pair.ts'
import type { Measurement, Settings } from './workload.ts'

/** A load of events: each goes to all members of one group. */
export interface Load {
  groups: number
  /** Members of each group. */
  members: number
  /** Events in each turn of the event loop. */
  perTick: number
}

/** Deliveries that may be under way; some turns at least, and no more than 256 for each connection. */
export function windowOf (framesPerTick: number, connections: number): number {
  return Math.max(Math.min(32_768, 256 * connections), 4 * framesPerTick)
}

/** Measures loads one after another, the deepest last, on connections that are there. */
export async function publish (pair: Pair, loads: readonly Load[], connections: number, { warmUp, settle, measure }: Settings): Promise<Measurement[]> {
  await pair.generator.call('expect', pair.protocol.eventLength)
  const measurements: Measurement[] = []

  for (const [index, load] of loads.entries()) {
    if (index === 0) {
      const deepest = loads.at(-1) ?? load
      await start(pair, deepest, connections)
      await sleep(warmUp)
      await pair.settle(await pair.speaker.call('stop'))
    }
    await start(pair, load, connections)
    await sleep(settle)
    const observation = await pair.observe(measure)
    const failures = await pair.settle(await pair.speaker.call('stop'))
    measurements.push(perFrame(observation, failures))
  }
  return measurements
}

async function start (pair: Pair, load: Load, connections: number): Promise<void> {
  const window = windowOf(load.perTick * load.members, connections)
  await pair.reportTo(window)
  await pair.speaker.call('startEvents', { ...load, window })
}
