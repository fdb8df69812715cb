/** How much history a broker keeps: the option that all of them share. */
import { errors, show } from '../errors.ts'

/** What is kept of each group, for clients that were away for a moment. */
export interface HistoryOptions {
  /** Messages of one group. */
  size: number
  /** Age of a message, in milliseconds. */
  ttl: number
}

/** The longest delay that a timer of Node.js takes. */
const MAX_TTL = 2 ** 31 - 1

/** Checks the option `history`; without it no history is kept. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function checkHistory (given: unknown): HistoryOptions | undefined {
  if (given === undefined) return undefined
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new errors.RP_ERR_INVALID_OPTION('history', 'an object { size, ttl }', show(given))
  }

  const { size, ttl, ...unknown } = given as Partial<HistoryOptions>
  const [name] = Object.keys(unknown)
  if (name !== undefined) throw new errors.RP_ERR_UNKNOWN_OPTION(`history.${name}`, 'history.size, history.ttl')
  if (!isCount(size)) throw new errors.RP_ERR_INVALID_OPTION('history.size', 'a whole number of messages from 1', show(size))
  if (!isCount(ttl) || ttl > MAX_TTL) {
    throw new errors.RP_ERR_INVALID_OPTION('history.ttl', `a whole number of milliseconds from 1 to ${MAX_TTL}`, show(ttl))
  }
  return { size, ttl }
}

function isCount (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0
}
