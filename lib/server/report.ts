/** Logging of what foreign code threw. */
import type { FastifyBaseLogger } from 'fastify'
import { show } from '../errors.ts'

/** How much of an id stands in the log: a client chooses it, and may choose one as large as a message. */
const MAX_ID = 80

/** A request as the log names it. */
export function named ({ type, id }: { type: string, id: unknown }): { type: string, id: unknown } {
  return { type, id: typeof id === 'string' && id.length > MAX_ID ? `${id.slice(0, MAX_ID - 1)}…` : id }
}

/** Logs anything that was thrown, also an error whose own getters throw when the logger reads them. Never throws. */
export function report (log: FastifyBaseLogger, level: 'info' | 'warn' | 'error', err: unknown, fields: object, message: string): void {
  try {
    log[level]({ ...fields, err }, message)
  } catch {
    log[level]({ ...fields, err: { message: show(err) } }, message)
  }
}
