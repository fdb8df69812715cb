/** `npm start`: shows the demo on PORT, or on the next free one, until Ctrl-C. */
import type { AddressInfo } from 'node:net'
import { buildDemo } from './app.ts'

const app = await buildDemo()
const port = await listen(Number(process.env.PORT || 3000))
console.log(`The demo is at http://localhost:${port}/ (Ctrl-C stops it)`)

let stopping: Promise<void> | undefined
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // npm may pass on a Ctrl-C that the terminal has sent already: the second one must not interrupt the first
  process.on(signal, () => { stopping ??= app.close() })
}

async function listen (port: number): Promise<number> {
  try {
    await app.listen({ port })
    return (app.server.address() as AddressInfo).port
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    console.log(`Port ${port} is taken, trying ${port + 1} …`)
    return listen(port + 1)
  }
}
