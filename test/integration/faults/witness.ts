/** A client that writes down what it hears, and what it is told that it missed. */
import { WebSocket } from 'ws'
import { RohrpostClient } from '../../../lib/client/index.ts'

/** A place in the log of a group, where there is history. */
export type Place = { epoch: string, offset: number } | undefined

/** What was heard: a message, who published it, and its number there. Or where a group begins, goes on, or goes on with something missing. */
export type Entry =
  | { kind: 'heard', publisher: number, n: number, position: Place }
  | { kind: 'begun' | 'recovered' | 'missed', position: Place }

export class Witness {
  readonly group: number
  readonly entries: Entry[] = []
  readonly joined: Promise<unknown>
  /** How often it was back, and got all that it missed, or not. */
  readonly counts = { recovered: 0, refused: 0, resync: 0, lost: 0 }
  readonly #client: RohrpostClient

  constructor (url: string, group: number) {
    this.group = group
    this.#client = new RohrpostClient(url, { WebSocket, backoff: { min: 20, max: 500 }, pingInterval: 4000 })
    let position: Place
    let isBack = false
    this.#client
      .on('message', (message) => {
        position = message.position
        if (message.type === 'subscription-update' && message.data.type === 'resync') this.counts.resync++
        if (message.type !== 'subscribe' || message.error !== undefined) return
        const isRecovered = message.recovered === true
        if (isBack) this.counts[isRecovered ? 'recovered' : 'refused']++
        // of all else the client itself is to tell
        if (!isBack || isRecovered) this.entries.push({ kind: isBack ? 'recovered' : 'begun', position })
        isBack = true
      })
      .on(`todo-${group}`, (error, change) => {
        if (!error) this.entries.push({ kind: 'heard', ...change.object, position })
      })
      .on('resync', () => { this.entries.push({ kind: 'missed', position }) })
      .on('closed', () => { this.counts.lost++ })
    this.joined = this.#client.subscribe({ type: 'todo', id: group })
  }

  /** Whether it is there and hears. */
  get isJoined (): boolean {
    return this.#client.groups.size > 0
  }

  close (): void {
    this.#client.close()
  }
}
