/** A well-behaved client, whose replica is held against the server. */
import { once } from 'node:events'
import { WebSocket } from 'ws'
import { Replica } from './replica.ts'

export interface Answer {
  id: number
  data: unknown
  error?: string
}

/** Addresses that connections come from: each has some 28,000 ports. Only Linux answers to all of 127.0.0.0/8. */
const ADDRESSES = process.platform === 'linux' ? 8 : 1
let opened = 0

/** A WebSocket to the server. */
export function connect (port: number): WebSocket {
  const localAddress = `127.0.0.${1 + opened++ % ADDRESSES}`
  return new WebSocket(`ws://127.0.0.1:${port}/ws`, { perMessageDeflate: false, localAddress })
}

/** One connection. */
export class SoakClient {
  readonly replica = new Replica()
  readonly #socket: WebSocket
  readonly #pending = new Map<unknown, (answer: Answer) => void>()
  readonly #groups = new Set<string>()
  #lastId = 0
  #leaving = false

  constructor (port: number) {
    this.#socket = connect(port)
    this.#socket.on('message', (data) => this.#receive(JSON.parse(String(data))))
    this.#socket.on('error', (error) => this.replica.wrong.push(error.message))
    this.#socket.on('close', (code) => { if (!this.#leaving) this.replica.wrong.push(`closed with ${code}`) })
  }

  /** Opens a connection. */
  static async open (port: number): Promise<SoakClient> {
    const client = new SoakClient(port)
    await once(client.#socket, 'open')
    return client
  }

  /** Asks and waits for the answer. @param answered called before the next message is looked at */
  call (type: string, data?: unknown, answered?: (answer: Answer) => void): Promise<Answer> {
    const id = ++this.#lastId
    return new Promise((resolve) => {
      this.#pending.set(id, (answer) => {
        answered?.(answer)
        resolve(answer)
      })
      this.#socket.send(JSON.stringify({ id, type, data }))
    })
  }

  async join (type: string, id?: number): Promise<void> {
    const { error } = await this.call('subscribe', { type, id })
    if (error !== undefined) this.replica.wrong.push(`${type}: ${error}`)
    else if (type !== 'list') this.#groups.add(id === undefined ? type : `${type}-${id}`)
  }

  async leave (type: string, id: number): Promise<void> {
    await this.call('unsubscribe', { type, id })
    this.replica.forget(`${type}-${id}`)
    this.#groups.delete(`${type}-${id}`)
  }

  /** Holds what was heard against what was sent: an answer comes after all that was sent to the groups before. */
  async audit (): Promise<void> {
    const groups = [...this.#groups]
    await this.call('sent', groups, ({ data }) => {
      for (const [index, sent] of (data as number[]).entries()) this.replica.audit(groups[index] ?? '', sent)
    })
  }

  /** Ends the connection, with a close or without. */
  async end (politely: boolean): Promise<void> {
    this.#leaving = true
    if (politely) this.#socket.close()
    else this.#socket.terminate()
    if (this.#socket.readyState !== this.#socket.CLOSED) await once(this.#socket, 'close')
  }

  #receive ({ id, type, ...rest }: { id: number, type: string, data: never, error?: string }): void {
    if (type === 'told') return this.replica.told(rest.data)
    if (type === 'subscription-update') return this.replica.changed(rest.data)

    const resolve = this.#pending.get(id)
    this.#pending.delete(id)
    if (resolve === undefined) this.replica.wrong.push(`an answer that nobody waits for: ${type} ${id}`)
    else resolve({ id, ...rest })
  }
}
