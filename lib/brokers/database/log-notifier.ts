/** Notifies other processes of new rows, at most once at a time. A notification that fails does no harm: they poll. */
import type { Dialect } from './dialect.ts'
import type { LogSession } from './log-session.ts'

export class LogNotifier {
  readonly #dialect: Dialect
  readonly #session: LogSession
  #isNotifying = false
  #isWanted = false

  constructor (dialect: Dialect, session: LogSession) {
    this.#dialect = dialect
    this.#session = session
  }

  /** Notifies now, and once more if this is called meanwhile. */
  async notify (): Promise<void> {
    this.#isWanted = true
    if (this.#dialect.notify === undefined || this.#isNotifying || !this.#session.isReady) return
    this.#isNotifying = true
    try {
      while (this.#isWanted) {
        this.#isWanted = false
        await this.#dialect.notify(this.#session)
      }
    } catch {
      // the other processes poll
    } finally {
      this.#isNotifying = false
    }
  }
}
