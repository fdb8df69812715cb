/**
 * Close codes after an error in `onConnect`. A refusal is final; after a temporary error or a bug, the client should
 * reconnect.
 */
import { CloseCode } from '../../protocol/codes.ts'

/** Code and reason of a close. */
export interface Close {
  readonly code: number
  readonly reason: string
}

/** Close of the graceful stop. */
export const RESTART: Close = { code: CloseCode.SERVICE_RESTART, reason: 'service restart' }
const TRY_AGAIN_LATER: Close = { code: CloseCode.TRY_AGAIN_LATER, reason: 'try again later' }
const INTERNAL_ERROR: Close = { code: CloseCode.INTERNAL_ERROR, reason: 'internal error' }
const FORBIDDEN: Close = { code: CloseCode.FORBIDDEN, reason: 'Forbidden' }

/** Maximum number of examined errors: a chain of causes may be a cycle. */
const MAX_ERRORS = 32

/** Errors that JavaScript throws for a mistake in the code of `onConnect`. */
const BUG_TYPES = [TypeError, ReferenceError, RangeError, SyntaxError, AggregateError]

/** HTTP statuses Request Timeout, Too Early and Too Many Requests. All statuses from 500 are temporary too. */
const TEMPORARY_STATUS = new Set([408, 425, 429])

/**
 * Codes of temporary errors: of Node.js and undici, of mysql2 and mariadb, and the SQLSTATE classes 08 (connection), 40
 * (transaction rollback), 53 (insufficient resources) and 57P (shutdown), and the states 55P03 (lock not available) and
 * 57014 (query canceled).
 */
const TEMPORARY_CODE = new RegExp([
  '^(?:E(?:CONN(?:REFUSED|RESET|ABORTED)|PIPE|TIMEDOUT|SOCKETTIMEDOUT|AI_AGAIN)',
  'E(?:HOSTUNREACH|NETUNREACH|NETDOWN|MFILE|NFILE)',
  'UND_ERR_(?:\\w+_TIMEOUT|SOCKET|CLOSED|DESTROYED)',
  'PROTOCOL_(?:CONNECTION_LOST|SEQUENCE_TIMEOUT)|POOL_(?:CLOSED|ENQUEUELIMIT|NOEXIST)',
  'ER_(?:CON_COUNT_ERROR|TOO_MANY_USER_CONNECTIONS|SERVER_SHUTDOWN|LOCK_DEADLOCK|LOCK_WAIT_TIMEOUT)',
  'ER_(?:SOCKET_\\w+|CONNECTION_TIMEOUT|GET_CONNECTION_TIMEOUT|CMD_CONNECTION_CLOSED)',
  '(?:08|40|53)[0-9A-Z]{3}|57P\\d\\d|55P03|57014)$'
].join('|'))

/** Names of connection and timeout errors, among them errors of MikroORM, ioredis, NATS and `AbortSignal.timeout()`. */
const TEMPORARY_NAME = new RegExp([
  '^(?:(?:Closed|Draining)?Connection',
  '(?:Connect|Headers|Body|Knex|LockWait)?Timeout',
  'Deadlock|MaxRetriesPerRequest|ClusterAllFailed|NoResponders)(?:Error|Exception)$'
].join('|'))

/** Messages of errors without a code that ioredis, pg and pg-pool throw. */
const TEMPORARY_TEXT = new Set([
  'Connection is closed.',
  'Command timed out',
  "Stream isn't writeable and enableOfflineQueue options is false",
  "Cluster isn't ready and enableOfflineQueue options is false",
  'Connection terminated',
  'Connection terminated unexpectedly',
  'Connection terminated due to connection timeout',
  'Client has encountered a connection error and is not queryable',
  'Client was closed and is not queryable',
  'Query read timeout',
  'timeout expired',
  'timeout exceeded when trying to connect'
])

/** Error replies of a Redis server that is loading, failing over or unable to write. */
const TEMPORARY_REPLY = /^(?:LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|MISCONF|NOREPLICAS|OOM|UNBLOCKED) /

/**
 * Returns the close of a connection whose `onConnect` threw: 1012 while the server stops, 1013 for a temporary error or
 * an error with a temporary cause, 1011 for a bug such as a TypeError, and 4403, the refusal, for any other error.
 * Never throws.
 */
export function closeFor (thrown: unknown, isDraining: boolean): Close {
  if (isDraining) return RESTART
  try {
    if (withCauses(thrown).some(isTemporary)) return TRY_AGAIN_LATER
    return BUG_TYPES.some((Bug) => thrown instanceof Bug) ? INTERNAL_ERROR : FORBIDDEN
  } catch {
    // a getter of the error threw, so its kind is unknown
    return INTERNAL_ERROR
  }
}

/** Returns an error with its causes and, of an AggregateError, its errors. */
function withCauses (thrown: unknown): unknown[] {
  const found = new Set([thrown])
  for (const error of found) {
    const { cause, errors } = Object(error) as { cause?: unknown, errors?: unknown }
    for (const further of [cause, ...(Array.isArray(errors) ? errors : [])]) {
      if (further !== undefined && found.size < MAX_ERRORS) found.add(further)
    }
  }
  return [...found]
}

function isTemporary (error: unknown): boolean {
  const { retry, statusCode, syscall, code, sqlState, name, message } = Object(error) as Record<string, unknown>
  if (retry === true || typeof syscall === 'string' || isTemporaryStatus(statusCode)) return true
  if ([code, sqlState].some((value) => typeof value === 'string' && TEMPORARY_CODE.test(value))) return true
  if (TEMPORARY_NAME.test(String(name)) || TEMPORARY_TEXT.has(String(message))) return true
  return name === 'ReplyError' && TEMPORARY_REPLY.test(String(message))
}

function isTemporaryStatus (status: unknown): boolean {
  return typeof status === 'number' && (status >= 500 || TEMPORARY_STATUS.has(status))
}
