/** What a well-behaved client must have heard so far: the messages of a group have numbers, the rows of a list are a table. */
import { checksum } from './plan.ts'

interface Row {
  id: number
  n: number
}

/** What a client knows of its groups. Whatever should not be is in `wrong`. */
export class Replica {
  readonly wrong: string[] = []
  heard = 0
  /** The number of the last message by group, once one is known. */
  readonly #last = new Map<string, number>()
  readonly #rows = new Map<number, number>()

  /** A numbered message. */
  told ({ group, n, sum }: { group: string, n: number, sum: number }): void {
    this.heard++
    const last = this.#last.get(group)
    if (last !== undefined && n !== last + 1) this.wrong.push(`${group}: ${n} after ${last}`)
    if (sum !== checksum(group, n)) this.wrong.push(`${group}: ${n} has another content`)
    this.#last.set(group, n)
  }

  /** A change of a row. */
  changed ({ type, object: { id, n } }: { type: string, object: Row }): void {
    this.heard++
    const known = this.#rows.get(id)
    if (type === 'create' ? known !== undefined : known === undefined) this.wrong.push(`${type} of row ${id}, which is ${known === undefined ? 'not there' : 'there'}`)
    if (type === 'update' && n !== Number(known) + 1) this.wrong.push(`row ${id}: ${n} after ${known}`)
    if (type === 'delete') this.#rows.delete(id)
    else this.#rows.set(id, n)
  }

  /** The server says how many messages the group has had. A group that was joined just now need not have heard of them. */
  audit (group: string, sent: number): void {
    const last = this.#last.get(group)
    if (last !== undefined && last !== sent) this.wrong.push(`${group}: heard ${last} of ${sent}`)
    this.#last.set(group, sent)
  }

  /** The rows that there are in the end. */
  compare (rows: readonly Row[]): void {
    const differs = rows.length !== this.#rows.size || rows.some(({ id, n }) => this.#rows.get(id) !== n)
    if (differs) this.wrong.push(`rows ${JSON.stringify([...this.#rows])} instead of ${JSON.stringify(rows)}`)
  }

  /** Leaves a group. */
  forget (group: string): void {
    this.#last.delete(group)
  }
}
