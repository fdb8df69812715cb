/** Starts processes that commit, and kills them. Both plans that kill processes use it. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { makeDatabase, type After, type DatabaseName } from '../../brokers/database/support.ts'
import { Counter, open } from './counters.ts'
import type { Instructions } from './mortal.ts'

/** Options of a plan. */
export interface KillOptions {
  database: DatabaseName
  kills: number
  say?: (text: string) => void
}

/** Options of `kill`. */
interface Killing {
  /** File of the process. */
  writer: string
  args: readonly string[]
  /** The instants at which processes end, in turns. */
  instants: ReadonlyArray<Instructions['instant']>
  kills: number
  after: After
  say?: ((text: string) => void) | undefined
}

/** Writers at a time, and writers that are started in advance. */
const ACTIVE = 2
const SPARE = 1
/** Upper bounds of the random instants: commits, and milliseconds. */
const COMMITS = 12
const DELAY = 60

/** Runs a plan, and what it has registered with `after`, the last first. */
export async function withEndings<Report> (run: (after: After) => Promise<Report>): Promise<Report> {
  const endings: Parameters<After>[0][] = []
  try {
    return await run((end) => endings.unshift(end))
  } finally {
    for (const end of endings) await end()
  }
}

/** Makes a database with the given number of counters. */
export async function makeCounters (name: DatabaseName, rows: number, after: After) {
  const database = await makeDatabase(name, after, { hasTables: false })
  const dbName = String(database.orm.config.get('dbName'))
  const orm = await open(name, dbName)
  after(() => orm.close(true))
  if (name === 'SQLite') await orm.em.getConnection().execute('pragma journal_mode = wal')
  await orm.schema.create()
  await orm.em.fork().insertMany(Counter, Array.from({ length: rows }, (_, index) => ({ id: index + 1, value: 0 })))
  return { orm, dbName }
}

/** Starts writers and kills them. Resolves when all have ended. */
export async function kill ({ writer, args, instants, kills, after, say = () => {} }: Killing): Promise<void> {
  const children = new Set<ChildProcess>()
  after(() => { for (const child of children) child.kill('SIGKILL') })
  const start = async () => {
    const child = fork(writer, args, { env: { ...process.env, NODE_V8_COVERAGE: undefined } })
    children.add(child)
    const ended = once(child, 'exit').then(([code]) => {
      children.delete(child)
      if (code !== null) throw new Error(`A writer ended with the exit code ${code}`)
    })
    ended.catch(() => {})
    await Promise.race([once(child, 'message'), ended])
    return { child, ended }
  }

  const ready: Array<ReturnType<typeof start>> = []
  let [begun, done] = [0, 0]
  const next = () => {
    while (ready.length <= SPARE) ready.push(start())
    return ready.shift() as ReturnType<typeof start>
  }
  await Promise.all(Array.from({ length: ACTIVE }, async () => {
    while (begun < kills) {
      const instant = instants[begun % instants.length] as Instructions['instant']
      const number = ++begun
      const { child, ended } = await next()
      child.send({ instant, number, commits: 1 + Math.floor(Math.random() * COMMITS) } satisfies Instructions)
      if (instant === 'killed') {
        await wait(Math.random() * DELAY)
        child.kill('SIGKILL')
      }
      await ended
      if (++done % 100 === 0) say(`${done} of ${kills} writers are killed`)
    }
  }))
  for (const { child, ended } of await Promise.all(ready)) {
    child.kill('SIGKILL')
    await ended
  }
}

/**
 * Reads the counters again and again until a condition holds, for some milliseconds at most: a server may still end
 * transactions of killed writers. The condition is looked at after each call of `wake`.
 */
export async function readUntil (
  orm: Awaited<ReturnType<typeof open>>,
  holds: (counters: readonly CounterRow[]) => boolean,
  changed: (wake: () => void) => void,
  milliseconds: number
): Promise<readonly CounterRow[]> {
  const deadline = AbortSignal.timeout(milliseconds)
  for (;;) {
    const counters = await orm.em.fork().find(Counter, {})
    if (holds(counters) || deadline.aborted) return counters
    const { promise, resolve } = Promise.withResolvers<void>()
    changed(resolve)
    deadline.addEventListener('abort', () => resolve(), { once: true })
    if (!holds(counters)) await promise
  }
}

/** A row of the table of counters. */
export interface CounterRow {
  readonly id: number
  readonly value: number
}
