/** The report as a table for people, and for docs/brokers.md. */
import type { Report } from './report.ts'

/** What is not promised, and so not counted, is `undefined`. */
const ROWS: [string, (report: Report) => number | undefined][] = [
  ['messages that the broker took', ({ published }) => published],
  ['messages that it could not take: the application was told', ({ failed }) => failed],
  ['messages of processes that were killed before they knew', ({ unknown }) => unknown],
  ['connections that clients lost', ({ lost }) => lost],
  ['clients that came back and got all they missed', ({ recovered }) => recovered],
  ['clients that came back and were told to load again', ({ refused }) => refused],
  ['clients that were told to load again while connected', ({ resync }) => resync],
  ['messages that clients heard', ({ heard }) => heard],
  ['messages that they did not hear', ({ missed }) => missed],
  ['… without being told to load again', ({ silent, tells }) => tells ? silent : undefined],
  ['messages heard twice', ({ repeated }) => repeated],
  ['messages heard out of order', ({ reordered }) => reordered],
  ['positions that name two messages, or leave one out', ({ ambiguous, gaps, tells }) => tells ? ambiguous + gaps : undefined],
  ['faults that `health()` or the log did not tell', ({ untold }) => untold],
  ['faults that filled the log', ({ noisy }) => noisy]
]

export function toTable (columns: Record<string, Report>): string {
  const names = Object.keys(columns)
  const lines = [`| | ${names.join(' | ')} |`, `| --- |${' ---: |'.repeat(names.length)}`]
  for (const [label, count] of ROWS) lines.push(`| ${label} | ${Object.values(columns).map((report) => count(report)?.toLocaleString('en') ?? 'not promised').join(' | ')} |`)
  return lines.join('\n')
}
