/** Runs two server processes on one database until Ctrl-C. A process that ends is started again on its port. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join, relative } from 'node:path'
import { openDatabase } from './database.ts'

const DATABASE = process.env.DATABASE || relative('', join(import.meta.dirname, 'board.sqlite'))
const first = Number(process.env.PORT || 3001)
const children = new Set<ReturnType<typeof fork>>()
let isStopping = false

await makeTables()
console.log(`The posts are in ${DATABASE}`)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(0))
for (const index of [0, 1]) run(index + 1, first === 0 ? 0 : first + index)

/** Makes the tables once, before the processes start. */
async function makeTables (): Promise<void> {
  try {
    const orm = await openDatabase(DATABASE)
    await orm.schema.update()
    await orm.close()
  } catch (error) {
    console.error(`The database ${DATABASE} can't be used: ${(error as Error).message}`)
    console.error('Delete the file to begin with a new one, or name another one in DATABASE.')
    process.exit(1)
  }
}

/** Runs one process, and starts it again when it ends. */
function run (number: number, port: number, isRestart = false): void {
  const child = fork(join(import.meta.dirname, 'server.ts'), {
    env: { ...process.env, DATABASE, PORT: String(port) },
    // a process group of its own: Ctrl-C reaches the parent alone, which then stops its children
    detached: true
  })
  let hasListened = isRestart
  children.add(child)
  child.on('message', (taken: number) => {
    port = taken
    hasListened = true
    console.log(`Process ${number} (${child.pid}) is at http://localhost:${port}/`)
  })
  child.on('exit', () => {
    children.delete(child)
    if (isStopping) return
    console.log(`Process ${number} (${child.pid}) ended`)
    if (!hasListened) {
      console.error(`It can't listen on port ${port}, see above. PORT names the first of two other ports.`)
      return stop(1)
    }
    // the pause keeps a process that can not start from restarting in a tight loop
    setTimeout(run, 500, number, port, true)
  })
}

function stop (code: number): void {
  if (isStopping) return
  isStopping = true
  Promise.all([...children].map(async (child) => {
    child.kill()
    await once(child, 'exit')
  })).then(() => process.exit(code))
}
