/** Everything goes wrong that can, one after another, while messages are published and clients come and go. */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { PrivateRedis } from '../../support/redis.ts'
import { Cluster } from './cluster.ts'
import { examine, type Report } from './report.ts'
import { SlowLine } from './slow-line.ts'
import { Witness } from './witness.ts'

export interface PlanOptions {
  /** Starts a Redis, which ends with the test. */
  makeRedis: () => Promise<PrivateRedis>
  /** Whether the broker keeps history. */
  history: boolean
  processes: number
  clients: number
  groups: number
  /** How many messages are published in all. */
  messages: number
  /** Milliseconds between two faults. */
  pause: number
  /** Milliseconds for which Redis stands still; once more for half of it, after which what waits is still sent. */
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
/** Lines of a process's log that one fault may make. */
const LINES = 6

/** Where processes find Redis: another one after a failover. */
interface Place {
  redis: PrivateRedis
  readonly line: SlowLine
}

/** What goes wrong. It ends with everything being there again, if not yet at work. */
interface Fault {
  happen: () => Promise<unknown>
  /** What must tell it; nothing where all goes on as before. */
  told: readonly ('health' | 'log')[]
}

export async function run (options: PlanOptions): Promise<Report> {
  const { makeRedis, processes, groups, clients, history, say } = options
  const redis = await makeRedis()
  const place: Place = { redis, line: new SlowLine(redis.port) }
  await place.line.open()
  const cluster = new Cluster({ redis: place.line.port, processes, groups, history: history ? { size: 2000, ttl: 60_000 } : undefined })
  const witnesses: Witness[] = []
  try {
    const url = await cluster.start()
    for (let n = 0; n < clients; n++) witnesses.push(new Witness(url, n % groups))
    await Promise.all(witnesses.map(({ joined }) => joined))
    say(`${clients} clients in ${groups} groups, ${processes} processes`)

    const wrong = await disturb(cluster, options, place)
    await settle(cluster, witnesses, groups)
    const report = examine(witnesses, cluster.publishers, groups, history)
    report.untold = wrong.untold.length
    report.noisy = wrong.noisy.length
    report.examples.push(...wrong.untold, ...wrong.noisy)
    return report
  } finally {
    for (const witness of witnesses) witness.close()
    await cluster.stop()
    place.line.close()
  }
}

/** The faults by name. */
function faults ({ makeRedis, processes, stop, pause, history }: PlanOptions, cluster: Cluster, place: Place): Record<string, Fault> {
  const snapshot = () => join(place.redis.folder, 'dump.rdb')
  const stand = async (ms: number) => {
    place.redis.signal('SIGSTOP')
    await wait(ms)
    place.redis.signal('SIGCONT')
  }
  const asking = async (ask: (client: ReturnType<PrivateRedis['client']>) => Promise<unknown>) => {
    const client = place.redis.client()
    await ask(client)
    client.disconnect()
  }
  return {
    'CLIENT KILL of every connection': {
      happen: () => Promise.all([place.redis.cut('TYPE', 'normal'), place.redis.cut('TYPE', 'pubsub')]),
      told: []
    },
    'CLIENT KILL of the connections that hear': { happen: () => place.redis.cut('TYPE', 'pubsub'), told: [] },
    'a line to Redis of 20 kB/s and 300 ms': {
      async happen () {
        place.line.slowness = { rate: 20_000, delay: 300 }
        await wait(2 * pause)
        place.line.slowness = undefined
      },
      told: []
    },
    'Redis stands still for a moment': { happen: () => stand(stop / 2), told: ['health'] },
    'the scripts are flushed and killed': {
      happen: () => asking(async (client) => {
        for (const end = performance.now() + pause; performance.now() < end; await wait(5)) {
          await client.script('FLUSH')
          await client.script('KILL').catch(() => {})
        }
      }),
      told: []
    },
    'one key has a wrong type': {
      happen: () => asking(async (client) => {
        await client.set('rohrpost:meta:todo-0', 'by hand')
        // those that hear catch up, in this group in vain
        await place.redis.cut('TYPE', 'pubsub')
        await wait(pause)
        await client.del('rohrpost:meta:todo-0')
      }),
      told: history ? ['health', 'log'] : []
    },
    'Redis can not save and refuses to write': {
      happen: () => asking(async (client) => {
        await client.config('SET', 'save', '3600 1000000')
        await rm(place.redis.folder, { recursive: true })
        while (!(await client.info('persistence')).includes('rdb_last_bgsave_status:err')) {
          await client.bgsave().catch(() => {})
          await wait(20)
        }
        await wait(pause)
        await client.config('SET', 'stop-writes-on-bgsave-error', 'no')
        await mkdir(place.redis.folder)
      }),
      told: ['health', 'log']
    },
    'kill -9 of a Fastify process': {
      async happen () {
        const index = Math.floor(Math.random() * processes)
        await cluster.kill(index)
        await wait(pause / 4)
        await cluster.startOne(index)
      },
      told: []
    },
    'kill -9 of Redis, restarted empty': {
      async happen () {
        await place.redis.kill()
        await rm(snapshot(), { force: true })
        await wait(pause / 4)
        await place.redis.start()
      },
      told: ['health', 'log']
    },
    'Redis stands still': { happen: () => stand(stop), told: ['health', 'log'] },
    'kill -9 of Redis, restarted from an older snapshot': {
      async happen () {
        await asking((client) => client.call('SAVE'))
        await wait(pause)
        await place.redis.kill()
        await wait(pause / 4)
        await place.redis.start()
      },
      told: ['health', 'log']
    },
    'failover to a replica': {
      async happen () {
        const replica = await makeRedis()
        const client = replica.client()
        await client.replicaof('127.0.0.1', place.redis.port)
        while (!(await client.info('replication')).includes('master_link_status:up')) await wait(20)
        await wait(pause)
        // as a planned failover: the old primary is there, and can only be read
        await client.replicaof('NO', 'ONE')
        await asking((old) => old.replicaof('127.0.0.1', replica.port))
        place.line.target = replica.port
        place.redis = replica
        client.disconnect()
        await wait(pause)
      },
      told: ['log']
    }
  }
}

/**
 * Publishes evenly over the time that the faults take, and cuts clients at random all the time.
 *
 * @returns the faults that were not told as they should be
 */
async function disturb (cluster: Cluster, options: PlanOptions, place: Place): Promise<Record<'untold' | 'noisy', string[]>> {
  const { messages, clients, pause, stop, rounds, processes, say } = options
  const wrong = { untold: [] as string[], noisy: [] as string[] }
  const plan = Object.entries(faults(options, cluster, place))
  const duration = rounds * (1.25 * plan.length * pause + 1.5 * stop + 12 * pause)
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
      for (const [name, { happen, told }] of plan) {
        await wait(pause)
        say(name)
        const before = { ...cluster.signs }
        await happen()
        await wait(pause / 4)
        const since = { health: cluster.signs.health - before.health, log: cluster.signs.log - before.log }
        for (const sign of told) if (since[sign] === 0) wrong.untold.push(`untold: ${name} (${sign})`)
        if (since.log > LINES * processes) wrong.noisy.push(`noisy: ${name}, ${since.log} lines`)
      }
    }
    clearInterval(cutting)
    await all.promise
    return wrong
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
