/** A TCP proxy between clients and a server, which can change its target and drop replies. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface Line {
  port: number
  /** The port to which new connections go. */
  target: number
  /** Whether replies of the server are dropped. */
  losesAnswers: boolean
  /** Resolves when a reply is dropped. */
  lost (): Promise<void>
  /** Closes all connections, or those whose sent text satisfies a condition. */
  cut (which?: (first: string) => boolean): void
}

/** Opens a proxy, and closes it after the test. */
export async function openLine (t: { after (run: () => void): void }, target: number): Promise<Line> {
  const pairs = new Map<Socket, { far: Socket, sent: string }>()
  let onLost: (() => void) | undefined
  const server = createServer((near) => {
    const far = connect(line.target, '127.0.0.1')
    const pair = { far, sent: '' }
    pairs.set(near, pair)
    near.on('data', (data) => {
      if (pair.sent.length < 10_000) pair.sent += data
      far.write(data)
    })
    far.on('data', (data) => {
      if (line.losesAnswers) onLost?.()
      else near.write(data)
    })
    for (const [one, other] of [[near, far], [far, near]] as const) {
      one.on('error', () => {})
      one.on('close', () => {
        other.destroy()
        pairs.delete(near)
      })
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')

  const line: Line = {
    port: (server.address() as AddressInfo).port,
    target,
    losesAnswers: false,
    lost: () => new Promise((resolve) => { onLost = resolve }),
    cut (which = () => true) {
      for (const [near, { sent }] of pairs) if (which(sent)) near.destroy()
    }
  }
  t.after(() => {
    server.close()
    line.cut()
  })
  return line
}
