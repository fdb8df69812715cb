/**
 * Log lines about clients and about errors of application code. Long texts in them are truncated, because a client may
 * have chosen them.
 */
import type { FastifyBaseLogger } from 'fastify'
import { show } from '../errors.ts'
import { truncate, truncateError } from '../util/truncate.ts'

type Level = 'debug' | 'info' | 'warn' | 'error'

/** Log fields that identify a request. */
export function requestFields ({ type, id }: { type: string, id: unknown }): { type: string, id: unknown } {
  return { type, id }
}

/** Writes a log line and truncates the texts of its fields. */
export function logTruncated (log: FastifyBaseLogger, level: Level, fields: object, message: string): void {
  log[level](Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, truncate(value)])), message)
}

/**
 * Logs any thrown value under `err`, with the texts of error and fields truncated. Never throws, even if the logger
 * fails to read the error.
 */
export function report (log: FastifyBaseLogger, level: Level, err: unknown, fields: object, message: string): void {
  try {
    logTruncated(log, level, { ...fields, err: truncateError(err) }, message)
  } catch {
    logTruncated(log, level, { ...fields, err: { message: show(err) } }, message)
  }
}
