/** Reads rows of the application together with the messages that they contain already. */
import type { EntityManager } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import type { Snapshot } from '../broker.ts'
import type { Dialect } from './dialect.ts'
import type { LogReader } from './log-reader.ts'
import type { LogStatements } from './log-statements.ts'

/** Number of attempts while new epochs begin. */
const ATTEMPTS = 3

export class LogSnapshot {
  readonly #dialect: Dialect
  readonly #statements: LogStatements
  readonly #reader: LogReader
  readonly #refresh: () => Promise<void>

  /** @param refresh waits for the reader, for a limited time */
  constructor (dialect: Dialect, statements: LogStatements, reader: LogReader, refresh: () => Promise<void>) {
    this.#dialect = dialect
    this.#statements = statements
    this.#reader = reader
    this.#refresh = refresh
  }

  /** See `Broker.snapshot`. */
  async read<Value> (group: string, read: (em: EntityManager) => Promise<Value>): Promise<Snapshot<Value>> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      // all rows of the log up to the position are visible to a transaction that begins now, or never will be
      const { position } = this.#reader
      const view = await this.#dialect.openView()
      try {
        const { epoch, ids } = await this.#statements.readVisible(view.connection, group, position.offset)
        if (epoch === position.epoch) {
          const value = await read(view.em)
          return { value, position, includes: (offset) => offset <= position.offset || ids.has(offset) }
        }
      } finally {
        // the rows are read, and a connection that is lost now has no transaction either
        await view.end().catch(() => {})
      }
      await this.#refresh()
    }
    throw new errors.RP_ERR_BROKER_UNAVAILABLE('the log begins one epoch after another')
  }
}
