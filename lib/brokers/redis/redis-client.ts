/** What the broker needs of ioredis, by shape: no type of ioredis leaves this folder, and any copy of it will do. */

/** A client of ioredis, such as `app.redis` of `@fastify/redis`. Only its options are used; nothing is sent over it, and it is never closed. */
export interface RedisClient {
  readonly options: { keyPrefix?: string | undefined, db?: number | undefined }
  readonly isCluster: boolean
  duplicate (override: object): RedisConnection
}

/** A connection of the broker's own, which ioredis opens again when it was lost. */
export interface RedisConnection {
  readonly status: string
  connect (): Promise<void>
  disconnect (reconnect?: boolean): void
  call (command: string, ...args: string[]): Promise<unknown>
  subscribe (...channels: string[]): Promise<unknown>
  unsubscribe (...channels: string[]): Promise<unknown>
  on (event: string, listener: (...args: never[]) => void): unknown
}

/** Whether Redis itself answered with an error; else the connection was lost, or there was none. */
export function isReply (error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError'
}

const NAMES = 'LOADING|READONLY|MASTERDOWN|BUSY|TRYAGAIN|NOREPLICAS'
const PASSING = new RegExp(`^-?(?:${NAMES})\\b`)
/** Redis 5 and 6 put the error of a command within a script behind words of their own, twice: `ERR Error running script (call to f_…): @user_script:39: … -READONLY …`. */
const PASSING_IN_SCRIPT = new RegExp(`^-?ERR Error running script\\b.*?[\\s:]-(?:${NAMES})\\b`, 's')

/** Tells a temporary refusal: another server, or the same one later, can do it. */
export function isPassing (error: unknown): boolean {
  return error instanceof Error && (PASSING.test(error.message) || PASSING_IN_SCRIPT.test(error.message))
}
