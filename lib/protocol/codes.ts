/** Error codes and close codes of the protocol. This module has no imports, so that the client bundle stays small. */

/** Codes in the field `code` of an error message. See PROTOCOL.md, "Error". */
export const ErrorCode = {
  /** An empty text frame, or a binary frame. */
  EMPTY_MESSAGE: 'empty_message',
  /** The text is not JSON. */
  INVALID_JSON: 'invalid_json',
  /** The JSON value is not an object, or its `type` or `id` is missing or has the wrong type. */
  INVALID_ENVELOPE: 'invalid_envelope',
  /** No handler is registered for `type`. */
  UNKNOWN_TYPE: 'unknown_type',
  /** `data` does not match the schema of the handler. */
  INVALID_DATA: 'invalid_data',
  /** The subscription is not allowed, or its group type is not declared. */
  ACCESS_DENIED: 'access_denied',
  /** The group name is invalid. */
  INVALID_GROUP: 'invalid_group',
  /** The connection is in the maximum number of groups. */
  TOO_MANY_GROUPS: 'too_many_groups',
  /** The client has exceeded the rate limit. Sent with `retry: true`. */
  RATE_LIMITED: 'rate_limited',
  /** The token of the client has expired: it needs a new one. Sent by applications. */
  TOKEN_EXPIRED: 'token_expired',
  /** The handler did not finish before its deadline. */
  TIMEOUT: 'timeout',
  /** The server is stopping, or its broker is unavailable. Sent with `retry: true`. */
  UNAVAILABLE: 'unavailable',
  /** Internal error of the server. The log of the server has the details. */
  INTERNAL: 'internal'
} as const

/** One of the codes of {@link ErrorCode}. Handlers may send codes of their own. */
export type ErrorCode = typeof ErrorCode[keyof typeof ErrorCode]

/**
 * Codes with which the server closes a connection. Codes from 4000 mirror HTTP: 4403 is 403. See PROTOCOL.md, "Close
 * codes".
 */
export const CloseCode = {
  /** Normal closure (RFC 6455, section 7.4.1). */
  NORMAL: 1000,
  /** A message is larger than the server accepts (RFC 6455, section 7.4.1). */
  TOO_LARGE: 1009,
  /** `onConnect` failed because of a bug (RFC 6455, section 7.4.1). The client reconnects after a random delay. */
  INTERNAL_ERROR: 1011,
  /** The server restarts (IANA's registry of close codes). The client reconnects after a random delay. */
  SERVICE_RESTART: 1012,
  /**
   * The server cannot accept the connection now, for example because its database is unavailable (IANA's registry). The
   * client reconnects after a random delay.
   */
  TRY_AGAIN_LATER: 1013,
  /** The client must authenticate again. Sent by applications. */
  UNAUTHORIZED: 4401,
  /** `onConnect` refused the connection, or `disconnect` closed it. */
  FORBIDDEN: 4403,
  /** The client reads too slowly. It reconnects. */
  SLOW_CONSUMER: 4408
} as const

/** One of the codes of {@link CloseCode}. Applications may close with codes of their own. */
export type CloseCode = typeof CloseCode[keyof typeof CloseCode]
