/** A client that counts the changes of a group, and notes when each arrives. */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import WebSocket from 'ws'

/** How long changes may take to arrive, in milliseconds. */
const ARRIVAL = 10_000

export class Screen {
  readonly #socket: WebSocket
  /** Arrival of each change, in nanoseconds of the monotonic clock. */
  readonly times: number[] = []
  /** Messages that are no change, such as reports of missing messages. */
  readonly others: string[] = []

  private constructor (socket: WebSocket) {
    this.#socket = socket
  }

  /** Connects, and joins the group. */
  static async open (port: number, group: string): Promise<Screen> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
    await once(socket, 'open')
    socket.send(JSON.stringify({ id: 1, type: 'join', data: group }))
    await once(socket, 'message')
    const screen = new Screen(socket)
    socket.on('message', (data: Buffer) => screen.#receive(data))
    return screen
  }

  #receive (data: Buffer): void {
    const at = Number(process.hrtime.bigint())
    const text = data.toString('utf8')
    const message = JSON.parse(text)
    if (message.type === 'subscription-update' && message.data?.type === 'update') this.times.push(at)
    else this.others.push(text)
  }

  /** Waits until so many changes have arrived in all. Gives what is wrong. */
  async settle (expected: number): Promise<string[]> {
    for (const end = performance.now() + ARRIVAL; this.times.length < expected && performance.now() < end;) await sleep(5)
    return [
      ...(this.times.length === expected ? [] : [`${this.times.length} changes instead of ${expected}`]),
      ...this.others.slice(0, 1).map((text) => `another message: ${text}`)
    ]
  }

  close (): void {
    this.#socket.terminate()
  }
}
