/** The token that goes with every request. */

/** A token, or what gives one. */
export type TokenSource = string | undefined | (() => string | undefined | Promise<string | undefined>)

/** Knows the token of now, and asks for another where the source can tell. */
export class Token {
  readonly #source: TokenSource
  #current: string | undefined
  #asking: Promise<void> | undefined

  constructor (source: TokenSource) {
    this.#source = source
    if (typeof source !== 'function') this.#current = source
  }

  /** What is sent as `auth_jwt`. */
  get current (): string | undefined {
    return this.#current
  }

  /** Whether asking again can give another one. */
  get renewable (): boolean {
    return typeof this.#source === 'function'
  }

  /** Asks the source; those who ask meanwhile share the answer. */
  renew (): Promise<void> {
    this.#asking ??= this.#ask().finally(() => { this.#asking = undefined })
    return this.#asking
  }

  async #ask (): Promise<void> {
    if (typeof this.#source === 'function') this.#current = await this.#source()
  }
}
