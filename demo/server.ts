/** `npm start`: shows the demo on PORT, or on the next free one, until Ctrl-C. DATABASE names another file. */
import type { AddressInfo } from 'node:net'
import { join, relative } from 'node:path'
import { buildDemo } from './app.ts'

const MAX_PORT = 65535

const wanted = Number(process.env.PORT || 3000)
if (!Number.isInteger(wanted) || wanted < 0 || wanted > MAX_PORT) {
  fail(`PORT is '${process.env.PORT}', it must be a whole number from 0 to ${MAX_PORT}`)
}
const file = process.env.DATABASE || relative('', join(import.meta.dirname, 'todos.sqlite'))

const app = await build()
const port = await listen(wanted)
console.log(`The demo is at http://localhost:${port}/ (Ctrl-C stops it)`)
console.log(`The to-dos are in ${file}. Run npm start once more, and two processes share them.`)

let stopping: Promise<void> | undefined
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // npm may repeat a Ctrl-C that the terminal has sent already: the second signal must not interrupt the first stop
  process.on(signal, () => { stopping ??= app.close() })
}

async function build () {
  try {
    return await buildDemo(file)
  } catch (error) {
    return fail(`The demo can't use the database ${file}: ${(error as Error).message}\n` +
      'Delete the file to begin with a new one, or name another one in DATABASE.')
  }
}

async function listen (port: number): Promise<number> {
  try {
    await app.listen({ port })
    return (app.server.address() as AddressInfo).port
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'EADDRINUSE' || port === MAX_PORT) fail(`The demo can't listen on port ${port}: ${message}`)
    console.log(`Port ${port} is taken, trying ${port + 1} …`)
    return listen(port + 1)
  }
}

function fail (reason: string): never {
  console.error(reason)
  process.exit(1)
}
