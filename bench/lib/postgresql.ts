/** A PostgreSQL of the benchmark's own, with its default settings: it ends with the run, and its files with it. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, globSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MikroORM } from '@mikro-orm/postgresql'
import { freePort } from './redis.ts'

/** How long the server may take to start, in milliseconds. */
const START = 30_000

/** A private server. */
export interface PostgreSql {
  /** Makes an empty database. Gives its URL. */
  create (name: string): Promise<string>
  /** Runs a statement in a database. */
  run (url: string, sql: string): Promise<Record<string, unknown>[]>
}

/** Finds the newest server that is installed. @throws Error */
export function findPostgreSql (): string {
  const [folder] = globSync('/usr/lib/postgresql/*/bin').sort().toReversed()
  if (folder === undefined) throw new Error("there is no PostgreSQL: install Debian's package 'postgresql'")
  return folder
}

/** Starts PostgreSQL, lets `work` use it, and ends it. */
export async function withPostgreSql<T> (work: (server: PostgreSql) => Promise<T>): Promise<T> {
  const programs = findPostgreSql()
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-bench-'))
  chmodSync(folder, 0o777)
  const data = join(folder, 'data')
  const user = unprivileged()
  execFileSync(join(programs, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust'], { ...user, stdio: 'pipe' })
  const port = await freePort()
  const child = spawn(join(programs, 'postgres'), [
    '-D', data, '-p', String(port), '-h', '127.0.0.1', '-k', folder, '-c', 'shared_preload_libraries=pg_stat_statements'
  ], { ...user, stdio: 'ignore' })
  const open = new Map<string, Promise<MikroORM>>()
  const urlOf = (name: string) => `postgresql://postgres@127.0.0.1:${port}/${name}`
  const server: PostgreSql = {
    async create (name) {
      await server.run(urlOf('postgres'), `create database ${name}`)
      return urlOf(name)
    },
    async run (clientUrl, sql) {
      if (!open.has(clientUrl)) open.set(clientUrl, connect(clientUrl))
      return (await open.get(clientUrl))?.em.getConnection().execute(sql) ?? []
    }
  }
  try {
    await untilReady(urlOf('postgres'), child)
    return await work(server)
  } finally {
    for (const orm of await Promise.allSettled(open.values())) if (orm.status === 'fulfilled') await orm.value.close(true)
    // an immediate shutdown of all its processes
    child.kill('SIGQUIT')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
  }
}

async function untilReady (url: string, child: ChildProcess): Promise<void> {
  for (const end = performance.now() + START; ; await sleep(50)) {
    const orm = await connect(url)
    try {
      await orm.em.getConnection().execute('select 1')
      return
    } catch (error) {
      if (child.exitCode !== null || performance.now() > end) throw error
    } finally {
      await orm.close(true)
    }
  }
}

function connect (clientUrl: string): Promise<MikroORM> {
  return MikroORM.init({ clientUrl, entities: [], ensureDatabase: false, discovery: { warnWhenNoEntities: false } })
}

/** PostgreSQL refuses to run as root. */
function unprivileged (): { uid?: number, gid?: number } {
  if (process.getuid?.() !== 0) return {}
  const [uid, gid] = ['-u', '-g'].map((option) => Number(execFileSync('id', [option, 'postgres'], { encoding: 'utf8' })))
  return { ...(uid !== undefined && { uid }), ...(gid !== undefined && { gid }) }
}
