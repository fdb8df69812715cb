/** A Fastify app with the plugin on a free port, and clients that queue what they hear. */
import { once } from 'node:events'
import { Writable } from 'node:stream'
import type { TestContext } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import { WebSocket, type ClientOptions } from 'ws'
import rohrpost, { type RohrpostOptions } from '../../lib/index.ts'

export type Frame = Record<string, unknown>

export interface LogLine {
  level: number
  msg: string
  err?: { message: string, code?: string }
  [field: string]: unknown
}

export interface TestServer {
  app: FastifyInstance
  /** `http://127.0.0.1:PORT` */
  http: string
  /** Everything that was logged at `info` and above. */
  logs: LogLine[]
  /** Opens a connection and waits until it is open. */
  connect (path?: string, options?: ClientOptions): Promise<Client>
  /** Resolves when the server does not read from one of its connections. */
  paused (): Promise<void>
  /** The status of a refused upgrade. */
  refused (path?: string, options?: ClientOptions): Promise<number>
}

export interface Setup extends RohrpostOptions {
  /** Called before the app listens, after the plugin is there. */
  with?: (app: FastifyInstance) => unknown
}

export function createApp (logs: LogLine[] = []): FastifyInstance {
  const stream = new Writable({
    write (chunk, _encoding, done) {
      logs.push(JSON.parse(String(chunk)))
      done()
    }
  })
  return Fastify({ logger: { level: 'info', stream } })
}

/** Registers the plugin, lets the test set up handlers, and listens. */
export async function start (t: TestContext, { with: setup, ...options }: Setup = {}): Promise<TestServer> {
  const logs: LogLine[] = []
  const app = createApp(logs)
  t.after(() => app.close())
  await app.register(rohrpost, options)
  await setup?.(app)
  return listen(t, app, logs)
}

export async function listen (t: TestContext, app: FastifyInstance, logs: LogLine[] = []): Promise<TestServer> {
  const http = await app.listen({ port: 0, host: '127.0.0.1' })
  const url = http.replace('http', 'ws')

  return {
    app,
    http,
    logs,
    async connect (path = '/ws/rohrpost', clientOptions = {}) {
      const client = new Client(new WebSocket(url + path, clientOptions))
      t.after(() => client.socket.terminate())
      await once(client.socket, 'open')
      return client
    },
    async paused () {
      const isPaused = () => [...app.rohrpost.connections].some(({ request }) => request.raw.socket.isPaused())
      while (!isPaused()) await new Promise(setImmediate)
    },
    async refused (path = '/ws/rohrpost', clientOptions = {}) {
      const socket = new WebSocket(url + path, clientOptions)
      socket.on('error', () => {})
      const [, response] = await once(socket, 'unexpected-response')
      response.resume()
      socket.terminate()
      return response.statusCode
    }
  }
}

/** A client that keeps every frame until it is asked for. */
export class Client {
  readonly socket: WebSocket
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #frames: string[] = []
  #waiting: PromiseWithResolvers<string> | undefined
  #ids = 0

  constructor (socket: WebSocket) {
    this.socket = socket
    this.closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) }))
    socket.on('close', (code) => this.#waiting?.reject(new Error(`closed with ${code} while a frame was awaited`)))
    socket.on('message', (data) => {
      const waiting = this.#waiting
      this.#waiting = undefined
      if (waiting === undefined) this.#frames.push(String(data))
      else waiting.resolve(String(data))
    })
  }

  /** Sends an object as JSON, text as it is. */
  send (message: unknown): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** The next frame, parsed. */
  async next (): Promise<Frame> {
    return JSON.parse(await this.nextText())
  }

  /** The next frame as text; rejects if the connection closes first. */
  nextText (): Promise<string> {
    const frame = this.#frames.shift()
    if (frame !== undefined) return Promise.resolve(frame)
    if (this.socket.readyState === this.socket.CLOSED) return Promise.reject(new Error('closed before a frame was awaited'))
    this.#waiting = Promise.withResolvers()
    return this.#waiting.promise
  }

  /** Sends a message and returns the next frame. */
  ask (message: unknown): Promise<Frame> {
    this.send(message)
    return this.next()
  }

  /** Asks a handler and returns the next frame. */
  call (type: string, data?: unknown): Promise<Frame> {
    return this.ask({ id: ++this.#ids, type, data })
  }

  /** Resolves when the server has read all that was sent: its pong comes after. */
  async read (): Promise<void> {
    this.socket.ping()
    await once(this.socket, 'pong')
  }

  /** Every frame up to the answer of a ping: what was to come has come, what did not come will not. */
  async untilPong (): Promise<Frame[]> {
    const id = `sync ${++this.#ids}`
    this.send({ id, type: 'ping' })
    const frames: Frame[] = []
    for (;;) {
      const frame = await this.next()
      if (frame.id === id) return frames
      frames.push(frame)
    }
  }
}
