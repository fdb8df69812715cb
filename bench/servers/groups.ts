/** Groups as everybody writes them by hand for `ws`: a set of sockets for each name, and a loop. */
import type { WebSocket } from 'ws'
import type { ServerOptions } from './server.ts'

interface Request {
  id: number
  type: string
  data: { groups?: string[] }
}

/** The sockets of a server by group. */
export class Groups {
  readonly #members = new Map<string, Set<WebSocket>>()

  join (name: string, socket: WebSocket): void {
    let members = this.#members.get(name)
    if (members === undefined) this.#members.set(name, members = new Set())
    members.add(socket)
  }

  leave (names: Iterable<string>, socket: WebSocket): void {
    for (const name of names) {
      const members = this.#members.get(name)
      members?.delete(socket)
      if (members?.size === 0) this.#members.delete(name)
    }
  }

  publish (name: string, event: object): void {
    const text = JSON.stringify(event)
    for (const socket of this.#members.get(name) ?? []) {
      if (socket.readyState === socket.OPEN) socket.send(text)
    }
  }
}

/** Answers what comes over a socket. */
export function answer (socket: WebSocket, groups: Groups, inContext: ServerOptions['inContext']): void {
  const joined = new Set<string>()
  socket.on('close', () => groups.leave(joined, socket))
  socket.on('error', () => {}) // the load generator resets its connections

  const handle = ({ id, type, data }: Request): void => {
    switch (type) {
      case 'ping':
        return socket.send(JSON.stringify({ id, type: 'pong', data }))
      case 'echo':
        return socket.send(JSON.stringify({ id, type, data }))
      case 'join':
        for (const name of data.groups ?? []) {
          joined.add(name)
          groups.join(name, socket)
        }
        return socket.send(JSON.stringify({ id, type }))
    }
  }
  socket.on('message', (raw) => {
    const request: Request = JSON.parse(raw.toString())
    if (inContext === undefined) handle(request)
    else inContext(() => handle(request))
  })
}
