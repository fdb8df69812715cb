/** Redis for the tests: the one on the standard port for what harms nothing, private ones for the rest. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis, type RedisOptions } from 'ioredis'
import { freePort } from './free-port.ts'
import { findProgram } from './install.ts'

/** The program, and what to tell the test runner as `skip`. */
export const redisServer = await find()

async function find (): Promise<{ path: string, skip: string | false }> {
  const path = '/usr/bin/redis-server'
  const found = await findProgram(path, 'redis-server')
  if (found instanceof Error && process.env.CI === 'true') throw found
  return { path, skip: found instanceof Error && found.message }
}

/** A Redis of a test's own. */
export class PrivateRedis {
  readonly port: number
  readonly folder: string
  readonly #clients: Redis[] = []
  #process: ChildProcess | undefined

  constructor (port: number, folder: string) {
    this.port = port
    this.folder = folder
  }

  /** Starts it, or starts it again, with what is in its folder. */
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

  /** Ends it as a power failure would. */
  async kill (): Promise<void> {
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  /** Holds it, its connections open, or lets it go on. */
  signal (signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process?.kill(signal)
  }

  /** A client that tries again soon. */
  client (options: Omit<RedisOptions, 'replyMapping'> = {}): Redis {
    const client = new Redis({ host: '127.0.0.1', port: this.port, retryStrategy: () => 10, ...options })
    client.on('error', () => {})
    this.#clients.push(client)
    return client
  }

  /** Cuts connections. */
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

/** Starts a Redis of a test's own on a free port, in a folder of its own. It ends with the test. */
export async function privateRedis (t: { after (run: () => Promise<void>): void }, ...args: string[]): Promise<PrivateRedis> {
  const redis = new PrivateRedis(await freePort(), mkdtempSync(join(tmpdir(), 'rohrpost-redis-')))
  t.after(() => redis.stop())
  await redis.start(...args)
  return redis
}
