/** Machine-readable codes of errors and of closes. A module without imports: clients use it as it is. */

/** The `code` beside `error` in an error message. See PROTOCOL.md, "Error". */
export const ErrorCode = {
  /** An empty text frame, or a binary frame. */
  EMPTY_MESSAGE: 'empty_message',
  /** The text is not JSON. */
  INVALID_JSON: 'invalid_json',
  /** JSON, but not an object; or `type` or `id` is missing or of the wrong kind. */
  INVALID_ENVELOPE: 'invalid_envelope',
  /** No handler is registered for `type`. */
  UNKNOWN_TYPE: 'unknown_type',
  /** `data` fails the schema of the handler. */
  INVALID_DATA: 'invalid_data',
  /** The subscription was not allowed, or its group was never declared. */
  ACCESS_DENIED: 'access_denied',
  /** The group's name breaks the rule for names. */
  INVALID_GROUP: 'invalid_group',
  /** The connection is in as many groups as it may be. */
  TOO_MANY_GROUPS: 'too_many_groups',
  /** More messages than the server takes in the time. Comes with `retry: true`. */
  RATE_LIMITED: 'rate_limited',
  /** The token that the client showed is no longer valid: get another one. Applications send it. */
  TOKEN_EXPIRED: 'token_expired',
  /** The handler did not settle before its deadline. */
  TIMEOUT: 'timeout',
  /** The server can't do it now: it stops, or its broker is away. Comes with `retry: true`. */
  UNAVAILABLE: 'unavailable',
  /** A failure of the server; what happened is in its log. */
  INTERNAL: 'internal'
} as const

/** One of the codes of {@link ErrorCode}. Handlers may send codes of their own. */
export type ErrorCode = typeof ErrorCode[keyof typeof ErrorCode]

/** Codes with which the server closes a connection. Those from 4000 mirror HTTP, as 4403 does. See PROTOCOL.md, "Close codes". */
export const CloseCode = {
  /** The connection did what it was for (RFC 6455, section 7.4.1). */
  NORMAL: 1000,
  /** A message is larger than the server takes (RFC 6455, section 7.4.1). */
  TOO_LARGE: 1009,
  /** The server failed while it let the connection in (RFC 6455, section 7.4.1): connect again, after a random wait. */
  INTERNAL_ERROR: 1011,
  /** The server restarts: connect again, after a random wait (IANA's registry of close codes). */
  SERVICE_RESTART: 1012,
  /** The server can't take the connection now, for example because its database is away: connect again, after a random wait (IANA's registry). */
  TRY_AGAIN_LATER: 1013,
  /** The client has to authenticate anew. Applications send it. */
  UNAUTHORIZED: 4401,
  /** `onConnect` refused the connection, or `disconnect` ended it. */
  FORBIDDEN: 4403,
  /** The client did not read what it was sent: connect again. */
  SLOW_CONSUMER: 4408
} as const

/** One of the codes of {@link CloseCode}. Applications may close with codes of their own. */
export type CloseCode = typeof CloseCode[keyof typeof CloseCode]
