/** Logging of what foreign code threw. */
import type { FastifyBaseLogger } from 'fastify'
import { show } from '../errors.ts'

/** Logs anything that was thrown, also an error whose own getters throw when the logger reads them. Never throws. */
export function report (log: FastifyBaseLogger, level: 'info' | 'warn' | 'error', err: unknown, fields: object, message: string): void {
  try {
    log[level]({ ...fields, err }, message)
  } catch {
    log[level]({ ...fields, err: { message: show(err) } }, message)
  }
}
