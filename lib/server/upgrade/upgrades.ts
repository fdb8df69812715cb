/** The upgrade requests of an HTTP server: WebSockets go to @fastify/websocket, all others are answered as plain HTTP. */
import type { IncomingMessage, OutgoingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { WebSocketServer } from 'ws'

type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

/** What Node.js keeps on the socket of an HTTP connection. */
interface HttpSocket extends Duplex {
  server: Server
  encrypted?: boolean
  /** The response that is being written. */
  _httpMessage?: OutgoingMessage | null
}

/** An upgrade request that is neither accepted nor refused yet. */
interface Pending {
  readonly socket: Duplex
  readonly onFinish: () => void
  readonly onClose: () => void
}

const servers = new WeakMap<Server, Upgrades>()

/**
 * Stands before the `upgrade` listeners of a server. Node.js leaves the socket of an upgrade request to its listener, and @fastify/websocket does not
 * end it when the request is refused outside of its own hooks: it would stay open, and keep the server from closing.
 */
export class Upgrades {
  readonly #server: Server
  readonly #listeners = new Set<UpgradeListener>()
  readonly #pending = new Map<IncomingMessage, Pending>()
  #emptied: PromiseWithResolvers<void> | undefined

  private constructor (server: Server) {
    this.#server = server
    const { shouldUpgradeCallback } = server as { shouldUpgradeCallback?: (request: IncomingMessage) => boolean }
    if (shouldUpgradeCallback !== undefined) {
      // Node.js from 22.21 asks, and goes on with a request that is not to be upgraded as if it had not asked for it
      Object.assign(server, {
        shouldUpgradeCallback: (request: IncomingMessage) => (isWebSocket(request) || this.#hasOthers) && shouldUpgradeCallback.call(server, request)
      })
    }
    server.on('upgrade', this.#onUpgrade)
  }

  /** Those of a server, which all registrations share. */
  static of (server: Server): Upgrades {
    let upgrades = servers.get(server)
    if (upgrades === undefined) servers.set(server, upgrades = new Upgrades(server))
    return upgrades
  }

  /**
   * Stands before the listeners that the server has now.
   *
   * @param websockets tells which upgrades are accepted
   */
  take (websockets: WebSocketServer): void {
    for (const listener of this.#server.listeners('upgrade') as UpgradeListener[]) {
      if (listener === this.#onUpgrade) continue
      this.#server.off('upgrade', listener)
      this.#listeners.add(listener)
    }
    websockets.on('connection', (_socket, request) => this.#forget(request))
  }

  /** Waits until all upgrade requests are accepted or refused; ends the sockets of those that are not after `patience` milliseconds. */
  async settle (patience: number): Promise<void> {
    this.#emptied = Promise.withResolvers()
    this.#checkEmptied()
    const timer = setTimeout(this.#emptied.resolve, patience)
    await this.#emptied.promise
    clearTimeout(timer)
    for (const { socket } of this.#pending.values()) socket.destroy()
  }

  /** Whether somebody else listens, perhaps for another protocol. */
  get #hasOthers (): boolean {
    return this.#server.listenerCount('upgrade') > 1
  }

  readonly #onUpgrade = (request: IncomingMessage, socket: HttpSocket, head: Buffer): void => {
    if (!isWebSocket(request)) {
      if (!this.#hasOthers) answerAsHttp(request, socket, head)
      return
    }

    this.#watch(request, socket)
    for (const listener of this.#listeners) listener.call(this.#server, request, socket, head)
    // a response that comes to its end is a refusal
    if (this.#pending.has(request)) socket._httpMessage?.once('finish', () => socket.end())
  }

  #watch (request: IncomingMessage, socket: Duplex): void {
    // the other end may stay open for as long as it likes
    const onFinish = () => { socket.destroy() }
    const onClose = () => this.#forget(request)
    this.#pending.set(request, { socket, onFinish, onClose })
    socket.on('finish', onFinish)
    socket.on('close', onClose)
  }

  #forget (request: IncomingMessage): void {
    const pending = this.#pending.get(request)
    if (pending === undefined) return
    this.#pending.delete(request)
    pending.socket.off('finish', pending.onFinish)
    pending.socket.off('close', pending.onClose)
    this.#checkEmptied()
  }

  #checkEmptied (): void {
    if (this.#pending.size === 0) this.#emptied?.resolve()
  }
}

/** Whether a request is what `ws` takes for a handshake. */
function isWebSocket ({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket'
}

/**
 * Gives a connection back to its server, with the request as if it had not asked for an upgrade (RFC 9110, section 7.8). For versions of Node.js
 * without `shouldUpgradeCallback`, and for the second server with which Fastify listens on all addresses of `localhost`.
 */
function answerAsHttp (request: IncomingMessage, socket: HttpSocket, head: Buffer): void {
  // responses to requests before it on the same connection go out first
  const before = socket._httpMessage
  if (before) {
    before.once('finish', () => answerAsHttp(request, socket, head))
    return
  }

  const { method, url, httpVersion, rawHeaders } = request
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name = '', value] = rawHeaders.slice(i, i + 2)
    if (name.toLowerCase() !== 'upgrade') lines.push(`${name}: ${value}`)
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  socket.server.emit(socket.encrypted === true ? 'secureConnection' : 'connection', socket)
}
