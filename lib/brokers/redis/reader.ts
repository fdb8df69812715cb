/**
 * Reads positions and messages from Redis in portions. One portion is under way at a time, so that Redis serves others in between, and the answers
 * to what is published do not wait long on the same connection.
 */
import type { Connection } from './redis-connection.ts'
import { begin, read } from './scripts.ts'

/** A question about one group: the messages after an offset, up to `limit` of them. A limit of 0 asks for the position alone. */
export interface Asked {
  group: string
  epoch: string
  offset: number
  limit: number
}

/** The messages that Redis keeps of a group after a position. */
export interface Kept {
  epoch: string
  /** The group's last offset. */
  top: number
  /** `complete`: these are all messages. `more`: there are more. `gone`: a message is missing, or the epoch is another one. */
  state: 'complete' | 'more' | 'gone'
  payloads: string[]
}

export interface ReaderOptions {
  /** The key that calls of scripts name: the prefix of all keys. */
  key: string
  /** The arguments that every script begins with. */
  scriptArguments: () => string[]
}

/** The sizes of a portion in bytes. It grows while Redis answers fast, and shrinks on a slow line. */
const PORTION = { min: 8 * 1024, start: 32 * 1024, max: 1024 * 1024 }
/** The times in milliseconds in which a portion is answered fast, and slowly. */
const FAST = 250
const SLOW = 1000
/** Messages of one portion. */
const MESSAGES = 2000

export class Reader {
  readonly #connection: Connection
  readonly #options: ReaderOptions
  #portion = PORTION.start
  /** Resolves when the last portion that was asked for has come. */
  #last: Promise<unknown> = Promise.resolve()

  constructor (connection: Connection, options: ReaderOptions) {
    this.#connection = connection
    this.#options = options
  }

  /**
   * Reads one portion: an answer, or the error, for each group. Groups that the portion has no room for get no messages and the state `more`.
   *
   * @param cap the bytes that no message may exceed
   * @throws as ioredis does, when nothing can be read
   */
  read (asked: readonly Asked[], cap = Number.MAX_SAFE_INTEGER): Promise<(Kept | Error)[]> {
    const reading = this.#last.then(() => this.#ask(asked, cap))
    this.#last = reading.catch(() => {})
    return reading
  }

  /**
   * Reads all messages after a position, or the first `limit` of them, or those that `bytes` have room for; `undefined` if one of them is gone.
   *
   * @throws as ioredis does
   */
  async readAll ({ group, epoch, offset, limit }: Asked, bytes: number): Promise<string[] | undefined> {
    const payloads: string[] = []
    let left = bytes
    for (;;) {
      const asked = { group, epoch, offset: offset + payloads.length, limit: limit - payloads.length }
      const [kept] = await this.read([asked], left) as [Kept | Error]
      if (kept instanceof Error) throw kept
      if (kept.state === 'gone') return undefined
      for (const payload of kept.payloads) {
        left -= Buffer.byteLength(payload)
        payloads.push(payload)
      }
      if (kept.state === 'complete' || kept.payloads.length === 0 || payloads.length >= limit) return payloads
    }
  }

  async #ask (asked: readonly Asked[], cap: number): Promise<(Kept | Error)[]> {
    const { scriptArguments } = this.#options
    const startedAt = performance.now()
    const groups = asked.flatMap(({ group, epoch, offset, limit }) => [group, epoch, String(offset), String(limit)])
    const call = () => this.#run(read, [...scriptArguments(), String(this.#portion), String(MESSAGES), String(cap), ...groups])
    try {
      let answers = await call()
      if (!Array.isArray(answers)) {
        await this.#run(begin, scriptArguments())
        answers = await call()
      }
      if (!Array.isArray(answers)) return asked.map(() => new Error(`Redis does not keep the key '${this.#options.key}epochs'`))
      const found = answers.map(toKept)
      this.#adapt(found, performance.now() - startedAt)
      return found
    } catch (error) {
      this.#portion = PORTION.min
      throw error
    }
  }

  async #run (script: typeof read, args: string[]): Promise<unknown> {
    if (!this.#connection.isReady) throw new Error('there is no connection to Redis')
    return await this.#connection.run(script, this.#options.key, args)
  }

  /** Sizes the next portion by how long this one took. */
  #adapt (found: readonly (Kept | Error)[], duration: number): void {
    let size = 0
    for (const kept of found) {
      if (!(kept instanceof Error)) for (const { length } of kept.payloads) size += length
    }
    if (duration > SLOW) this.#portion = Math.max(PORTION.min, this.#portion / 2)
    else if (duration < FAST && size > this.#portion / 2) this.#portion = Math.min(PORTION.max, this.#portion * 2)
  }
}

function toKept ([epoch, top, state, ...rest]: [string, string, Kept['state'] | 'failed', ...string[]]): Kept | Error {
  return state === 'failed' ? new Error(rest[0]) : { epoch, top: Number(top), state, payloads: rest }
}
