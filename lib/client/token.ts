/** The token that is part of every request. */

/** A token, or a function that returns one. */
export type TokenSource = string | undefined | (() => string | undefined | Promise<string | undefined>)

/** The token of a client. */
export interface Token {
  /** The field `auth_jwt` of requests. */
  current: string | undefined
  /**
   * Asks the source, if it is a function. Concurrent callers share the answer, unless it takes too long: a request on a
   * dead connection never settles.
   *
   * @param isFresh whether to ask in any case; an older answer no longer counts then
   */
  readonly renew?: (isFresh?: boolean) => Promise<void>
}

/**
 * Makes the token of a client.
 *
 * @param timeout milliseconds after which the source is asked again although it has not answered
 */
export function createToken (source: TokenSource, timeout: number): Token {
  if (typeof source !== 'function') return { current: source }

  let renewal: Promise<void>
  let expiresAt = 0
  const token: Token = {
    current: undefined,
    renew (isFresh) {
      const now = performance.now()
      if (isFresh || now >= expiresAt) {
        expiresAt = now + timeout
        const asking = renewal = (async () => source())().then((current) => {
          if (asking === renewal) token.current = current
        }).finally(() => {
          if (asking === renewal) expiresAt = 0
        })
      }
      return renewal
    }
  }
  return token
}
