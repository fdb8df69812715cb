/** A Fastify app with the plugin on a free port, and test clients. */
import { once } from 'node:events'
import { Writable } from 'node:stream'
import type { TestContext } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import { WebSocket, type ClientOptions } from 'ws'
import rohrpost, { type RohrpostOptions } from '../../lib/index.ts'
import type { Contract } from '../../lib/protocol/contract.ts'
import { TestClient, type TestFrame } from '../../lib/testing/index.ts'

export type Frame = TestFrame

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
  /** All log lines of level `info` and above. */
  logs: LogLine[]
  /** Opens a connection and waits until it is open. */
  connect (path?: string, options?: ClientOptions): Promise<Client>
  /** Resolves when the server does not read from one of its connections. */
  paused (): Promise<void>
  /** Resolves with the status of a refused upgrade. */
  refused (path?: string, options?: ClientOptions): Promise<number>
}

export interface Setup extends RohrpostOptions {
  /** Called when the plugin is registered, before the app listens. */
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
      const client = new Client(new WebSocket(url + path, clientOptions), { timeout: 20_000 })
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

/** A `TestClient` over `ws`, with which tests can send pings and terminate the connection. */
export class Client extends TestClient<Contract, WebSocket> {
  /** Resolves when the server has read all sent messages: it answers a ping after them. */
  async read (): Promise<void> {
    this.socket.ping()
    await once(this.socket, 'pong')
  }
}
