/** Lines of the log about clients and about errors of foreign code. */
import type { FastifyBaseLogger } from 'fastify'
import { cut, cutError } from '../util/cut.ts'
import { show } from '../errors.ts'

type Level = 'debug' | 'info' | 'warn' | 'error'

/** A request as the log names it. */
export function named ({ type, id }: { type: string, id: unknown }): { type: string, id: unknown } {
  return { type, id }
}

/** Writes a line whose fields a client may have chosen: long texts are cut. */
export function note (log: FastifyBaseLogger, level: Level, fields: object, message: string): void {
  log[level](Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, cut(value)])), message)
}

/** Logs anything that was thrown; the texts in it, and those of the fields, are cut. Never throws, also if the logger can't read the error. */
export function report (log: FastifyBaseLogger, level: Level, err: unknown, fields: object, message: string): void {
  try {
    note(log, level, { ...fields, err: cutError(err) }, message)
  } catch {
    note(log, level, { ...fields, err: { message: show(err) } }, message)
  }
}
