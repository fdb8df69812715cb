/**
 * A process that commits changes of its own row until it is killed: `writer.ts NAME DATABASE REDIS_PORT outbox|none`. It
 * reports `ready`, and starts when it gets its instructions.
 */
import { Socket } from 'node:net'
import type { EventSubscriber } from '@mikro-orm/core'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { Counter, open, rules } from '../kills/counters.ts'

/** The instant at which the process ends. */
export interface Instructions {
  /**
   * `committed`: the answer to a COMMIT is there, and nothing is published. `sent`: a COMMIT was sent, its answer is not
   * there. `confirmed`: the broker has confirmed messages, which are still in the outbox. `killed`: whenever the parent
   * process kills it.
   */
  instant: 'committed' | 'sent' | 'confirmed' | 'killed'
  /** The number of commits before it. */
  commits: number
  /** The row of this process. */
  row: number
}

const [, , name, dbName = '', port, outbox] = process.argv
/** What a driver writes at an instant. */
const WRITTEN: Partial<Record<Instructions['instant'], string>> = { sent: 'commit', confirmed: 'delete from' }

let commits = 0
let instructions: Instructions | undefined

function end (): void {
  process.kill(process.pid, 'SIGKILL')
}

const counting: EventSubscriber = {
  afterTransactionCommit () {
    commits++
    if (instructions?.instant === 'committed' && commits >= instructions.commits) end()
  }
}

const { write } = Socket.prototype
Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
  const text = instructions && commits >= instructions.commits ? WRITTEN[instructions.instant] : undefined
  const isDue = text !== undefined && args[0] instanceof Uint8Array && Buffer.from(args[0]).includes(text)
  if (isDue && instructions?.instant === 'confirmed') end()
  const isTaken = Reflect.apply(write, this, args) as boolean
  // drivers write a message as one chunk, which the kernel has now
  if (isDue) end()
  return isTaken
} as Socket['write']

const orm = await open(name as DatabaseName, dbName, { subscribers: [counting] })
const app = Fastify()
await app.register(rohrpost, { broker: redisBroker({ client: new Redis({ host: '127.0.0.1', port: Number(port) }) }) })
await app.register(rohrpostMikroOrm, { orm, notify: rules, outbox: outbox === 'outbox' })
await app.ready()

process.once('message', async (given: Instructions) => {
  instructions = given
  for (;;) {
    await orm.em.fork().transactional(async (em) => {
      const counter = await em.findOneOrFail(Counter, given.row)
      counter.value++
    })
  }
})
process.once('disconnect', end)
process.send?.('ready')
