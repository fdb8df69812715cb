/** Runs three server processes behind one Redis until Ctrl-C. A process that ends is started again on its port. */
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'

const REDIS_URL = process.env.REDIS_URL ?? await startRedis()
const first = Number(process.env.PORT ?? 3001)
const children = new Set<ReturnType<typeof fork>>()
let isStopping = false

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop)
for (const index of [0, 1, 2]) run(index + 1, first === 0 ? 0 : first + index)

/** Runs one process, and starts it again when it ends. */
function run (number: number, port: number): void {
  const child = fork(join(import.meta.dirname, 'server.ts'), {
    env: { ...process.env, REDIS_URL, PORT: String(port) },
    // a process group of its own: Ctrl-C reaches the parent alone, which then stops its children
    detached: true
  })
  children.add(child)
  child.on('message', (taken: number) => {
    port = taken
    console.log(`Process ${number} (${child.pid}) is at http://localhost:${port}/`)
  })
  child.on('exit', () => {
    children.delete(child)
    if (isStopping) return
    console.log(`Process ${number} (${child.pid}) ended`)
    // the pause keeps a port that is taken from restarting the process in a tight loop
    setTimeout(run, 500, number, port)
  })
}

function stop (): void {
  if (isStopping) return
  isStopping = true
  Promise.all([...children].map(async (child) => {
    child.kill()
    await once(child, 'exit')
  })).then(() => process.exit())
}

/** Starts a Redis that stores nothing and ends with this process; gives its URL. */
async function startRedis (): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()

  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const redis = spawn('redis-server', args, { stdio: 'ignore', detached: true })
  redis.on('error', () => {
    console.error('redis-server is not installed. Install it, or set REDIS_URL to a Redis that runs.')
    process.exit(1)
  })
  process.on('exit', () => redis.kill())
  await once(redis, 'spawn')
  console.log(`Redis (${redis.pid}) is at redis://127.0.0.1:${port}`)
  return `redis://127.0.0.1:${port}`
}
