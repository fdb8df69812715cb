/** The statements on the log that all databases share. */
import { createHash, randomBytes } from 'node:crypto'
import type { Dialect, LogMessage, LogTables, ResultRow, StatementRunner } from './dialect.ts'

/** A row of the log without its payload. */
export interface LogRow {
  readonly id: number
  readonly group: string
  /** The size of the payload; `undefined` for a row that reports missing messages. */
  readonly size: number | undefined
  readonly createdAt: number
  /** Set on the first row of an INSERT. */
  readonly token: string | undefined
}

/** Rows of the log, and the state of the log that belongs to them: both are of one statement. */
export interface LogPage {
  /** The values that the epoch is a hash of. */
  readonly source: string
  /** The epoch as clients see it. */
  readonly epoch: string
  /** Id up to which each group has one row at most. */
  readonly thinned: number
  /** Id up to which all rows are deleted. */
  readonly forgotten: number
  /** The newest id of all. */
  readonly newest: number
  /** Whether the table of passed ids has rows. */
  readonly hasPassed: boolean
  /** The clock of the database. */
  readonly now: number
  readonly rows: LogRow[]
}

/** Ids that follow each other. */
export interface IdRange {
  readonly first: number
  readonly last: number
}

/** Largest number of values in a list of a statement. */
const LIST = 500

export class LogStatements {
  readonly #dialect: Dialect
  readonly #tables: LogTables
  /** The values of the last epoch, and its hash. */
  #source: string | undefined
  #epoch = ''

  constructor (dialect: Dialect, tables: LogTables) {
    this.#dialect = dialect
    this.#tables = tables
  }

  /** The rows of the log from an id on. */
  readFrom (connection: StatementRunner, id: number, limit: number): Promise<LogPage> {
    return this.#readPage(connection, 'id >= ?', [id], limit)
  }

  /** The rows of a group after an id and up to another one. */
  readGroup (
    connection: StatementRunner, group: string, after: number, last: number, limit: number
  ): Promise<LogPage> {
    const { isGroup } = this.#dialect
    const values = [...this.#dialect.groupValues(group), after, last]
    return this.#readPage(connection, `${isGroup} and id > ? and id <= ?`, values, limit)
  }

  /** The ids of a group after an id that are visible to a transaction for reading. */
  async readVisible (
    connection: StatementRunner, group: string, after: number
  ): Promise<{ epoch: string, ids: Set<number> }> {
    const values = [...this.#dialect.groupValues(group), after]
    const condition = `${this.#dialect.isGroup} and id > ?`
    const { epoch, rows } = await this.#readPage(connection, condition, values, Number.MAX_SAFE_INTEGER, true)
    return { epoch, ids: new Set(rows.map(({ id }) => id)) }
  }

  /** The payloads of rows. */
  async readPayloads (connection: StatementRunner, ids: readonly number[]): Promise<Map<number, string>> {
    const payloads = new Map<number, string>()
    for (let at = 0; at < ids.length; at += LIST) {
      const some = ids.slice(at, at + LIST)
      const rows = await connection.query(`select id, payload from ${this.#tables.log}
        where id in (${listOf(some)}) and payload is not null`, some)
      for (const { id, payload } of rows) payloads.set(Number(id), String(payload))
    }
    return payloads
  }

  /** The id of the newest row. */
  async readTop (connection: StatementRunner): Promise<number> {
    const [row] = await connection.query(`select max(id) as top from ${this.#tables.log}`)
    return Number(row?.top ?? 0)
  }

  /** The ids of the last messages of groups, up to an id. */
  async readTops (
    connection: StatementRunner, groups: readonly string[], last: number
  ): Promise<Map<string, number>> {
    const { isGroup } = this.#dialect
    const tops = new Map<string, number>()
    for (let at = 0; at < groups.length; at += LIST) {
      const some = groups.slice(at, at + LIST)
      // the newest row of each group is one step in the index
      const { log } = this.#tables
      const each = some.map((_, index) => {
        return `select ${index} as place, max(id) as top from ${log} where ${isGroup} and id <= ?`
      })
      const values = some.flatMap((group) => [...this.#dialect.groupValues(group), last])
      const rows = await connection.query(each.join(' union all '), values)
      for (const { place, top } of rows) {
        const group = some[Number(place)]
        if (group !== undefined && top !== null) tops.set(group, Number(top))
      }
    }
    return tops
  }

  /** Inserts the rows of the state that are missing. */
  async ensureState (connection: StatementRunner): Promise<void> {
    const [insert, end] = this.#dialect.insertMissing
    await connection.query(`${insert} ${this.#tables.state} (name, value)
      values ('epoch', ?), ('turn', '0'), ('cleaner', '0') ${end}`, [newEpoch()])
  }

  /** Begins a new epoch, unless another process has done so. @param source the values of the current epoch */
  async renewEpoch (connection: StatementRunner, source: string): Promise<void> {
    const { state } = this.#tables
    const values = [newEpoch(), String(source.split('/')[0])]
    await connection.query(`update ${state} set value = ? where name = 'epoch' and value = ?`, values)
  }

  /** Notes that readers do not wait any longer for ids. */
  async pass (connection: StatementRunner, ranges: readonly IdRange[], holders: string): Promise<void> {
    const [insert, end] = this.#dialect.insertMissing
    for (const { first, last } of ranges) {
      await connection.query(`${insert} ${this.#tables.passed} (first_id, last_id, holders)
        values (?, ?, ?) ${end}`, [first, last, holders])
    }
  }

  /** Notes the options of this process. @returns those that another process has noted last, if they differ */
  async noteOptions (connection: StatementRunner, options: string): Promise<string | undefined> {
    const { state } = this.#tables
    const [insert, end] = this.#dialect.insertMissing
    await connection.query(`${insert} ${state} (name, value) values ('options', ?) ${end}`, [options])
    const [row] = await connection.query(`select value from ${state} where name = 'options' and value <> ?`, [options])
    if (row === undefined) return undefined
    await connection.query(`update ${state} set value = ? where name = 'options'`, [options])
    return String(row.value)
  }

  /** Takes the right to clean the log until a time. @returns whether no other process has it */
  async takeCleaning (connection: StatementRunner, id: string, milliseconds: number): Promise<boolean> {
    const { state } = this.#tables
    const { now } = this.#dialect
    const [row] = await connection.query(`select value, ${now} as clock from ${state} where name = 'cleaner'`)
    const until = Number(String(row?.value).split('/')[0])
    const clock = Number(row?.clock)
    if (row === undefined || until > clock) return false
    const value = `${clock + milliseconds}/${id}`
    await connection.query(`update ${state} set value = ? where name = 'cleaner' and value = ?`, [value, row.value])
    const [taken] = await connection.query(`select value from ${state} where name = 'cleaner'`)
    return taken?.value === value
  }

  /** Notes up to where rows are deleted, before they are. */
  async mark (connection: StatementRunner, name: 'thinned' | 'forgotten', epoch: string, id: number): Promise<void> {
    const { state } = this.#tables
    const value = `${epoch}/${id}`
    const [insert, end] = this.#dialect.insertMissing
    await connection.query(`${insert} ${state} (name, value) values (?, ?) ${end}`, [name, value])
    await connection.query(`update ${state} set value = ? where name = ?`, [value, name])
  }

  /** Deletes rows. */
  async delete (connection: StatementRunner, ids: readonly number[]): Promise<void> {
    for (let at = 0; at < ids.length; at += LIST) {
      const some = ids.slice(at, at + LIST)
      await connection.query(`delete from ${this.#tables.log} where id in (${listOf(some)})`, some)
    }
  }

  async #readPage (
    connection: StatementRunner, condition: string, values: readonly unknown[], limit: number, isSecond = false
  ): Promise<LogPage> {
    const { epoch, now, size } = this.#dialect
    const { log, state, passed } = this.#tables
    const rows = await connection.query(`select s.*, l.id, l.group_name, l.size, l.created_at, l.token from (
        select ${epoch} as source, ${now} as clock, (select count(*) from ${passed}) as passed,
          (select max(id) from ${log}) as newest,
          (select value from ${state} where name = 'thinned') as thinned,
          (select value from ${state} where name = 'forgotten') as forgotten
      ) s left join (
        select id, group_name, ${size} as size, created_at, token from ${log}
        where ${condition} order by id limit ${limit}
      ) l on 1 = 1 order by l.id`, values)
    const [head = {}] = rows
    if (typeof head.source !== 'string') {
      // the tables are new, or were cleared
      if (isSecond) throw new Error(`${this.#dialect.name} does not tell the epoch of the log`)
      await this.ensureState(connection)
      return this.#readPage(connection, condition, values, limit, true)
    }
    this.#nameEpoch(head.source)
    return {
      source: head.source,
      epoch: this.#epoch,
      thinned: this.#markOf(head.thinned),
      forgotten: this.#markOf(head.forgotten),
      newest: Number(head.newest),
      hasPassed: Number(head.passed) > 0,
      now: Number(head.clock),
      rows: rows.filter(({ id }) => id !== null).map(toLogRow)
    }
  }

  #nameEpoch (source: string): void {
    if (source === this.#source) return
    this.#source = source
    this.#epoch = createHash('sha256').update(source).digest('base64url').slice(0, 12)
  }

  /** A mark of another epoch is none. */
  #markOf (value: unknown): number {
    const [epoch, id] = String(value).split('/')
    return epoch === this.#epoch ? Number(id) : 0
  }
}

/**
 * Inserts messages with one statement, in the order of their ids.
 *
 * @param log the quoted name of the table
 * @param now the expression for the milliseconds of Unix time
 * @param token token of the first row
 */
export async function insertRows (
  connection: StatementRunner, log: string, now: string, messages: readonly LogMessage[], token: string
): Promise<void> {
  const rows = messages.map(() => `(?, ?, ?, ${now})`).join(', ')
  const values = messages.flatMap(({ group, payload }, index) => [group, payload, index === 0 ? token : null])
  await connection.query(`insert into ${log} (group_name, payload, token, created_at) values ${rows}`, values)
}

/** Tells a row from another one that has the same id after the log was rewound. */
export function nameOf ({ group, createdAt, token }: LogRow): string {
  return token ?? `${createdAt} ${group}`
}

function toLogRow ({ id, group_name: group, size, created_at: createdAt, token }: ResultRow): LogRow {
  return {
    id: Number(id),
    group: String(group),
    size: size === null ? undefined : Number(size),
    createdAt: Number(createdAt),
    token: token === null ? undefined : String(token)
  }
}

function listOf (values: readonly unknown[]): string {
  return values.map(() => '?').join(', ')
}

function newEpoch (): string {
  return randomBytes(12).toString('hex')
}
