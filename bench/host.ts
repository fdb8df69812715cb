/** The process of the server under test. Started by the benchmark: `host.ts <server> <options as JSON>`. */
import { changeEvent, groupName } from './lib/protocols.ts'
import { Publisher } from './lib/publisher.ts'
import { serve } from './lib/remote.ts'
import { servers, type RedisOptions, type ServerName, type StartServer } from './servers/server.ts'

/** How the server is started. */
export interface HostOptions {
  /** With the MikroORM plugin, for the others with a context for each request by hand. */
  orm?: boolean
  redis?: RedisOptions
}

const [, , name = '', given = '{}'] = process.argv
const { orm: withOrm = false, redis }: HostOptions = JSON.parse(given)
const { start } = await import(servers[name as ServerName].file.replace('./', './servers/')) as { start: StartServer }
// loaded only where it is used: it would add to the memory and the start of all others
const library = withOrm ? await import('./lib/orm.ts') : undefined
const orm = await library?.openOrm()
const server = await start({ ...(library && orm && { orm, inContext: library.makeContext(orm) }), ...(redis && { redis }) })
const publisher = new Publisher()
const reportPort = await publisher.listen()

let published = 0
let seed = 12_345

/** The same numbers for every server. */
function random (below: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
  return (seed >> 8) % below
}

/** Rows that are updated over and over; those who have no notifications tell the members by hand. */
async function openShelf (rows: number): Promise<() => Promise<void>> {
  if (library === undefined || orm === undefined) throw new Error('started without an ORM')
  const em = orm.em.fork()
  await em.insertMany(library.Book, Array.from({ length: rows }, (_, index) => library.book(index + 1, 0)))
  const books = await em.findAll(library.Book)

  return async () => {
    for (const row of books) row.stock++
    await em.flush()
    if (name === 'rohrpost') return

    for (const { id, shelf, title, price, stock } of books) {
      const group = `group-${shelf}`
      const object = { id, title, price, stock, updated_fields: ['stock'] }
      server.publish(group, { id: published++, type: 'subscription-update', data: { group, type: 'update', object } })
    }
  }
}

const host = {
  ports: () => ({ port: server.port, reportPort }),

  /** Publishes so many events a turn, each to one of the groups. */
  startEvents (options: { groups: number, members: number, perTick: number, window: number }) {
    const { groups, members, perTick, window } = options
    publisher.start({
      tick: () => {
        for (let count = 0; count < perTick; count++) {
          const group = groupName(groups === 1 ? 0 : random(groups))
          server.publish(group, changeEvent(published++, group))
        }
      },
      framesPerTick: perTick * members,
      window
    })
  },

  /** Updates all rows and flushes, over and over. */
  async startRows ({ rows, members, window }: { rows: number, members: number, window: number }) {
    publisher.start({ tick: await openShelf(rows), framesPerTick: rows * members, window })
  },

  /** Publishes no more. Gives the number of deliveries that must arrive in all. */
  stop: () => publisher.stop(),

  /** Publishes events to the first group in one turn. Gives the start in nanoseconds of the monotonic clock. */
  burst ({ messages, members }: { messages: number, members: number }) {
    const group = groupName(0)
    const startedAt = Number(process.hrtime.bigint())
    for (let count = 0; count < messages; count++) server.publish(group, changeEvent(published++, group))
    publisher.add(messages * members)
    return startedAt
  },

  /** Bytes in memory once all garbage is gone. */
  memory () {
    if (globalThis.gc === undefined) throw new Error('started without --expose-gc')
    globalThis.gc()
    globalThis.gc()
    return process.memoryUsage()
  }
}

export type Host = typeof host

serve(host)
