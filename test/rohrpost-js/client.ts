/**
 * A client that behaves as rohrpost-js 0.6 does, which many pages have in use: what it sends, how it matches answers to requests, and
 * how it subscribes again after a lost connection.
 */
import { EventEmitter } from 'node:events'
import { WebSocket } from 'ws'

/** What an application names a group by. */
export interface Group {
  type: string
  id?: unknown
}

export interface Config {
  token?: string
  /** Milliseconds between two pings. */
  pingInterval?: number
  /** Milliseconds before it connects again; rohrpost-js has 3000. */
  reconnectDelay?: number
}

interface Pending {
  kind: 'subscribe' | 'unsubscribe' | 'call'
  group?: Group
  resolve (data: unknown): void
  reject (reason: unknown): void
}

interface Incoming {
  id: number
  type: string
  error?: string
  data?: unknown
}

/**
 * Events: `open`, `closed`, `reconnecting`, `ping`, `pong`, `message` (everything that comes), `sent` (everything that goes), `error` (an
 * answer to no request), and the name of a group, with `(null, data)`.
 */
export class RohrpostJs extends EventEmitter {
  readonly #url: string
  readonly #config: Required<Config>
  /** By the name of the group, what was subscribed to. */
  readonly #subscriptions = new Map<string, Group>()
  #socket: WebSocket
  #pending = new Map<number, Pending>()
  /** Subscribes that were under way when the line was lost. */
  #interrupted: Pending[] = []
  #nextId = 1
  #closing = false
  #heard = 0
  #pinging = false

  constructor (url: string, config: Config = {}) {
    super()
    this.#url = url
    this.#config = { token: '', pingInterval: 5000, reconnectDelay: 3000, ...config }
    this.#socket = this.#connect()
  }

  /** Resolves to `{ group }`; rejects with the text of the error. */
  subscribe (group: Group): Promise<unknown> {
    return new Promise((resolve, reject) => this.#subscribe({ kind: 'subscribe', group, resolve, reject }))
  }

  unsubscribe (group: Group): Promise<unknown> {
    if (this.#socket.readyState !== WebSocket.OPEN) {
      this.#subscriptions.delete(`${group.type}-${group.id}`)
      return Promise.resolve()
    }
    return new Promise((resolve, reject) => this.#request('unsubscribe', group, { kind: 'unsubscribe', group, resolve, reject }))
  }

  /** Resolves to the answer's `data`. */
  call (name: string, data?: unknown, { timeout = 2000 } = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = this.#request(name, data, { kind: 'call', resolve, reject })
      setTimeout(() => {
        if (this.#pending.delete(id)) reject(new Error('call timed out'))
      }, timeout).unref()
    })
  }

  close (): void {
    this.#closing = true
    this.#socket.close()
    this.#reset('Socket was closed')
  }

  #connect (): WebSocket {
    const socket = new WebSocket(this.#url)
    socket.on('open', () => {
      this.emit('open')
      this.#ping(socket)
      this.#subscribeAgain()
    })
    socket.on('message', (data: Buffer) => this.#receive(JSON.parse(data.toString())))
    // as in a browser, a failure is followed by a close, which tells enough
    socket.on('error', () => {})
    socket.on('close', () => {
      this.emit('closed')
      if (this.#closing) return
      this.#interrupted.push(...[...this.#pending.values()].filter(({ kind }) => kind === 'subscribe'))
      for (const [id, { kind }] of this.#pending) if (kind === 'subscribe') this.#pending.delete(id)
      setTimeout(() => {
        this.emit('reconnecting')
        this.#socket = this.#connect()
      }, this.#config.reconnectDelay)
    })
    this.#pinging = false
    this.#reset()
    return socket
  }

  #subscribe (request: Pending): void {
    const send = () => this.#request('subscribe', request.group, request)
    if (this.#socket.readyState === WebSocket.CONNECTING) this.once('open', send)
    else send()
  }

  #request (type: string, data: unknown, request: Pending): number {
    const id = this.#nextId++
    this.#pending.set(id, request)
    this.#send({ type, id, auth_jwt: this.#config.token, data })
    return id
  }

  #send (message: object): void {
    this.#socket.send(JSON.stringify(message))
    this.emit('sent', message)
  }

  #ping (socket: WebSocket): void {
    const now = Date.now()
    if (!this.#pinging) {
      this.#pinging = true
      this.#send({ type: 'ping', id: now })
      this.emit('ping', now)
    }
    setTimeout(() => {
      if (this.#socket !== socket || socket.readyState !== WebSocket.OPEN) return
      if (this.#heard < now) socket.close()
      else this.#ping(socket)
    }, this.#config.pingInterval).unref()
  }

  #receive (message: Incoming): void {
    this.#heard = Date.now()
    this.emit('message', message)
    if (message.error) return this.#take(message.id)?.reject(message.error)

    switch (message.type) {
      case 'pong':
        this.#pinging = false
        this.emit('pong')
        break
      case 'subscription-update':
        this.emit((message.data as { group: string }).group, null, message.data)
        break
      default:
        this.#settle(message)
    }
  }

  #settle ({ id, type, data }: Incoming): void {
    const request = this.#take(id)
    if (request === undefined) return

    const { group } = request
    if (type === 'subscribe' && group !== undefined) this.#subscriptions.set((data as { group: string }).group, group)
    if (type === 'unsubscribe') this.#forget(group)
    request.resolve(data)
  }

  #take (id: number): Pending | undefined {
    const request = this.#pending.get(id)
    if (request === undefined) this.emit('error', `no saved request with id: ${id}`)
    this.#pending.delete(id)
    return request
  }

  #forget (group: Group | undefined): void {
    for (const [name, { type, id }] of this.#subscriptions) {
      if (type !== group?.type || id !== group.id) continue
      this.#subscriptions.delete(name)
      break
    }
  }

  #subscribeAgain (): void {
    for (const group of this.#subscriptions.values()) this.subscribe(group)
    for (const request of this.#interrupted.splice(0)) this.#subscribe(request)
  }

  /** What was asked on a line that is gone gets no answer; ids begin with 1 again. */
  #reset (reason?: string): void {
    for (const { kind, group, resolve, reject } of this.#pending.values()) {
      if (kind !== 'unsubscribe') reject(reason)
      else {
        this.#forget(group)
        resolve(undefined)
      }
    }
    this.#pending = new Map()
    this.#nextId = 1
  }
}
