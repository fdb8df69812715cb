/** HTTP requests as text on a socket, for requests that clients of Node.js can't send. */
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import type { TestContext } from 'node:test'

/** A connection whose own side only the test closes. */
export class RawHttp {
  readonly socket: net.Socket
  /** The received text. */
  text = ''
  /** Resolves when the server has closed its side. */
  readonly ended: Promise<unknown>

  private constructor (t: TestContext, socket: net.Socket) {
    this.socket = socket
    t.after(() => socket.destroy())
    this.ended = new Promise((resolve) => socket.on('end', resolve).on('close', resolve))
    socket.on('data', (data) => { this.text += data.toString('latin1') }).on('error', () => {})
  }

  static async connect (t: TestContext, address: string): Promise<RawHttp> {
    const { protocol, hostname, port } = new URL(address)
    const options = { host: hostname, port: Number(port), allowHalfOpen: true, rejectUnauthorized: false }
    const socket = protocol === 'https:' ? tls.connect(options) : net.connect(options)
    const raw = new RawHttp(t, socket)
    await once(socket, protocol === 'https:' ? 'secureConnect' : 'connect')
    return raw
  }

  /** Sends a request with its headers. */
  request (head: string, headers: Record<string, string> = {}, body = ''): this {
    const length = body === '' ? {} : { 'Content-Length': String(body.length) }
    const lines = Object.entries({ Host: 'example.org', ...headers, ...length }).map(([name, value]) => `${name}: ${value}\r\n`)
    this.socket.write(`${head} HTTP/1.1\r\n${lines.join('')}\r\n${body}`)
    return this
  }

  /** Sends a WebSocket upgrade request. */
  upgrade (path: string): this {
    return this.request(`GET ${path}`, {
      Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': Buffer.alloc(16).toString('base64')
    })
  }

  /** Waits until the received text contains another text a number of times. */
  async count (text: string, times = 1): Promise<void> {
    while (this.text.split(text).length <= times) await Promise.race([once(this.socket, 'data'), this.ended.then(() => { throw new Error(`ended after ${this.text}`) })])
  }

  /** The status of the first response. */
  get status (): number {
    return Number(this.text.split(' ')[1])
  }
}
