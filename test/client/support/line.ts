/** A proxy to a server that can cut connections or drop all data. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { atEnd } from './client.ts'

export interface Line {
  /** The address for clients, `http://…`. */
  http: string
  /** Drops all data in both directions from now on, without closing connections. */
  silence (): void
  /** Ends all connections immediately. */
  cut (): void
  /** Ends all connections, and refuses new ones until `mend`. */
  break (): Promise<void>
  mend (): Promise<void>
  /** Resolves when a client connects. */
  dialled (): Promise<void>
}

export async function openLine (t: TestContext, { http }: { http: string }): Promise<Line> {
  const target = Number(new URL(http).port)
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1')
    near.pipe(far).pipe(near)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
  })
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  }
  await listen(0)
  const { port } = server.address() as AddressInfo

  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  const close = () => new Promise<void>((resolve) => { server.close(() => resolve()) })
  atEnd(t, () => {
    server.close()
    cut()
  })

  return {
    http: `http://127.0.0.1:${port}`,
    silence () {
      for (const socket of sockets) socket.unpipe()
      for (const socket of sockets) socket.resume()
    },
    cut,
    async break () {
      const closed = close()
      cut()
      await closed
    },
    mend: () => listen(port),
    async dialled () {
      await once(server, 'connection')
    }
  }
}
