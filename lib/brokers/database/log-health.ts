/** State of an open database broker, for health checks and metrics. */
import type { Outage } from '../../util/outage.ts'
import type { BrokerHealth } from '../broker.ts'
import type { GapPatience } from './id-gap.ts'
import type { LogReader } from './log-reader.ts'
import type { LogSession } from './log-session.ts'
import type { LogWriter } from './log-writer.ts'

/** Parts of a broker whose states make its health. */
export interface HealthSources {
  readonly name: string
  readonly reading: LogSession
  readonly writing: LogSession
  readonly reader: LogReader
  readonly writer: LogWriter
  readonly outages: Record<'publishing' | 'reading', Outage>
  readonly patience: GapPatience
  /** Milliseconds after which something that is late is stuck. */
  readonly late: number
}

/** Number of polls without a successful read after which the reader is stuck. */
const POLLS = 3

export function healthOf (sources: HealthSources): BrokerHealth {
  const { name, reading, writing, reader, writer, outages, patience, late } = sources
  const bad = (detail: string) => ({ ok: false, detail })
  const lost = [reading, writing].find(({ isReady }) => !isReady)
  if (lost !== undefined) return bad(`no connection to ${name}: ${lost.reason}`)
  const { publishing: { error: writeError }, reading: { error: readError } } = outages
  if (writeError !== undefined) return bad(`${name} refuses to write: ${writeError.message}`)
  if (readError !== undefined) return bad(`${name} refuses to read: ${readError.message}`)
  if (writer.age > late) return bad(`${name} has not answered for ${Math.round(writer.age)} ms`)
  const { silence } = reader.stats
  if (silence > POLLS * reader.pollInterval + late) {
    return bad(`the log has not been read for ${Math.round(silence)} ms`)
  }
  const { waiting } = reader
  if (waiting === undefined || waiting.age < patience.frozen) return { ok: true }
  const detail = `the log has been waiting for ${waiting.holders} for ${Math.round(waiting.age)} ms`
  return { ok: waiting.age < patience.usual + late, detail }
}
