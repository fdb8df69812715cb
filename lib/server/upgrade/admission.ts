/** The close of a connection that `onConnect` did not let in: a temporary error and a bug are no refusal. */
import { CloseCode } from '../../protocol/codes.ts'

/** A close as it travels. */
export interface Close {
  readonly code: number
  readonly reason: string
}

/** The close of the graceful stop. */
export const RESTART: Close = { code: CloseCode.SERVICE_RESTART, reason: 'service restart' }
const TRY_AGAIN_LATER: Close = { code: CloseCode.TRY_AGAIN_LATER, reason: 'try again later' }
const INTERNAL_ERROR: Close = { code: CloseCode.INTERNAL_ERROR, reason: 'internal error' }
const FORBIDDEN: Close = { code: CloseCode.FORBIDDEN, reason: 'Forbidden' }

/** The most errors that are looked at: a chain of causes may be a cycle. */
const MAX_ERRORS = 32

const BUGS = [TypeError, ReferenceError, RangeError, SyntaxError, AggregateError]

/** HTTP's Request Timeout, Too Early and Too Many Requests. All from 500 are temporary too. */
const TEMPORARY_STATUS = new Set([408, 425, 429])

/**
 * Codes by which libraries and databases say that they can't do it now: Node.js and undici, mysql2 and mariadb, and the SQLSTATE classes 08
 * (connection), 40 (rolled back), 53 (resources) and 57P (shutdown), 55P03 (lock) and 57014 (timeout).
 */
const TEMPORARY_CODE = new RegExp([
  '^(?:E(?:CONN(?:REFUSED|RESET|ABORTED)|PIPE|TIMEDOUT|SOCKETTIMEDOUT|AI_AGAIN|HOSTUNREACH|NETUNREACH|NETDOWN|MFILE|NFILE)',
  'UND_ERR_(?:\\w+_TIMEOUT|SOCKET|CLOSED|DESTROYED)|PROTOCOL_(?:CONNECTION_LOST|SEQUENCE_TIMEOUT)|POOL_(?:CLOSED|ENQUEUELIMIT|NOEXIST)',
  'ER_(?:CON_COUNT_ERROR|TOO_MANY_USER_CONNECTIONS|SERVER_SHUTDOWN|LOCK_DEADLOCK|LOCK_WAIT_TIMEOUT|SOCKET_\\w+|CONNECTION_TIMEOUT|GET_CONNECTION_TIMEOUT|CMD_CONNECTION_CLOSED)',
  '(?:08|40|53)[0-9A-Z]{3}|57P\\d\\d|55P03|57014)$'
].join('|'))

/** Names of errors for connections and deadlines, among them those of MikroORM, ioredis, NATS and `AbortSignal.timeout()`. */
const TEMPORARY_NAME = /^(?:(?:Closed|Draining)?Connection|(?:Connect|Headers|Body|Knex|LockWait)?Timeout|Deadlock|MaxRetriesPerRequest|ClusterAllFailed|NoResponders)(?:Error|Exception)$/

/** Texts of plain errors that ioredis, pg and pg-pool throw without a code. */
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

/** Answers of a Redis that loads, fails over, or can't write. */
const TEMPORARY_REPLY = /^(?:LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|MISCONF|NOREPLICAS|OOM|UNBLOCKED) /

/**
 * How to close a connection whose `onConnect` threw: 1012 while the server stops, 1013 for a temporary error, also as a cause of another one, 1011
 * for an error that is a bug, and 4403, the refusal, for everything else. Never throws.
 */
export function closeFor (thrown: unknown, isDraining: boolean): Close {
  if (isDraining) return RESTART
  try {
    if (withCauses(thrown).some(isTemporary)) return TRY_AGAIN_LATER
    return BUGS.some((Bug) => thrown instanceof Bug) ? INTERNAL_ERROR : FORBIDDEN
  } catch {
    // a getter of the error threw
    return INTERNAL_ERROR
  }
}

/** An error, its causes, and the errors that it collects. */
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
  return TEMPORARY_NAME.test(String(name)) || TEMPORARY_TEXT.has(String(message)) || (name === 'ReplyError' && TEMPORARY_REPLY.test(String(message)))
}

function isTemporaryStatus (status: unknown): boolean {
  return typeof status === 'number' && (status >= 500 || TEMPORARY_STATUS.has(status))
}
