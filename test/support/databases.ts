/**
 * PostgreSQL and MariaDB for the tests: those on the standard ports, else private ones, which end with the run. `node
 * --test` calls this once (`--test-global-setup`); the tests read `POSTGRESQL_URL` and `MARIADB_URL`.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { MariaDbDriver } from '@mikro-orm/mariadb'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM, type Options } from '@mikro-orm/sql'
import { freePort } from './free-port.ts'
import { findProgram } from './install.ts'

/** How long a server may take to start, in milliseconds. */
const START = 60_000

interface Server {
  /** The environment variable that has its address. */
  variable: string
  /** Where it is expected. */
  url: string
  driver: unknown
  program: string
  debian: string
  /** Makes the files of a private server. */
  create (program: string, folder: string): void
  start (program: string, folder: string, port: number): ChildProcess
  privateUrl (port: number): string
}

const servers: Server[] = [
  {
    variable: 'POSTGRESQL_URL',
    url: 'postgresql://postgres@127.0.0.1:5432/postgres',
    driver: PostgreSqlDriver,
    program: '/usr/lib/postgresql/*/bin/postgres',
    debian: 'postgresql',
    create (program, folder) {
      execFileSync(...as('postgres', program.replace(/postgres$/, 'initdb'), '-D', join(folder, 'data'), '-U', 'postgres', '-A', 'trust', '--no-sync'), { stdio: 'pipe' })
    },
    start: (program, folder, port) => spawn(...as('postgres', program, '-D', join(folder, 'data'), '-p', String(port), '-h', '127.0.0.1', '-k', folder, '-F')),
    privateUrl: (port) => `postgresql://postgres@127.0.0.1:${port}/postgres`
  },
  {
    variable: 'MARIADB_URL',
    url: 'mysql://root@127.0.0.1:3306/test',
    driver: MariaDbDriver,
    program: '/usr/sbin/mariadbd',
    debian: 'mariadb-server',
    create (_program, folder) {
      execFileSync('mariadb-install-db', [
        '--no-defaults', `--datadir=${join(folder, 'data')}`, '--auth-root-authentication-method=normal', '--skip-name-resolve',
        ...(isRoot() ? ['--user=mysql'] : [])
      ], { stdio: 'pipe' })
    },
    start: (program, folder, port) => spawn(program, [
      '--no-defaults', `--datadir=${join(folder, 'data')}`, `--port=${port}`, '--bind-address=127.0.0.1', `--socket=${join(folder, 'socket')}`,
      '--skip-name-resolve', '--innodb-flush-log-at-trx-commit=0', ...(isRoot() ? ['--user=mysql'] : [])
    ]),
    privateUrl: (port) => `mysql://root@127.0.0.1:${port}/test`
  }
]

const running: { process: ChildProcess, folder: string }[] = []

/** Finds or starts the servers. @throws Error with `CI=true` when one can't be had; elsewhere its tests are skipped */
export async function globalSetup (): Promise<void> {
  for (const server of servers) {
    process.env[server.variable] ??= server.url
    if (await answers(server)) continue

    try {
      await startPrivate(server)
    } catch (error) {
      if (process.env.CI === 'true') throw error
      console.log(`no ${server.debian}: ${(error as Error).message}`)
    }
  }
}

/** Ends what was started. */
export async function globalTeardown (): Promise<void> {
  for (const { process, folder } of running) {
    process.kill('SIGQUIT')
    await Promise.race([once(process, 'exit'), wait(5000, undefined, { ref: false })])
    process.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

async function startPrivate (server: Server): Promise<void> {
  const program = await findProgram(server.program, server.debian)
  if (program instanceof Error) throw program

  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-'))
  // servers give up the rights of root
  chmodSync(folder, 0o777)
  server.create(program, folder)
  const port = await freePort()
  const child = server.start(program, folder, port)
  running.push({ process: child, folder })

  let output = ''
  child.stdout?.on('data', (text) => { output += text })
  child.stderr?.on('data', (text) => { output += text })
  process.env[server.variable] = server.privateUrl(port)
  for (const end = Date.now() + START; !(await answers(server)); await wait(100)) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${program} did not start\n${output}`)
  }
}

/** Whether a server takes the user and the database of its address. */
async function answers ({ variable, driver }: Server): Promise<boolean> {
  const clientUrl = String(process.env[variable])
  if (!await isOpen(new URL(clientUrl))) return false

  const orm = await MikroORM.init({
    driver: driver as NonNullable<Options['driver']>, clientUrl, entities: [], discovery: { warnWhenNoEntities: false }
  })
  try {
    await orm.em.getConnection().execute('select 1')
    return true
  } catch {
    return false
  } finally {
    await orm.close()
  }
}

async function isOpen ({ hostname, port }: URL): Promise<boolean> {
  const socket = connect(Number(port), hostname)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** A command as another user, where there is the right to be one. */
function as (user: string, program: string, ...args: string[]): [string, string[]] {
  return isRoot() ? ['runuser', ['-u', user, '--', program, ...args]] : [program, args]
}

function isRoot (): boolean {
  return process.getuid?.() === 0
}
