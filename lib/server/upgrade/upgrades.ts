/**
 * Upgrade requests of an HTTP server: WebSocket handshakes go to `@fastify/websocket`, all others are answered as plain
 * HTTP.
 */
import type { IncomingMessage, OutgoingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { WebSocketServer } from 'ws'

type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

/** Socket of an HTTP connection, with internal properties of Node.js. */
interface HttpSocket extends Duplex {
  server: Server
  encrypted?: boolean
  /** The response that is currently written. */
  _httpMessage?: OutgoingMessage | null
}

/** Upgrade request that is neither accepted nor refused yet. */
interface PendingUpgrade {
  readonly socket: Duplex
  readonly onFinish: () => void
  readonly onClose: () => void
}

const servers = new WeakMap<Server, Upgrades>()

/**
 * Wraps the `upgrade` listeners of an HTTP server. Node.js leaves the socket of an upgrade request to the listeners,
 * and `@fastify/websocket` does not end it if the request is refused outside of its own hooks: the socket would stay
 * open and keep the server from closing.
 */
export class Upgrades {
  readonly #server: Server
  readonly #listeners = new Set<UpgradeListener>()
  readonly #pending = new Map<IncomingMessage, PendingUpgrade>()
  #emptied: PromiseWithResolvers<void> | undefined

  private constructor (server: Server) {
    this.#server = server
    const { shouldUpgradeCallback } = server as { shouldUpgradeCallback?: (request: IncomingMessage) => boolean }
    if (shouldUpgradeCallback !== undefined) {
      // Node.js 22.21 and later call this function; for `false` they handle the request as plain HTTP
      Object.assign(server, {
        shouldUpgradeCallback: (request: IncomingMessage) =>
          (isWebSocket(request) || this.#hasOtherListeners) && shouldUpgradeCallback.call(server, request)
      })
    }
    server.on('upgrade', this.#onUpgrade)
  }

  /** Returns the upgrades of an HTTP server. All rohrpost servers on it share them. */
  static of (server: Server): Upgrades {
    let upgrades = servers.get(server)
    if (upgrades === undefined) servers.set(server, upgrades = new Upgrades(server))
    return upgrades
  }

  /**
   * Wraps the listeners that the server has now.
   *
   * @param websocketServer emits 'connection' for each accepted upgrade
   */
  wrapListeners (websocketServer: WebSocketServer): void {
    for (const listener of this.#server.listeners('upgrade') as UpgradeListener[]) {
      if (listener === this.#onUpgrade) continue
      this.#server.off('upgrade', listener)
      this.#listeners.add(listener)
    }
    websocketServer.on('connection', (_socket, request) => this.#forget(request))
  }

  /**
   * Waits until all upgrade requests are accepted or refused. After `timeout` milliseconds, the sockets of the others
   * are destroyed.
   */
  async settle (timeout: number): Promise<void> {
    this.#emptied = Promise.withResolvers()
    this.#checkEmptied()
    const timer = setTimeout(this.#emptied.resolve, timeout)
    await this.#emptied.promise
    clearTimeout(timer)
    for (const { socket } of this.#pending.values()) socket.destroy()
  }

  /** Whether the server has further `upgrade` listeners, for example for another protocol. */
  get #hasOtherListeners (): boolean {
    return this.#server.listenerCount('upgrade') > 1
  }

  readonly #onUpgrade = (request: IncomingMessage, socket: HttpSocket, head: Buffer): void => {
    if (!isWebSocket(request)) {
      if (!this.#hasOtherListeners) answerAsHttp(request, socket, head)
      return
    }

    this.#watch(request, socket)
    for (const listener of this.#listeners) listener.call(this.#server, request, socket, head)
    // a finished HTTP response means that the request was refused
    if (this.#pending.has(request)) socket._httpMessage?.once('finish', () => socket.end())
  }

  #watch (request: IncomingMessage, socket: Duplex): void {
    // a client may keep its side of the connection open for any time
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

/** Whether `ws` accepts a request as a WebSocket handshake. */
function isWebSocket ({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket'
}

/**
 * Hands a connection back to its HTTP server, with the same request but without the `Upgrade` header: a server may
 * ignore it (RFC 9110, section 7.8). It is needed for versions of Node.js without `shouldUpgradeCallback`, and for the
 * second HTTP server that Fastify creates to listen on all addresses of `localhost`.
 */
function answerAsHttp (request: IncomingMessage, socket: HttpSocket, head: Buffer): void {
  // responses to earlier requests of the connection are sent first
  const earlier = socket._httpMessage
  if (earlier) {
    earlier.once('finish', () => answerAsHttp(request, socket, head))
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
