/** A client that writes bytes, not messages: a TCP socket after the upgrade to WebSocket. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { frame, Opcode, parseFrames } from './frames.ts'

/** Time for which a client waits for a silent server before it disconnects, in milliseconds. */
const PATIENCE = 5000
/** The timers of Node.js, before a test mocks them. */
const { setTimeout, clearTimeout } = globalThis

/** How a raw client connects. */
export interface RawOptions {
  headers?: string[]
  early?: Buffer
}

export class RawSocket {
  /** The code of the server's close frame; 1006 if the connection ended without one. */
  readonly closed: Promise<number>
  /** The payloads of the server's pong frames. */
  readonly pongs: Buffer[] = []
  readonly #socket: Socket
  readonly #messages: string[] = []
  #bytes: Buffer
  #code: number | undefined
  #ended = false
  #arrived = Promise.withResolvers<void>()

  /**
   * Connects and upgrades.
   *
   * @param headers further lines of the upgrade request
   * @param early what is written together with it, before the server can answer
   */
  static async open (port: number, { headers = [], early = Buffer.alloc(0) }: RawOptions = {}): Promise<RawSocket> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    socket.write(Buffer.concat([Buffer.from([
      'GET /ws/rohrpost HTTP/1.1', `Host: 127.0.0.1:${port}`, 'Upgrade: websocket', 'Connection: Upgrade',
      'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers, '', ''
    ].join('\r\n')), early]))

    let head = Buffer.alloc(0)
    while (!head.includes('\r\n\r\n')) head = Buffer.concat([head, ...await once(socket, 'data') as [Buffer]])
    const [status] = head.toString('latin1').split('\r\n')
    if (status !== 'HTTP/1.1 101 Switching Protocols') throw new Error(`no upgrade: ${status}`)
    return new RawSocket(socket, head.subarray(head.indexOf('\r\n\r\n') + 4))
  }

  constructor (socket: Socket, early: Buffer) {
    this.#socket = socket
    this.#bytes = early
    const closed = Promise.withResolvers<number>()
    this.closed = closed.promise
    socket.on('data', (bytes: Buffer) => this.#read(bytes))
    // a reset by the server also ends the connection
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#ended = true
      this.#wake()
      closed.resolve(this.#code ?? 1006)
    })
    this.#read(Buffer.alloc(0))
  }

  /** Whether the connection has ended. */
  get ended (): boolean {
    return this.#ended
  }

  write (...chunks: Uint8Array[]): void {
    this.#socket.write(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks))
  }

  /** Writes one byte a packet, and waits until the server has read it. */
  async dribble (bytes: Uint8Array): Promise<void> {
    for (const byte of bytes) {
      this.#socket.write(Uint8Array.of(byte))
      await new Promise(setImmediate)
    }
  }

  /** The next messages, in order. Rejects if the connection ends first. */
  async take (count: number): Promise<string[]> {
    while (this.#messages.length < count) {
      if (this.#ended) throw new Error(`the line ended (${this.#code ?? 1006}) after ${this.#messages.length} of ${count} messages`)
      await this.#patiently(this.#arrived.promise)
    }
    return this.#messages.splice(0, count)
  }

  /** Sends frames, then a ping, and returns the server's answers to the frames, which precede the pong. */
  async exchange (frames: readonly Uint8Array[]): Promise<string[]> {
    const last = '{"id":"the last one","type":"pong"}'
    this.write(...frames, frame('{"id":"the last one","type":"ping"}'))
    while (!this.#messages.includes(last)) {
      if (this.#ended) throw new Error(`the line ended (${this.#code ?? 1006})`)
      await this.#patiently(this.#arrived.promise)
    }
    return this.#messages.splice(0, this.#messages.indexOf(last) + 1).slice(0, -1)
  }

  /** Sends a message and takes the next one that arrives. */
  async ask (message: string): Promise<string> {
    this.write(frame(message))
    const [answer = ''] = await this.take(1)
    return answer
  }

  /** The end of the connection, and the messages before it that were not taken. */
  async end (): Promise<{ code: number, messages: string[] }> {
    const code = await this.#patiently(this.closed)
    return { code, messages: this.#messages.splice(0) }
  }

  /** Ends its half of the connection after the written bytes, without a close frame. */
  half (): void {
    this.#socket.end()
  }

  /** Pauses reading. */
  pause (): void {
    this.#socket.pause()
  }

  /** Resumes reading. */
  resume (): void {
    this.#socket.resume()
  }

  /** Resolves when all bytes have been written, or the connection has ended. */
  async written (): Promise<void> {
    if (this.#socket.writableLength > 0 && !this.#ended) await Promise.race([once(this.#socket, 'drain'), this.closed])
  }

  /** Destroys the socket, without a close frame. */
  destroy (): void {
    this.#socket.destroy()
  }

  async #patiently<Result> (event: Promise<Result>): Promise<Result> {
    const timer = setTimeout(() => this.#socket.destroy(), PATIENCE)
    const result = await event
    clearTimeout(timer)
    return result
  }

  #read (bytes: Buffer): void {
    const { frames, rest } = parseFrames(Buffer.concat([this.#bytes, bytes]))
    this.#bytes = rest
    for (const { opcode, payload } of frames) {
      // bytes after a close frame are ignored (RFC 6455, section 5.5.1)
      if (this.#code !== undefined) break
      if (opcode === Opcode.TEXT) this.#messages.push(payload.toString())
      if (opcode === Opcode.PONG) this.pongs.push(payload)
      if (opcode !== Opcode.CLOSE) continue
      this.#code = payload.length < 2 ? 1005 : payload.readUInt16BE(0)
      this.#socket.end(frame(payload, { opcode }))
    }
    this.#wake()
  }

  #wake (): void {
    this.#arrived.resolve()
    this.#arrived = Promise.withResolvers()
  }
}
