/** The frames that a test client has received and that nobody has taken yet, and the tests that wait for one. */

/** A frame, parsed. */
export type TestFrame = Record<string, unknown>

/** A frame as it came, and parsed if it is a JSON object. */
export interface Incoming {
  readonly text: string
  readonly frame: TestFrame | undefined
}

/** A frame that was taken, with the unread ones that came before it if they were taken too. */
export interface Taken extends Incoming {
  readonly before: readonly Incoming[]
}

/** A test that waits for a frame. */
interface Waiter {
  /** Which frame it waits for; `undefined` for any. */
  readonly matches: ((incoming: Incoming) => boolean) | undefined
  readonly withUnread: boolean
  readonly done: PromiseWithResolvers<Taken>
}

/** Unread frames shown in an error. */
const SHOWN = 5

export class Mailbox {
  readonly #timeout: number
  readonly #unread: Incoming[] = []
  readonly #waiters = new Set<Waiter>()
  /** Called after each frame. */
  readonly #checks = new Set<() => void>()
  #closed: string | undefined

  /** @param timeout milliseconds after which a wait fails */
  constructor (timeout: number) {
    this.#timeout = timeout
  }

  /** The frames that nobody has taken. */
  get unread (): readonly Incoming[] {
    return this.#unread
  }

  /** Whether the connection is closed, so that no frame will come. */
  get isClosed (): boolean {
    return this.#closed !== undefined
  }

  /** Hands a frame to the test that waits for it: first to one that waits for this kind of frame, then to one that takes any. */
  add (incoming: Incoming): void {
    const waiters = [...this.#waiters]
    const waiter = waiters.find(({ matches }) => matches?.(incoming)) ?? waiters.find(({ matches }) => matches === undefined)
    if (waiter === undefined) {
      this.#unread.push(incoming)
    } else {
      this.#waiters.delete(waiter)
      waiter.done.resolve({ ...incoming, before: waiter.withUnread ? this.#unread.splice(0) : [] })
    }
    for (const check of this.#checks) check()
  }

  /** Fails all waits, and those to come once the unread frames are taken. */
  close (reason: string): void {
    this.#closed = reason
    for (const { done } of this.#waiters) done.reject(new Error(`${reason} while a frame was awaited`))
    this.#waiters.clear()
    for (const check of this.#checks) check()
  }

  /**
   * Takes the first frame that matches, an unread one or the next to come.
   *
   * @param what the frame that is expected, for the error
   * @param withUnread whether to take the unread frames that came before it too
   * @returns rejects when the connection closes first, or after the timeout
   */
  async take (what: string, matches?: (incoming: Incoming) => boolean, withUnread = false): Promise<Taken> {
    const index = matches === undefined ? 0 : this.#unread.findIndex(matches)
    const [unread] = index < 0 ? [] : this.#unread.splice(index, 1)
    if (unread !== undefined) return { ...unread, before: [] }
    if (this.#closed !== undefined) throw new Error(`closed before a frame was awaited: ${this.#closed}`)

    const waiter: Waiter = { matches, withUnread, done: Promise.withResolvers() }
    this.#waiters.add(waiter)
    try {
      return await this.#inTime(waiter.done.promise, () => what)
    } finally {
      this.#waiters.delete(waiter)
    }
  }

  /** Resolves when a condition on the received frames holds; rejects as `take` does. */
  async until (what: () => string, holds: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const check = () => {
      if (holds()) resolve()
      else if (this.#closed !== undefined) reject(new Error(`${this.#closed} before ${what()} came`))
    }
    this.#checks.add(check)
    check()
    try {
      await this.#inTime(promise, what)
    } finally {
      this.#checks.delete(check)
    }
  }

  async #inTime<Value> (promise: Promise<Value>, what: () => string): Promise<Value> {
    const late = Promise.withResolvers<never>()
    const timer = setTimeout(() => {
      const shown = this.#unread.slice(-SHOWN).map(({ text }) => text)
      late.reject(new Error(`no ${what()} came within ${this.#timeout} ms; unread: ${shown.join(', ') || 'nothing'}`))
    }, this.#timeout)
    try {
      return await Promise.race([promise, late.promise])
    } finally {
      clearTimeout(timer)
    }
  }
}
