/**
 * A process that commits changes of hot rows until it is killed: `writer.ts NAME DATABASE`. It reports `ready`, and
 * starts when it gets its instructions.
 */
import { Socket } from 'node:net'
import type { EventSubscriber } from '@mikro-orm/core'
import Fastify from 'fastify'
import { databaseBroker } from '../../../lib/brokers/database/index.ts'
import rohrpost from '../../../lib/index.ts'
import { rohrpostMikroOrm } from '../../../lib/mikro-orm/index.ts'
import type { DatabaseName } from '../../brokers/database/support.ts'
import { change, open, rules } from './counters.ts'

/** The instant at which the process ends. */
export interface Instructions {
  /**
   * `committed`: the answer to a COMMIT is there. `sent`: a COMMIT was sent, its answer is not there. `killed`: whenever
   * the parent process kills it.
   */
  instant: 'committed' | 'sent' | 'killed'
  /** The number of commits before it. */
  commits: number
}

const [, , name, dbName = ''] = process.argv
/** Transactions at a time. SQLite has one connection, and one writer. */
const TRANSACTIONS = name === 'SQLite' ? 1 : 3

let commits = 0
let instructions: Instructions | undefined

function end (): void {
  process.kill(process.pid, 'SIGKILL')
}

function isDue (instant: Instructions['instant']): boolean {
  return instructions?.instant === instant && commits >= instructions.commits
}

const counting: EventSubscriber = {
  afterTransactionCommit ({ transaction }) {
    if (transaction?.savepointName !== undefined) return
    commits++
    if (isDue('committed')) end()
  }
}

const { write } = Socket.prototype
Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
  const isTaken = Reflect.apply(write, this, args) as boolean
  // drivers write a message as one chunk, which the kernel has now
  if (isDue('sent') && args[0] instanceof Uint8Array && Buffer.from(args[0]).includes('commit')) end()
  return isTaken
} as Socket['write']

const orm = await open(name as DatabaseName, dbName, { subscribers: [counting] })
const app = Fastify()
await app.register(rohrpost, { broker: databaseBroker({ orm }) })
await app.register(rohrpostMikroOrm, { orm, notify: rules })
await app.ready()

process.once('message', async (given: Instructions) => {
  instructions = given
  await Promise.all(Array.from({ length: TRANSACTIONS }, async () => {
    for (;;) await change(orm)
  }))
})
process.once('disconnect', end)
process.send?.('ready')
