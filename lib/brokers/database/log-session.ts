/** A connection to the database that is opened again when it is lost. */
import { Backoff } from '../../util/backoff.ts'
import { within } from '../../util/within.ts'
import type { Connector, DatabaseConnection, Dialect, ResultRow } from './dialect.ts'

/** Options of a session. */
export interface LogSessionOptions {
  dialect: Dialect
  role: 'reader' | 'writer'
  /** Time limit of a statement, in milliseconds; after it the session opens another connection. */
  patience: number
  /** Called when a connection is ready. @param deafness the reason why notifications do not arrive */
  onReady (deafness?: string): void
  /** Called when the connection was lost, or could not be made. */
  onFailure (error: Error): void
  /** Called when another process has written to the log. */
  onNotification? (): void
}

/** The bounds of the delay before the next attempt to connect, in milliseconds. */
const RETRY = { min: 20, max: 1000 }

/** A session of the log. Without a connection its statements fail at once, with a failure of the kind 'lost'. */
export class LogSession implements DatabaseConnection {
  readonly #options: LogSessionOptions
  readonly #connector: Connector
  readonly #backoff = new Backoff(RETRY.min, RETRY.max)
  #connection: DatabaseConnection | undefined
  #failure: Error | undefined
  #retrying: NodeJS.Timeout | undefined
  #isClosed = false

  constructor (options: LogSessionOptions) {
    this.#options = options
    this.#connector = options.dialect.connector()
  }

  get isReady (): boolean {
    return this.#connection !== undefined
  }

  /** Text that says why there is no connection. */
  get reason (): string {
    return this.#failure?.message ?? 'it is being made'
  }

  /** Last error of a connection that was lost or could not be made. */
  get failure (): Error | undefined {
    return this.#failure
  }

  /** Connects, again and again until there is a connection. */
  async open (): Promise<void> {
    const { dialect, role, patience, onReady, onFailure, onNotification } = this.#options
    let connection: DatabaseConnection | undefined
    const lose = (error: Error) => this.#lose(connection, error)
    try {
      const connecting = this.#connector.connect({ onLost: lose, onNotification: () => onNotification?.() })
      const made = await within(patience, connecting, () => new Error('the database does not accept a connection'))
      connection = made
      const preparing = dialect.prepare(made, role)
      const deafness = await within(patience, preparing, () => new Error('the database does not answer'))
      if (this.#isClosed) return made.destroy()
      this.#connection = made
      this.#failure = undefined
      this.#backoff.reset()
      onReady(deafness)
    } catch (error) {
      connection?.destroy()
      if (this.#isClosed) return
      this.#failure = error as Error
      this.#retrying = setTimeout(() => this.open(), this.#backoff.next())
      onFailure(error as Error)
    }
  }

  async query (sql: string, values?: readonly unknown[]): Promise<ResultRow[]> {
    const connection = this.#connection
    const { dialect, patience } = this.#options
    if (connection === undefined) throw new Error(`no connection to ${dialect.name}: ${this.reason}`)
    try {
      return await within(patience, connection.query(sql, values), () => {
        return new Error(`${dialect.name} has not answered for ${patience} ms`)
      })
    } catch (error) {
      if (dialect.failureOf(error) === 'lost') this.#lose(connection, error as Error)
      throw error
    }
  }

  destroy (): void {
    this.#connection?.destroy()
    this.#connection = undefined
  }

  async close (): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#retrying)
    this.destroy()
    await this.#connector.close()
  }

  #lose (connection: DatabaseConnection | undefined, error: Error): void {
    if (connection === undefined || connection !== this.#connection) return
    connection.destroy()
    this.#connection = undefined
    this.#failure = error
    this.#options.onFailure(error)
    this.open()
  }
}
