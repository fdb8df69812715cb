/** What came of it all: who heard what, and whether anybody missed something without being told. */
import type { Publisher } from './cluster.ts'
import type { Entry, Place, Witness } from './witness.ts'

/** The notes of one client. */
type Account = Pick<Witness, 'group' | 'entries' | 'counts'>
/** The logs that all clients heard together: for each group and epoch the message at each offset. */
type Logs = Map<string, Map<number, Message>>
type Message = Pick<Entry & { kind: 'heard' }, 'publisher' | 'n'>
type Tell = (kind: 'repeated' | 'reordered' | 'silent' | 'ambiguous' | 'gaps', text: string) => void

export interface Report {
  /** Whether clients are told what they miss. */
  tells: boolean
  /** What applications were told of their messages. `unknown`: the process was killed before it could tell. */
  published: number
  failed: number
  unknown: number
  /** Connections that clients lost, and how their groups went on. */
  lost: number
  recovered: number
  refused: number
  resync: number
  /** Messages that clients heard, and those that they did not hear. */
  heard: number
  missed: number
  /**
   * Faults: a message heard twice, or after a later one, or, with history, not at all by a client that was told nothing. What a client
   * heard before it was told to load again does not count, but the log of an epoch has each message once and in order in any case.
   */
  repeated: number
  reordered: number
  silent: number
  /** Faults: two messages at one position, or positions that do not follow each other. */
  ambiguous: number
  gaps: number
  /** Faults of Redis that neither `health()` nor the log told, and those that filled the log. */
  untold: number
  noisy: number
  /** The first faults in words. */
  examples: string[]
}

/** Compares what each client heard with what was published. @param tells whether clients are told what they miss */
export function examine (witnesses: readonly Account[], publishers: readonly Publisher[], groups: number, tells: boolean): Report {
  const report: Report = {
    tells,
    published: 0,
    failed: 0,
    unknown: 0,
    lost: 0,
    recovered: 0,
    refused: 0,
    resync: 0,
    heard: 0,
    missed: 0,
    repeated: 0,
    reordered: 0,
    silent: 0,
    ambiguous: 0,
    gaps: 0,
    untold: 0,
    noisy: 0,
    examples: []
  }
  for (const { asked, published, failed } of publishers) {
    report.published += published.size
    report.failed += failed.size
    report.unknown += asked - published.size - failed.size
  }
  const fault: Tell = (kind, text) => {
    report[kind]++
    if (report.examples.length < 10) report.examples.push(`${kind}: ${text}`)
  }
  const logs: Logs = new Map()
  for (const witness of witnesses) {
    for (const name of ['lost', 'recovered', 'refused', 'resync'] as const) report[name] += witness.counts[name]
    follow(report, fault, witness, publishers, groups, logs)
  }
  for (const [name, log] of logs) checkOrder(fault, name, log)
  return report
}

function follow (
  report: Report, fault: Tell, { group, entries }: Account, publishers: readonly Publisher[], groups: number, logs: Logs
): void {
  const { tells } = report
  /** For each publisher the last number that was heard, and whether the client was told since then that messages are missing. */
  const last = publishers.map(() => ({ n: 0, isTold: false }))
  /** How often the client was told that messages are missing, and for each message how often when it was last heard. */
  let loads = 0
  const heard = new Map<string, number>()
  /** The messages that were passed over and not heard until now. */
  const missing = new Set<string>()
  /** The client's position in the group's log. */
  let at: Place

  for (const [index, entry] of entries.entries()) {
    const { kind, position } = entry
    if (kind === 'heard') hear(entry, index)

    const isNext = kind === 'heard' ? position?.offset === (at?.offset ?? 0) + 1 : position?.offset === at?.offset
    if ((kind === 'heard' || kind === 'recovered') && at !== undefined && (position?.epoch !== at.epoch || !isNext)) {
      fault('gaps', `todo-${group}, ${at.epoch} ${at.offset}, then ${position?.epoch} ${position?.offset} at ${index} (${kind})`)
    }
    at = position
    if (kind !== 'missed' || !tells) continue
    for (const each of last) each.isTold = true
    loads++
  }
  report.missed += missing.size

  function hear ({ publisher, n, position }: Entry & { kind: 'heard' }, index: number): void {
    const id = `${publisher}:${n}`
    const known = last[publisher]
    if (known === undefined) throw new RangeError(`there is no publisher ${publisher}`)

    report.heard++
    if (heard.get(id) === loads) fault('repeated', `todo-${group}, ${id} at ${index}`)
    else if (n <= known.n && !known.isTold) fault('reordered', `todo-${group}, ${id} after ${known.n} at ${index}`)
    heard.set(id, loads)
    missing.delete(id)
    for (let between = firstOf(known.n, group, groups); between < n; between += groups) {
      if (!publishers[publisher]?.published.has(between)) continue
      if (!heard.has(`${publisher}:${between}`)) missing.add(`${publisher}:${between}`)
      if (tells && !known.isTold) fault('silent', `todo-${group}, ${publisher}:${between} before ${id} at ${index}`)
    }
    // A client that was told to load again may go on at an earlier message, on a process that is behind the one before.
    // From there on nothing may be missing or out of order.
    last[publisher] = { n: known.isTold ? n : Math.max(n, known.n), isTold: false }
    if (position !== undefined) note(fault, logs, group, position, { publisher, n })
  }
}

/** Adds a message to the log of its group. */
function note (fault: Tell, logs: Logs, group: number, { epoch, offset }: NonNullable<Place>, message: Message): void {
  const name = `todo-${group} ${epoch}`
  const log = logs.get(name) ?? new Map<number, Message>()
  logs.set(name, log)
  const other = log.get(offset)
  if (other !== undefined && (other.publisher !== message.publisher || other.n !== message.n)) {
    fault('ambiguous', `${name} ${offset}, ${other.publisher}:${other.n} and ${message.publisher}:${message.n}`)
  }
  log.set(offset, message)
}

/** A log has the messages of each publisher once and in order, whatever single clients heard of it. */
function checkOrder (fault: Tell, name: string, log: ReadonlyMap<number, Message>): void {
  const last = new Map<number, number>()
  for (const [offset, { publisher, n }] of [...log].sort(([a], [b]) => a - b)) {
    const before = last.get(publisher) ?? 0
    if (n <= before) fault(n === before ? 'repeated' : 'reordered', `${name} ${offset}, ${publisher}:${n} after ${before}`)
    last.set(publisher, Math.max(n, before))
  }
}

/** The first number after another one that belongs to a group. */
function firstOf (after: number, group: number, groups: number): number {
  const next = after + 1
  return next + ((group - next) % groups + groups) % groups
}
