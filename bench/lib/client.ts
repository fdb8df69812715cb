/** One connection of the load generator: a bare socket that upgrades by hand and reads no more of a frame than its header. */
import { connect, type Socket } from 'node:net'
import { clientFrame, FrameCounter } from './frame-counter.ts'
import { FIRST_ID, type Protocol } from './protocols.ts'

/** All sockets read into one buffer, one after another. */
const buffer = Buffer.allocUnsafeSlow(512 * 1024)
const PONG = clientFrame('', 0xA)

/** Totals over all connections of a process. */
export interface Totals {
  /** Frames of the expected length: deliveries or answers. */
  frames: number
  /** Data frames of another length. */
  odd: number
  /** Connections that the server has closed. */
  closed: number
}

/** What all connections of a process share. */
export interface Load {
  readonly protocol: Protocol
  readonly totals: Totals
  /** The length of the payloads that are counted, 0 for any. */
  expected: number
  /** Whether an answer is followed by the next request. */
  requesting: boolean
  /** Told after each read. */
  counted: () => void
}

/** Where a connection goes to, and from where. */
export interface Address {
  port: number
  /** One address has some 28,000 ports only. */
  localAddress?: string
}

/** A client, from its connect on. */
export class Client {
  readonly #load: Load
  readonly #groups: readonly string[]
  readonly #socket: Socket
  readonly #counter = new FrameCounter()
  readonly #ready = Promise.withResolvers<void>()
  #step: 'upgrade' | 'greeting' | 'join' | 'work' = 'upgrade'
  #head = ''

  /** As many requests as may be in flight, in one buffer: only their ids change. */
  #requests: Buffer = Buffer.alloc(0)
  #requestLength = 0
  #idEnd = 0
  #id = 0

  constructor (load: Load, { port, localAddress }: Address, groups: readonly string[]) {
    this.#load = load
    this.#groups = groups
    this.#socket = connect({
      host: '127.0.0.1',
      port,
      ...(localAddress !== undefined && { localAddress }),
      noDelay: true,
      onread: {
        buffer,
        callback: (length) => {
          this.#read(length)
          return true
        }
      }
    })
    this.#socket.on('error', (error) => this.#ready.reject(error))
    this.#socket.on('close', () => {
      if (this.#step === 'work') load.totals.closed++
      else this.#ready.reject(new Error('The server closed the connection'))
    })
    this.#socket.write(
      `GET ${load.protocol.path} HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
    )
  }

  /** Resolves when the client is connected and in its groups. */
  get ready (): Promise<void> {
    return this.#ready.promise
  }

  /** Requests sent so far. */
  get sent (): number {
    return this.#id
  }

  /** Sends the first requests; each answer is followed by another one. */
  request (text: string, inFlight: number): void {
    const frame = clientFrame(text)
    this.#requests = Buffer.concat(Array.from({ length: inFlight }, () => frame))
    this.#requestLength = frame.length
    this.#idEnd = frame.indexOf(String(FIRST_ID)) + String(FIRST_ID).length
    this.#send(inFlight)
  }

  /** Resets the connection, which leaves no port behind that waits. */
  destroy (): void {
    this.#step = 'upgrade'
    this.#socket.resetAndDestroy()
  }

  #read (length: number): void {
    if (this.#step !== 'work') return this.#begin(length)

    const { protocol: { heartbeat }, totals, expected, requesting } = this.#load
    const counter = this.#counter
    counter.frames = 0
    counter.read(buffer, length, expected, heartbeat?.length ?? -1)

    const { frames } = counter
    totals.frames += frames
    if (counter.odd > 0 || counter.pings > 0) this.#readRest()
    if (requesting && frames > 0) this.#send(frames)
    this.#load.counted()
  }

  /** What comes rarely. */
  #readRest (): void {
    const counter = this.#counter
    this.#load.totals.odd += counter.odd
    if (counter.pings > 0) this.#socket.write(this.#pong)
    counter.odd = counter.pings = 0
  }

  get #pong (): Buffer {
    const { heartbeat } = this.#load.protocol
    return heartbeat === undefined ? PONG : clientFrame(heartbeat.answer)
  }

  #begin (length: number): void {
    if (this.#step === 'upgrade') {
      this.#head += buffer.toString('latin1', 0, length)
      const end = this.#head.indexOf('\r\n\r\n')
      if (end < 0) return
      if (!this.#head.startsWith('HTTP/1.1 101')) return this.#ready.reject(new Error(this.#head.slice(0, this.#head.indexOf('\r\n'))))

      this.#step = 'greeting'
      const { greeting } = this.#load.protocol
      if (greeting !== undefined) this.#socket.write(clientFrame(greeting.text))
      const rest = Buffer.from(this.#head.slice(end + 4), 'latin1')
      this.#counter.read(rest, rest.length, 0, -1)
    } else {
      this.#counter.read(buffer, length, 0, -1)
    }

    if (this.#step === 'greeting') {
      if (this.#counter.frames < (this.#load.protocol.greeting?.frames ?? 0)) return
      this.#counter.frames = 0
      this.#step = 'join'
      if (this.#groups.length > 0) this.#socket.write(clientFrame(this.#load.protocol.join(this.#groups)))
    }
    if (this.#groups.length > 0 && this.#counter.frames === 0) return
    this.#step = 'work'
    this.#ready.resolve()
  }

  #send (count: number): void {
    for (let index = 0; index < count; index++) {
      let id = ++this.#id
      // the digit that tells nine-digit numbers from smaller ones stays
      for (let digit = 1; digit < 9; digit++) {
        this.#requests[index * this.#requestLength + this.#idEnd - digit] = 0x30 + id % 10
        id = Math.floor(id / 10)
      }
    }
    // what is in flight was answered, so its bytes were sent and can be overwritten; a part of them needs a copy, the rest may not be sent yet
    const bytes = count * this.#requestLength
    this.#socket.write(bytes === this.#requests.length ? this.#requests : Buffer.from(this.#requests.subarray(0, bytes)))
  }
}
