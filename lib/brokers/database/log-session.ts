/** A connection to the database that is opened again when it is lost. */
import { Backoff } from '../../util/backoff.ts'
import type { Connector, DatabaseConnection, Dialect, Row } from './dialect.ts'

/** What a session is made with. */
export interface LogSessionOptions {
  dialect: Dialect
  role: 'reader' | 'writer'
  /** How long a statement may be without an answer, in milliseconds, before the connection is given up. */
  patience: number
  /** A connection is there. */
  onReady (): void
  /** The connection was lost, or could not be made. */
  onFailure (error: Error): void
  /** Another process has written to the log. */
  onNotification? (): void
}

/** The bounds of the delay before the next attempt to connect, in milliseconds. */
const RETRY = { min: 20, max: 1000 }

/** Without a connection a statement fails at once; its error is of the kind 'lost'. */
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
      const made = await within(patience, 'the database does not accept a connection', this.#connector.connect({
        onLost: lose,
        onNotification: () => onNotification?.()
      }))
      connection = made
      await within(patience, 'the database does not answer', dialect.prepare(made, role))
      if (this.#isClosed) return made.destroy()
      this.#connection = made
      this.#failure = undefined
      this.#backoff.reset()
      onReady()
    } catch (error) {
      connection?.destroy()
      if (this.#isClosed) return
      this.#failure = error as Error
      this.#retrying = setTimeout(() => this.open(), this.#backoff.next())
      onFailure(error as Error)
    }
  }

  async query (sql: string, values?: readonly unknown[]): Promise<Row[]> {
    const connection = this.#connection
    const { dialect, patience } = this.#options
    if (connection === undefined) throw new Error(`no connection to ${dialect.name}: ${this.reason}`)
    try {
      const text = `${dialect.name} has not answered for ${patience} ms`
      return await within(patience, text, connection.query(sql, values))
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

/** Rejects when an answer takes too long. */
async function within<Value> (patience: number, text: string, answer: Promise<Value>): Promise<Value> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(text)), patience)
  try {
    return await Promise.race([answer, promise])
  } finally {
    clearTimeout(timer)
  }
}
