/** Redis servers for the tests: each test that stops or changes Redis starts a private one. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis, type RedisOptions } from 'ioredis'
import { freePort } from './free-port.ts'
import { findProgram } from './install.ts'

/** The path of redis-server, and the option `skip` for tests that need it. */
export const redisServer = await find()

async function find (): Promise<{ path: string, skip: string | false }> {
  const path = '/usr/bin/redis-server'
  const found = await findProgram(path, 'redis-server')
  if (found instanceof Error && process.env.CI === 'true') throw found
  return { path, skip: found instanceof Error && found.message }
}

/** A private Redis of one test. */
export class PrivateRedis {
  readonly port: number
  readonly folder: string
  readonly #clients: Redis[] = []
  #process: ChildProcess | undefined

  constructor (port: number, folder: string) {
    this.port = port
    this.folder = folder
  }

  /** Starts the server, or restarts it with the data in its folder. */
  async start (...args: string[]): Promise<void> {
    const child = this.#process = spawn(redisServer.path, [
      '--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.folder, '--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0', ...args
    ])
    let output = ''
    for await (const text of child.stdout.setEncoding('utf8')) {
      output += text
      if (/Ready to accept connections|Address already in use/.test(output)) break
    }
    if (!output.includes('Ready to accept')) throw new Error(`Redis did not start\n${output}`)
  }

  /** Kills the server without saving. */
  async kill (): Promise<void> {
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  /** Pauses or continues the process; its connections stay open. */
  signal (signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process?.kill(signal)
  }

  /** Makes a client that reconnects quickly. */
  client (options: Omit<RedisOptions, 'replyMapping'> = {}): Redis {
    const client = new Redis({ host: '127.0.0.1', port: this.port, retryStrategy: () => 10, ...options })
    client.on('error', () => {})
    this.#clients.push(client)
    return client
  }

  /** Kills connections, all or those that a filter of CLIENT KILL selects. */
  async cut (...filter: string[]): Promise<void> {
    const client = this.client()
    await client.call('CLIENT', 'KILL', ...filter, 'SKIPME', 'yes')
    client.disconnect()
  }

  async stop (): Promise<void> {
    for (const client of this.#clients) client.disconnect()
    this.signal('SIGCONT')
    await this.kill()
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Starts a private Redis on a free port, with a folder of its own, until the test ends. */
export async function privateRedis (t: { after (run: () => Promise<void>): void }, ...args: string[]): Promise<PrivateRedis> {
  const redis = new PrivateRedis(await freePort(), mkdtempSync(join(tmpdir(), 'rohrpost-redis-')))
  t.after(() => redis.stop())
  await redis.start(...args)
  return redis
}

/** Starts a Sentinel with a configuration file, which it writes to, until the test ends. @returns its port */
export async function startSentinel (t: { after (run: () => void): void }, config: string): Promise<number> {
  const port = await freePort()
  const child = spawn(redisServer.path, [config, '--sentinel', '--port', String(port), '--bind', '127.0.0.1'])
  t.after(() => { child.kill('SIGKILL') })
  for await (const text of child.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    if (String(text).includes('Sentinel ID is')) break
  }
  child.stdout.resume()
  return port
}
