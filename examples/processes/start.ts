/** `node examples/processes/start.ts`: three processes behind one Redis, until Ctrl-C. One that ends is started again on its port. */
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

/** Runs one process, over and over. */
function run (number: number, port: number): void {
  // of its own group, so that Ctrl-C reaches this process alone
  const child = fork(join(import.meta.dirname, 'server.ts'), { env: { ...process.env, REDIS_URL, PORT: String(port) }, detached: true })
  children.add(child)
  child.on('message', (taken: number) => {
    port = taken
    console.log(`Process ${number} (${child.pid}) is at http://localhost:${port}/`)
  })
  child.on('exit', () => {
    children.delete(child)
    if (isStopping) return
    console.log(`Process ${number} (${child.pid}) ended`)
    // a port that is taken is no reason to try without pause
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

/** A Redis that keeps nothing and ends with this process. */
async function startRedis (): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()

  const redis = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], { stdio: 'ignore', detached: true })
  redis.on('error', () => {
    console.error('There is no redis-server. Install it, or set REDIS_URL to one that runs.')
    process.exit(1)
  })
  process.on('exit', () => redis.kill())
  await once(redis, 'spawn')
  console.log(`Redis (${redis.pid}) is at redis://127.0.0.1:${port}`)
  return `redis://127.0.0.1:${port}`
}
