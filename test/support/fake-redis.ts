/** A fake client of ioredis: the test decides when a command gets its reply. */
import { EventEmitter } from 'node:events'
import type { RedisClient, DuplicatedClient } from '../../lib/brokers/redis/redis-client.ts'

/** A command without a reply. */
export interface Asked {
  name: string
  args: string[]
  answer (value?: unknown): void
  fail (error: Error): void
}

/** A fake connection. */
export class FakeConnection implements DuplicatedClient {
  status = 'ready'
  readonly asked: Asked[] = []
  readonly #events = new EventEmitter()
  readonly #waiting = new Map<string, (asked: Asked) => void>()

  async connect (): Promise<void> {
    setImmediate(() => this.emit('ready'))
  }

  /** Number of calls of `disconnect`. */
  disconnects = 0

  disconnect (): void {
    this.disconnects++
  }

  on (event: string, listener: (...args: never[]) => void): void {
    this.#events.on(event, listener as () => void)
  }

  emit (event: string, ...args: string[]): void {
    this.#events.emit(event, ...args)
  }

  call (name: string, ...args: string[]): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const asked = { name, args, answer: resolve, fail: reject }
    const waiting = this.#waiting.get(name)
    this.#waiting.delete(name)
    if (waiting === undefined) this.asked.push(asked)
    else waiting(asked)
    return promise
  }

  subscribe (...channels: string[]): Promise<unknown> {
    return this.call('SUBSCRIBE', ...channels)
  }

  unsubscribe (...channels: string[]): Promise<unknown> {
    return this.call('UNSUBSCRIBE', ...channels)
  }

  /** Resolves with the next command of this name, and leaves other commands in `asked`. */
  next (name: string): Promise<Asked> {
    const index = this.asked.findIndex((asked) => asked.name === name)
    const [found] = index === -1 ? [] : this.asked.splice(index, 1)
    return found === undefined ? new Promise((resolve) => this.#waiting.set(name, resolve)) : Promise.resolve(found)
  }
}

/** Makes a client, and the two connections that a broker opens with it. */
export function fakeRedis (): { client: RedisClient, commands: FakeConnection, subscriber: FakeConnection } {
  const [commands, subscriber] = [new FakeConnection(), new FakeConnection()]
  const both = [commands, subscriber]
  return { client: { options: {}, isCluster: false, duplicate: () => both.shift() ?? new FakeConnection() }, commands, subscriber }
}
