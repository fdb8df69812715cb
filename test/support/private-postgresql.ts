/** Private servers of PostgreSQL, for tests that restart, promote or restore them. */
import { execFile } from 'node:child_process'
import { appendFileSync, chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'
import { findProgram } from './install.ts'

/** Registers what ends a server. */
export type After = (run: () => Promise<void> | void) => void

/** Seconds in which a server has to start or stop. */
const LIMIT = 60
const SETTINGS = `
listen_addresses = '127.0.0.1'
fsync = off
max_prepared_transactions = 5
`

const found = await findProgram('/usr/lib/postgresql/*/bin/postgres', 'postgresql')
if (found instanceof Error && process.env['CI'] === 'true') throw found

/** Why tests with private servers are skipped. */
export const noPostgresql: string | false = found instanceof Error && found.message
const programs = found instanceof Error ? '' : dirname(found)

export interface PrivatePostgresql {
  readonly port: number
  readonly url: string
  start (): Promise<void>
  /** Stops at once, as after a crash. */
  crash (): Promise<void>
  /** Starts another server that follows this one. */
  follow (after: After): Promise<PrivatePostgresql>
  /** Makes a server that follows another one a primary. */
  promote (): Promise<void>
  /** Runs one of PostgreSQL's programs with the address of the server. */
  run (program: string, ...args: string[]): Promise<string>
}

/** Starts a server, which ends after the test. */
export async function startPostgresql (after: After): Promise<PrivatePostgresql> {
  const server = await makeServer(after, (data) => run('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync'))
  await server.start()
  return server
}

async function makeServer (after: After, create: (data: string) => Promise<unknown>): Promise<PrivatePostgresql> {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-pg-'))
  // the server gives up the rights of root
  chmodSync(folder, 0o777)
  const [data, log] = [join(folder, 'data'), join(folder, 'log')]
  writeFileSync(log, '', { mode: 0o666 })
  chmodSync(log, 0o666)
  const port = await freePort()
  await create(data)
  appendFileSync(join(data, 'postgresql.conf'), `${SETTINGS}port = ${port}\nunix_socket_directories = '${folder}'\n`)

  const control = async (...args: string[]) => {
    try {
      await run('pg_ctl', '-D', data, '-l', log, '-w', '-t', String(LIMIT), ...args)
    } catch (error) {
      throw new Error(`pg_ctl ${args.join(' ')}: ${(error as Error).message}\n${readFileSync(log, 'utf8')}`)
    }
  }
  after(async () => {
    // a test can have stopped it
    await control('stop', '-m', 'immediate').catch(() => {})
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  })
  const address = ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres']
  return {
    port,
    url: `postgresql://postgres@127.0.0.1:${port}/postgres`,
    start: () => control('start'),
    crash: () => control('stop', '-m', 'immediate'),
    promote: () => control('promote'),
    async follow (after) {
      const standby = await makeServer(after, (data) => run('pg_basebackup', ...address, '-D', data, '-R', '-c', 'fast', '--no-sync'))
      await standby.start()
      return standby
    },
    run: (program, ...args) => run(program, ...address, ...args)
  }
}

/** Runs a program, as the user `postgres` where there is the right to be another one. Servers refuse root. */
async function run (program: string, ...args: string[]): Promise<string> {
  const path = join(programs, program)
  const [file, rest] = process.getuid?.() === 0 ? ['runuser', ['-u', 'postgres', '--', path, ...args]] : [path, args]
  const { stdout } = await promisify(execFile)(file, rest, { cwd: '/', timeout: 1000 * LIMIT, maxBuffer: Infinity })
  return stdout
}
