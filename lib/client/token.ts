/** The token that goes with every request. */

/** A token, or what gives one. */
export type TokenSource = string | undefined | (() => string | undefined | Promise<string | undefined>)

/** Knows the token of now, and asks for another where the source can tell. */
export class Token {
  readonly #source: Exclude<TokenSource, string> | undefined
  readonly #timeout: number
  #asking: Promise<void> | undefined
  #askedAt = 0
  /** What is sent as `auth_jwt`. */
  current: string | undefined

  /** @param timeout milliseconds after which an answer is not waited for any more */
  constructor (source: TokenSource, timeout: number) {
    this.#timeout = timeout
    if (typeof source === 'function') this.#source = source
    else this.current = source
  }

  /** Whether asking again can give another one. */
  get renewable (): boolean {
    return Boolean(this.#source)
  }

  /**
   * Asks the source. Callers that ask meanwhile share the answer, unless it takes too long: a request on a dead line never settles.
   *
   * @param isFresh whether to ask in any case; an older answer counts no more then
   */
  renew (isFresh = false): Promise<void> {
    const now = performance.now()
    if (isFresh || !this.#asking || now - this.#askedAt >= this.#timeout) {
      this.#askedAt = now
      const asking = this.#asking = this.#ask().then((token) => {
        if (this.#asking === asking) this.current = token
      }).finally(() => {
        if (this.#asking === asking) this.#asking = undefined
      })
    }
    return this.#asking
  }

  async #ask (): Promise<string | undefined> {
    return this.#source?.()
  }
}
