/** A Redis of the benchmark's own: it keeps nothing on disk, and ends with the run. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { GENERATOR_CPU } from './pair.ts'

/** Starts Redis, lets `work` use it, and ends it. Its CPU is that of the load generator: the servers have the other one to themselves. */
export async function withRedis<T> (pin: boolean, work: (port: number) => Promise<T>): Promise<T> {
  if (spawnSync('redis-server', ['--version']).status !== 0) throw new Error("there is no redis-server: install Debian's package of that name, or another one")

  const port = await freePort()
  const command = ['redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const [program = '', ...args] = pin ? ['taskset', '-c', String(GENERATOR_CPU), ...command] : command
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    for await (const text of child.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
      if (String(text).includes('Ready to accept connections')) break
    }
    child.stdout.resume()
    return await work(port)
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}

/** Finds a port that nobody listens on. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}
