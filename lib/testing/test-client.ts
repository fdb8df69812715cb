/** A client for tests of applications: it keeps every frame until it is asked for. */

/** A frame, parsed. */
export type TestFrame = Record<string, unknown>

/** What a socket must have: that of browsers and Node.js, that of `ws`, or what `app.injectWS()` of `@fastify/websocket` resolves to. */
export interface TestSocket {
  readonly readyState: number
  send (text: string): void
  close (code?: number, reason?: string): void
  addEventListener (type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener (type: 'open', listener: () => void): void
  addEventListener (type: 'close', listener: (event: { code: number, reason: string }) => void): void
}

/** `readyState` of a socket that is open, and of one that is closed. */
const OPEN = 1
const CLOSED = 3

/** A connection whose frames wait in a queue until the test asks for the next one. */
export class TestClient<Socket extends TestSocket = TestSocket> {
  readonly socket: Socket
  /** Resolves when the connection is open; rejects when it could not be made. */
  readonly opened: Promise<void>
  /** Resolves when the connection is closed. */
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #frames: string[] = []
  #waiting: PromiseWithResolvers<string> | undefined
  #ids = 0

  /** Takes a socket, open or about to be. */
  constructor (socket: Socket) {
    this.socket = socket
    const opened = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<{ code: number, reason: string }>()
    this.opened = opened.promise
    this.closed = closed.promise
    this.opened.catch(() => {})

    if (socket.readyState === OPEN) opened.resolve()
    socket.addEventListener('open', () => opened.resolve())
    socket.addEventListener('close', ({ code, reason }) => {
      opened.reject(new Error(`closed with ${code} before it was open`))
      this.#waiting?.reject(new Error(`closed with ${code} while a frame was awaited`))
      closed.resolve({ code, reason })
    })
    socket.addEventListener('message', ({ data }) => {
      const waiting = this.#waiting
      this.#waiting = undefined
      if (waiting === undefined) this.#frames.push(String(data))
      else waiting.resolve(String(data))
    })
  }

  /** Connects to a server, such as `ws://127.0.0.1:3000/ws/rohrpost`. */
  static async connect (url: string | URL): Promise<TestClient> {
    const client = new TestClient(new WebSocket(url))
    await client.opened
    return client
  }

  /** Sends an object as JSON, text as it is. */
  send (message: unknown): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** The next frame, parsed; rejects if the connection closes first. */
  async next (): Promise<TestFrame> {
    return JSON.parse(await this.nextText())
  }

  /** The next frame as text; rejects if the connection closes first. */
  nextText (): Promise<string> {
    const frame = this.#frames.shift()
    if (frame !== undefined) return Promise.resolve(frame)
    if (this.socket.readyState === CLOSED) return Promise.reject(new Error('closed before a frame was awaited'))
    this.#waiting = Promise.withResolvers()
    return this.#waiting.promise
  }

  /** Sends a message and returns the next frame. */
  ask (message: unknown): Promise<TestFrame> {
    this.send(message)
    return this.next()
  }

  /** Calls a handler and returns the next frame. */
  call (type: string, data?: unknown): Promise<TestFrame> {
    return this.ask({ id: ++this.#ids, type, data })
  }

  /** Every frame up to the answer of a ping: what was to come has come, what did not come will not. */
  async untilPong (): Promise<TestFrame[]> {
    const id = `sync ${++this.#ids}`
    this.send({ id, type: 'ping' })
    const frames: TestFrame[] = []
    for (;;) {
      const frame = await this.next()
      if (frame.id === id) return frames
      frames.push(frame)
    }
  }

  /** Closes the connection, and resolves when it is closed. */
  async close (code?: number, reason?: string): Promise<void> {
    this.socket.close(code, reason)
    await this.closed
  }
}
