/** The token that is part of every request. */

/** A token, or a function that returns one. */
export type TokenSource = string | undefined | (() => string | undefined | Promise<string | undefined>)

/** Holds the current token, and renews it where the source is a function. */
export class Token {
  readonly #source: TokenSource
  readonly #timeout: number
  #renewal: Promise<void> | undefined
  #expiresAt = 0
  /** The field `auth_jwt` of requests. */
  current: string | undefined

  /** @param timeout milliseconds after which the source is asked again although it has not answered */
  constructor (source: TokenSource, timeout: number) {
    this.#timeout = timeout
    this.#source = source
    if (typeof source !== 'function') this.current = source
  }

  /** Whether asking again can give another token. */
  get isRenewable (): boolean {
    return typeof this.#source === 'function'
  }

  /**
   * Asks the source. Concurrent callers share the answer, unless it takes too long: a request on a dead connection never settles.
   *
   * @param isFresh whether to ask in any case; an older answer no longer counts then
   */
  renew (isFresh = false): Promise<void> {
    const now = performance.now()
    if (isFresh || !this.#renewal || now >= this.#expiresAt) {
      this.#expiresAt = now + this.#timeout
      const renewal = this.#renewal = this.#ask().then((token) => {
        if (this.#renewal === renewal) this.current = token
      }).finally(() => {
        if (this.#renewal === renewal) this.#renewal = undefined
      })
    }
    return this.#renewal
  }

  async #ask (): Promise<string | undefined> {
    return typeof this.#source === 'function' ? this.#source() : this.#source
  }
}
