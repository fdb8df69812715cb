/** The process that a plan kills: it ends itself at an instant, as if it was killed there. */
import { Socket } from 'node:net'
import type { EventSubscriber } from '@mikro-orm/core'

/** The instant at which the process ends. */
export interface Instructions {
  /**
   * `committed`: the answer to a COMMIT is there. `sent`: a COMMIT was sent, its answer is not there. `confirmed`: the
   * broker has confirmed messages, which are still in the outbox. `killed`: whenever the parent process kills it.
   */
  instant: 'committed' | 'sent' | 'confirmed' | 'killed'
  /** The number of commits before it. */
  commits: number
  /** Number of this process, from 1. */
  number: number
}

/** What a driver writes at an instant. */
const WRITTEN: Partial<Record<Instructions['instant'], string>> = { sent: 'commit', confirmed: 'delete from' }

let commits = 0
let instructions: Instructions | undefined

/** Counts the commits of the process. Has to be the first subscriber of its ORM. */
export const counting: EventSubscriber = {
  afterTransactionCommit ({ transaction }) {
    if (transaction?.savepointName !== undefined) return
    commits++
    if (isDue('committed')) end()
  }
}

const { write } = Socket.prototype
Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
  const instant = writtenAt(args[0])
  if (instant === 'confirmed') end()
  const isTaken = Reflect.apply(write, this, args) as boolean
  // drivers write a message as one chunk, which the kernel has now
  if (instant === 'sent') end()
  return isTaken
} as Socket['write']

/** Reports `ready` to the parent process, and runs a function when the instructions are there. */
export function obey (run: (instructions: Instructions) => Promise<unknown>): void {
  process.once('message', (given: Instructions) => {
    instructions = given
    return run(given)
  })
  process.once('disconnect', end)
  process.send?.('ready')
}

function end (): void {
  process.kill(process.pid, 'SIGKILL')
}

function isDue (instant: Instructions['instant']): boolean {
  return instructions?.instant === instant && commits >= instructions.commits
}

/** Returns the due instant at which a driver writes a chunk. */
function writtenAt (chunk: unknown): Instructions['instant'] | undefined {
  const instant = instructions?.instant
  const text = instant && isDue(instant) ? WRITTEN[instant] : undefined
  if (text === undefined || !(chunk instanceof Uint8Array)) return
  return Buffer.from(chunk).includes(text) ? instant : undefined
}
