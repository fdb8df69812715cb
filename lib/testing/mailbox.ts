/** The mailbox of a test client: unread frames, and the calls that wait for a frame. */
import { within } from '../util/within.ts'

/** A parsed frame. */
export type TestFrame = Record<string, unknown>

/** A received frame: its text, and the parsed frame if it is a JSON object. */
export interface ReceivedFrame {
  readonly text: string
  readonly frame: TestFrame | undefined
}

/** A frame that `take` has removed from the mailbox. */
export interface TakenFrame extends ReceivedFrame {
  /** The unread frames before it, if `withUnread` was set. */
  readonly before: readonly ReceivedFrame[]
}

/** A call of `take` that waits for a frame. */
interface Waiter {
  /** Whether a frame is the expected one; `undefined` accepts any frame. */
  readonly matches: ((received: ReceivedFrame) => boolean) | undefined
  readonly withUnread: boolean
  readonly done: PromiseWithResolvers<TakenFrame>
}

/** Number of unread frames that an error shows. */
const SHOWN_FRAMES = 5

export class Mailbox {
  readonly #timeout: number
  readonly #unread: ReceivedFrame[] = []
  readonly #waiters = new Set<Waiter>()
  /** Conditions of `until` that are checked after each frame. */
  readonly #checks = new Set<() => void>()
  #closed: string | undefined

  /** @param timeout milliseconds after which a wait fails */
  constructor (timeout: number) {
    this.#timeout = timeout
  }

  /** The frames that no call has taken. */
  get unread (): readonly ReceivedFrame[] {
    return this.#unread
  }

  /** Whether the connection is closed, so that no frame will arrive. */
  get isClosed (): boolean {
    return this.#closed !== undefined
  }

  /** Passes a frame to the call that waits for it, else to a call that accepts any frame, else keeps it. */
  add (received: ReceivedFrame): void {
    const waiters = [...this.#waiters]
    const waiter = waiters.find(({ matches }) => matches?.(received)) ??
      waiters.find(({ matches }) => matches === undefined)
    if (waiter === undefined) {
      this.#unread.push(received)
    } else {
      this.#waiters.delete(waiter)
      waiter.done.resolve({ ...received, before: waiter.withUnread ? this.#unread.splice(0) : [] })
    }
    for (const check of this.#checks) check()
  }

  /** Rejects all waiting calls, and later ones that no unread frame satisfies. */
  close (reason: string): void {
    this.#closed = reason
    for (const { done } of this.#waiters) done.reject(new Error(`${reason} while a frame was awaited`))
    this.#waiters.clear()
    for (const check of this.#checks) check()
  }

  /**
   * Takes the first matching frame: an unread one, or the next to arrive.
   *
   * @param what describes the expected frame in an error
   * @param withUnread whether to take all unread frames too when it arrives
   * @returns rejects when the connection closes first, or after the timeout
   */
  async take (what: string, matches?: (received: ReceivedFrame) => boolean, withUnread = false): Promise<TakenFrame> {
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

  /** Resolves when a condition holds, which is checked after each frame; rejects as `take` does. */
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

  #inTime<Value> (promise: Promise<Value>, what: () => string): Promise<Value> {
    return within(this.#timeout, promise, () => {
      const shown = this.#unread.slice(-SHOWN_FRAMES).map(({ text }) => text)
      return new Error(`no ${what()} came within ${this.#timeout} ms; unread: ${shown.join(', ') || 'nothing'}`)
    })
  }
}
