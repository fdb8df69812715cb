/** What came of it all: who heard what, and whether anybody missed something without being told. */
import type { Publisher } from './cluster.ts'
import type { Entry, Place, Witness } from './witness.ts'

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
  /** Faults: a message heard twice, or after a later one, or, with history, not at all by a client that was told nothing. */
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
export function examine (witnesses: readonly Witness[], publishers: readonly Publisher[], groups: number, tells: boolean): Report {
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
  const positions = new Map<string, string>()
  for (const witness of witnesses) {
    for (const name of ['lost', 'recovered', 'refused', 'resync'] as const) report[name] += witness.counts[name]
    follow(report, witness, publishers, groups, tells, positions)
  }
  return report
}

function follow (report: Report, { group, entries }: Witness, publishers: readonly Publisher[], groups: number, tells: boolean, positions: Map<string, string>): void {
  const fault = (kind: 'repeated' | 'reordered' | 'silent' | 'ambiguous' | 'gaps', text: string) => {
    report[kind]++
    if (report.examples.length < 10) report.examples.push(`${kind}: todo-${group}, ${text}`)
  }
  /** For each publisher the last number that was heard, and whether it was told since then that something is missing. */
  const last = publishers.map(() => ({ n: 0, isTold: false }))
  const seen = new Set<string>()
  /** Where the client is in the group's log. */
  let at: Place

  for (const [index, entry] of entries.entries()) {
    const { kind, position } = entry
    if (kind === 'heard') {
      report.heard++
      hear(entry, index)
    }

    const isNext = kind === 'heard' ? position?.offset === (at?.offset ?? 0) + 1 : position?.offset === at?.offset
    if ((kind === 'heard' || kind === 'recovered') && at !== undefined && (position?.epoch !== at.epoch || !isNext)) {
      fault('gaps', `${at.epoch} ${at.offset}, then ${position?.epoch} ${position?.offset} at ${index} (${kind})`)
    }
    at = position
    if (kind !== 'missed' || !tells) continue
    for (const each of last) each.isTold = true
    seen.clear()
  }

  function hear ({ publisher, n, position }: Entry & { kind: 'heard' }, index: number): void {
    const id = `${publisher}:${n}`
    const known = last[publisher]
    if (known === undefined) throw new RangeError(`who is publisher ${publisher}?`)

    if (seen.has(id)) fault('repeated', `${id} at ${index}`)
    else if (n <= known.n && !known.isTold) fault('reordered', `${id} after ${known.n} at ${index}`)
    seen.add(id)
    for (let between = firstOf(known.n, group, groups); between < n; between += groups) {
      if (!publishers[publisher]?.published.has(between)) continue
      report.missed++
      if (tells && !known.isTold) fault('silent', `${publisher}:${between} before ${id} at ${index}`)
    }
    last[publisher] = { n: Math.max(n, known.n), isTold: false }

    if (position === undefined) return
    const place = `${group} ${position.epoch} ${position.offset}`
    const other = positions.get(place)
    if (other !== undefined && other !== id) fault('ambiguous', `${other} and ${id} at ${position.epoch} ${position.offset}`)
    positions.set(place, id)
  }
}

/** The first number after another one that belongs to a group. */
function firstOf (after: number, group: number, groups: number): number {
  const next = after + 1
  return next + ((group - next) % groups + groups) % groups
}
