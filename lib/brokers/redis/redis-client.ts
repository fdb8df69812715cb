/** Structural types of ioredis, so that the Redis broker works with any copy of it, and the kinds of its errors. */

/**
 * A client of ioredis, such as `app.redis` of `@fastify/redis`. The broker reads its options and duplicates it, but
 * sends no commands over it and never closes it.
 */
export interface RedisClient {
  readonly options: { keyPrefix?: string | undefined, db?: number | undefined }
  readonly isCluster: boolean
  duplicate (override: object): DuplicatedClient
}

/** A client of ioredis that the broker has made for itself. ioredis reconnects it after a lost connection. */
export interface DuplicatedClient {
  readonly status: string
  connect (): Promise<void>
  disconnect (reconnect?: boolean): void
  call (command: string, ...args: string[]): Promise<unknown>
  subscribe (...channels: string[]): Promise<unknown>
  unsubscribe (...channels: string[]): Promise<unknown>
  on (event: string, listener: (...args: never[]) => void): unknown
}

/** Whether Redis itself replied with this error. Any other error means that the connection was lost or missing. */
export function isErrorReply (error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError'
}

const TEMPORARY_CODES = 'LOADING|READONLY|MASTERDOWN|BUSY|TRYAGAIN|NOREPLICAS'
const TEMPORARY_ERROR = new RegExp(`^-?(?:${TEMPORARY_CODES})\\b`)
/**
 * Redis 5 and 6 wrap the error of a command within a script, sometimes twice:
 * `ERR Error running script (call to f_…): @user_script:39: … -READONLY …`.
 */
const TEMPORARY_ERROR_IN_SCRIPT = new RegExp(`^-?ERR Error running script\\b.*?[\\s:]-(?:${TEMPORARY_CODES})\\b`, 's')

/** Whether another Redis server, or the same one later, can run the refused command. */
export function isTemporary (error: unknown): boolean {
  return error instanceof Error &&
    (TEMPORARY_ERROR.test(error.message) || TEMPORARY_ERROR_IN_SCRIPT.test(error.message))
}
