/**
 * Reads positions and messages of groups from Redis, one portion at a time: Redis serves other clients between two
 * portions, and publish calls on the same connection get their replies soon.
 */
import type { RedisConnection } from './redis-connection.ts'
import { begin, read } from './scripts.ts'

/** A read of one group: up to `limit` messages after an offset. A limit of 0 reads the position alone. */
export interface ReadRequest {
  group: string
  epoch: string
  offset: number
  limit: number
}

/** The reply of Redis to a `ReadRequest`. */
export interface ReadReply {
  epoch: string
  /** The group's last offset. */
  top: number
  /**
   * `complete`: all messages up to the top. `more`: the first ones. `gone`: one is missing, or the epoch has changed.
   */
  state: 'complete' | 'more' | 'gone'
  payloads: string[]
}

export interface HistoryReaderOptions {
  /** The key that each script call names, so that Redis checks the user's access to it: the prefix of all keys. */
  key: string
  /** Returns the leading arguments of a script call. */
  scriptArguments: () => string[]
}

/** Sizes of a portion in bytes. It doubles while Redis replies fast, and halves while Redis replies slowly. */
const PORTION_BYTES = { min: 8 * 1024, start: 32 * 1024, max: 1024 * 1024 }
/** Milliseconds up to which a reply is fast, and from which it is slow. */
const REPLY_TIME = { fast: 250, slow: 1000 }
/** Most messages of a portion. */
const PORTION_MESSAGES = 2000

export class HistoryReader {
  readonly #connection: RedisConnection
  readonly #options: HistoryReaderOptions
  #portionBytes = PORTION_BYTES.start
  /** Settles when the previous portion has arrived. */
  #previous: Promise<unknown> = Promise.resolve()

  constructor (connection: RedisConnection, options: HistoryReaderOptions) {
    this.#connection = connection
    this.#options = options
  }

  /**
   * Reads one portion for several groups. Groups that do not fit into it get the state `more` and no messages.
   *
   * @param maxBytes the portion ends before the message with which it would exceed these bytes
   * @returns a reply, or the error of the group, for each request
   * @throws the error of ioredis if Redis refuses the whole read or can't be reached
   */
  read (requests: readonly ReadRequest[], maxBytes = Number.MAX_SAFE_INTEGER): Promise<(ReadReply | Error)[]> {
    const replies = this.#previous.then(() => this.#readPortion(requests, maxBytes))
    this.#previous = replies.catch(() => {})
    return replies
  }

  /**
   * Reads the messages of a group in as many portions as it takes, up to `limit` messages and `maxBytes` bytes.
   *
   * @returns `undefined` if one of the messages is gone
   * @throws the error of ioredis
   */
  async readAll ({ group, epoch, offset, limit }: ReadRequest, maxBytes: number): Promise<string[] | undefined> {
    const payloads: string[] = []
    let bytesLeft = maxBytes
    for (;;) {
      const rest = { group, epoch, offset: offset + payloads.length, limit: limit - payloads.length }
      const [reply] = await this.read([rest], bytesLeft) as [ReadReply | Error]
      if (reply instanceof Error) throw reply
      if (reply.state === 'gone') return undefined
      for (const payload of reply.payloads) {
        bytesLeft -= Buffer.byteLength(payload)
        payloads.push(payload)
      }
      if (reply.state === 'complete' || reply.payloads.length === 0 || payloads.length >= limit) return payloads
    }
  }

  async #readPortion (requests: readonly ReadRequest[], maxBytes: number): Promise<(ReadReply | Error)[]> {
    const { key, scriptArguments } = this.#options
    const startedAt = performance.now()
    const groups = requests.flatMap(({ group, epoch, offset, limit }) => [group, epoch, String(offset), String(limit)])
    const limits = [String(this.#portionBytes), String(PORTION_MESSAGES), String(maxBytes)]
    const runRead = () => this.#run(read, [...scriptArguments(), ...limits, ...groups])
    try {
      let replies = await runRead()
      if (!Array.isArray(replies)) {
        await this.#run(begin, scriptArguments())
        replies = await runRead()
      }
      if (!Array.isArray(replies)) return requests.map(() => new Error(`Redis does not keep the key '${key}epochs'`))
      const decoded = replies.map(decodeReply)
      this.#adaptPortion(decoded, performance.now() - startedAt)
      return decoded
    } catch (error) {
      this.#portionBytes = PORTION_BYTES.min
      throw error
    }
  }

  async #run (script: typeof read, args: string[]): Promise<unknown> {
    if (!this.#connection.isReady) throw new Error('there is no connection to Redis')
    return await this.#connection.run(script, this.#options.key, args)
  }

  #adaptPortion (replies: readonly (ReadReply | Error)[], duration: number): void {
    let size = 0
    for (const reply of replies) {
      if (!(reply instanceof Error)) for (const { length } of reply.payloads) size += length
    }
    if (duration > REPLY_TIME.slow) {
      this.#portionBytes = Math.max(PORTION_BYTES.min, this.#portionBytes / 2)
    } else if (duration < REPLY_TIME.fast && size > this.#portionBytes / 2) {
      this.#portionBytes = Math.min(PORTION_BYTES.max, this.#portionBytes * 2)
    }
  }
}

function decodeReply (
  [epoch, top, state, ...rest]: [string, string, ReadReply['state'] | 'failed', ...string[]]
): ReadReply | Error {
  return state === 'failed' ? new Error(rest[0]) : { epoch, top: Number(top), state, payloads: rest }
}
