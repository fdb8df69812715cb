/** Everything goes wrong that can, one after another, while messages are published and clients come and go. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { PrivateRedis } from '../../support/redis.ts'
import { Cluster } from './cluster.ts'
import { examine, type Report } from './report.ts'
import { Witness } from './witness.ts'

export interface PlanOptions {
  redis: PrivateRedis
  /** Whether the broker keeps history. */
  history: boolean
  processes: number
  clients: number
  groups: number
  /** How many messages are published in all. */
  messages: number
  /** Milliseconds between two faults. */
  pause: number
  /** Milliseconds for which Redis stands still. */
  stop: number
  /** How often the plan is gone through. */
  rounds: number
  /** Called at each step. */
  say: (text: string) => void
}

/** Milliseconds between two portions of messages. */
const TICK = 20
/** Milliseconds after which clients that hear nothing are a fault. */
const PATIENCE = 60_000

export async function run (options: PlanOptions): Promise<Report> {
  const { redis, processes, groups, clients, history, say } = options
  const cluster = new Cluster({ redis: redis.port, processes, groups, history: history ? { size: 2000, ttl: 60_000 } : undefined })
  const witnesses: Witness[] = []
  try {
    const url = await cluster.start()
    for (let n = 0; n < clients; n++) witnesses.push(new Witness(url, n % groups))
    await Promise.all(witnesses.map(({ joined }) => joined))
    say(`${clients} clients in ${groups} groups, ${processes} processes`)

    await disturb(cluster, options)
    await settle(cluster, witnesses, groups)
    return examine(witnesses, cluster.publishers, groups, history)
  } finally {
    for (const witness of witnesses) witness.close()
    await cluster.stop()
  }
}

/** The faults by name. Each ends with everything being there again, if not yet at work. */
function faults ({ redis, processes, stop, pause }: PlanOptions, cluster: Cluster): Record<string, () => Promise<void>> {
  const snapshot = join(redis.folder, 'dump.rdb')
  return {
    'CLIENT KILL of every connection' () {
      return Promise.all([redis.cut('TYPE', 'normal'), redis.cut('TYPE', 'pubsub')]).then(() => {})
    },
    'CLIENT KILL of the connections that hear': () => redis.cut('TYPE', 'pubsub'),
    async 'kill -9 of a Fastify process' () {
      const index = Math.floor(Math.random() * processes)
      await cluster.kill(index)
      await wait(pause / 4)
      await cluster.startOne(index)
    },
    async 'kill -9 of Redis, restarted empty' () {
      await redis.kill()
      await rm(snapshot, { force: true })
      await wait(pause / 4)
      await redis.start()
    },
    async 'Redis stands still' () {
      redis.signal('SIGSTOP')
      await wait(stop)
      redis.signal('SIGCONT')
    },
    async 'kill -9 of Redis, restarted from an older snapshot' () {
      const client = redis.client()
      await client.call('SAVE')
      client.disconnect()
      await wait(pause)
      await redis.kill()
      await redis.start()
    }
  }
}

/** Publishes evenly over the time that the faults take, and cuts clients at random all the time. */
async function disturb (cluster: Cluster, options: PlanOptions): Promise<void> {
  const { messages, clients, pause, stop, rounds, say } = options
  const plan = Object.entries(faults(options, cluster))
  const duration = rounds * (plan.length * pause + stop + 2 * pause)
  const all = Promise.withResolvers<void>()
  let [due, published] = [0, 0]
  const publishing = setInterval(() => {
    due = Math.min(messages, due + messages * TICK / duration)
    const count = Math.floor(due) - published
    if (count > 0) cluster.publish(count)
    published += count
    if (published === messages) all.resolve()
  }, TICK)
  const cutting = setInterval(() => cluster.cut(Math.ceil(clients / 100)), pause / 10)
  try {
    for (let round = 0; round < rounds; round++) {
      for (const [name, happen] of plan) {
        await wait(pause)
        say(name)
        await happen()
      }
    }
    clearInterval(cutting)
    await all.promise
  } finally {
    clearInterval(publishing)
    clearInterval(cutting)
  }
}

/** Waits until every client has heard a message that was published after all faults. */
async function settle (cluster: Cluster, witnesses: readonly Witness[], groups: number): Promise<void> {
  const deadline = Date.now() + PATIENCE
  const from = cluster.publishers.map(({ asked }) => asked)
  const isLate = ({ entries }: Witness) => {
    const last = entries.at(-1)
    return last?.kind !== 'heard' || last.n <= (from[last.publisher] ?? 0)
  }
  while (witnesses.some((witness) => !witness.isJoined || isLate(witness))) {
    if (Date.now() > deadline) throw new Error(`${witnesses.filter(isLate).length} clients heard nothing for ${PATIENCE} ms`)
    // one for each group by each process
    cluster.publish(cluster.size * groups)
    await wait(500)
  }
  // what was published last is heard by all before it is counted
  await wait(1000)
}
