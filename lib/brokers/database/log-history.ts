/** Reads the positions of groups and their messages after a position. */
import type { HistoryEntry, Position } from '../broker.ts'
import type { HistoryOptions } from '../history.ts'
import type { LogReader } from './log-reader.ts'
import type { LogSession } from './log-session.ts'
import type { LogRow, LogStatements } from './log-statements.ts'

/** Groups whose positions are asked for in one turn of the event loop. */
interface TopRequest {
  readonly groups: Set<string>
  readonly topOf: Promise<(group: string) => Position>
}

export class LogHistory {
  readonly #session: LogSession
  readonly #statements: LogStatements
  readonly #reader: LogReader
  #asking: TopRequest | undefined

  constructor (session: LogSession, statements: LogStatements, reader: LogReader) {
    this.#session = session
    this.#statements = statements
    this.#reader = reader
  }

  /** Adds a group to those that the reader delivers. @returns its position, before all messages that follow */
  async subscribe (group: string): Promise<Position> {
    const request = this.#asking ??= this.#ask()
    request.groups.add(group)
    return (await request.topOf)(group)
  }

  /** See `Broker.history`. */
  async after (
    group: string, { epoch, offset }: Position, limit: number, bytes: number, { size, ttl }: HistoryOptions
  ): Promise<HistoryEntry[] | undefined> {
    await this.#reader.refresh()
    const top = this.#reader.position
    if (epoch !== top.epoch || offset > top.offset) return undefined

    const page = await this.#statements.readGroup(this.#session, group, offset, top.offset, size + 1)
    const { rows } = page
    const [first] = rows
    if (page.epoch !== epoch || rows.length > size) return undefined
    // where rows were deleted, the oldest one that is left may follow one that is gone
    if (offset < page.forgotten || (first !== undefined && first.id <= page.thinned)) return undefined
    if (rows.some((row) => row.size === undefined || page.now - row.createdAt >= ttl)) return undefined

    const chosen = withinLimits(rows, limit, bytes)
    if (chosen.length === 0) return rows.length === 0 || limit === 0 ? [] : undefined
    const payloads = await this.#statements.readPayloads(this.#session, chosen.map(({ id }) => id))
    const entries: HistoryEntry[] = []
    for (const { id } of chosen) {
      const payload = payloads.get(id)
      if (payload === undefined) return undefined
      entries.push({ payload, position: { epoch, offset: id } })
    }
    return entries
  }

  #ask (): TopRequest {
    const groups = new Set<string>()
    return { groups, topOf: this.#readTops(groups) }
  }

  async #readTops (groups: Set<string>): Promise<(group: string) => Position> {
    // at the end of the turn one statement reads the positions of all groups
    await new Promise(setImmediate)
    this.#asking = undefined
    for (;;) {
      // rows that are visible already are not delivered to groups that begin now
      await this.#reader.refresh()
      for (const group of groups) this.#reader.add(group)
      const { epoch, offset } = this.#reader.position
      const tops = await this.#statements.readTops(this.#session, [...groups], offset)
      if (this.#reader.position.epoch !== epoch) continue
      // where the log has nothing of a group, the position up to which everything was delivered will do
      return (group) => ({ epoch, offset: tops.get(group) ?? offset })
    }
  }
}

function withinLimits (rows: readonly LogRow[], limit: number, bytes: number): LogRow[] {
  const chosen: LogRow[] = []
  let left = bytes
  for (const row of rows) {
    left -= Number(row.size)
    if (left < 0 || chosen.length === limit) break
    chosen.push(row)
  }
  return chosen
}
