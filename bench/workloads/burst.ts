/** A hundred events in one turn of the event loop, as a large flush makes them, and the time until the last member has the last one. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pair } from '../lib/pair.ts'
import { groupName } from '../lib/protocols.ts'
import { spread } from '../lib/statistics.ts'
import type { Measurement, Scale, Settings, Workload } from '../lib/workload.ts'

const SIZES: Record<Scale, { messages: number, members: number }> = {
  full: { messages: 100, members: 1000 },
  quick: { messages: 100, members: 1000 },
  tiny: { messages: 10, members: 5 }
}
/** A server that takes long makes the least, one that does not as many as it can in the time of a measurement. */
const LEAST: Record<Scale, number> = { full: 2, quick: 1, tiny: 2 }
const MOST = 20

async function measure (pair: Pair, { messages, members }: typeof SIZES.full, settings: Settings): Promise<Measurement[]> {
  await pair.generator.call('expect', pair.protocol.eventLength)
  let frames = 0
  const burst = async () => {
    frames += messages * members
    const reached = pair.generator.call('reach', frames)
    const startedAt = await pair.server.call('burst', { messages, members })
    return (await reached - startedAt) / 1e6
  }

  const warm = performance.now() + settings.warmUp
  do await burst(); while (performance.now() < warm)

  const times: number[] = []
  const before = await Promise.all([pair.server.cpuTime(), pair.generator.cpuTime()])
  const end = performance.now() + settings.measure
  while (times.length < LEAST[settings.scale] || (performance.now() < end && times.length < MOST)) {
    times.push(await burst())
    await sleep(settings.settle / 4)
  }
  const [server, generator] = await Promise.all([pair.server.cpuTime(), pair.generator.cpuTime()])
  const failures = await pair.settle(await pair.server.call('stop'))

  const busy = times.reduce((sum, time) => sum + time, 0) * 1e6
  const shares = {
    serverBusy: (server.run - before[0].run) / busy,
    serverWaited: (server.wait - before[0].wait) / busy,
    generatorBusy: (generator.run - before[1].run) / busy
  }
  return [
    { value: spread(times)?.median ?? NaN, rate: messages * members * times.length / busy * 1e9, ...shares, failures },
    { value: (server.run - before[0].run) / times.length / 1e6, failures }
  ]
}

export const burst: Workload = {
  name: 'burst',
  title: 'Burst: many events in one turn of the event loop',
  cases (scale) {
    const { messages, members } = SIZES[scale]
    const name = `${messages} events to ${members} members`
    return [{
      rows: [
        { name: `${name}, to the last delivery`, unit: 'ms', counts: 'deliveries', ratio: 'gain', targets: { ws: 50, 'socket.io': 50 } },
        { name: `${name}, server`, unit: 'ms CPU', ratio: 'gain' }
      ],
      ...Pair.each(async (pair, settings) => {
        await pair.connect(Array.from({ length: members }, () => [groupName(0)]))
        return measure(pair, SIZES[scale], settings)
      })
    }]
  }
}
