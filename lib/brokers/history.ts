/** How much history a broker keeps: the option that all of them share. */
import { checkNames, isCount, isDelay, isObject, MAX_DELAY } from '../util/checks.ts'
import { errors, show } from '../errors.ts'

/** What is kept of each group, for clients that were away for a moment. */
export interface HistoryOptions {
  /** Messages of one group. */
  size: number
  /** Age of a message, in milliseconds. */
  ttl: number
}

/** Checks the option `history`; without it no history is kept. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function checkHistory (given: unknown): HistoryOptions | undefined {
  if (given === undefined) return undefined
  if (!isObject(given)) throw new errors.RP_ERR_INVALID_OPTION('history', 'an object { size, ttl }', show(given))

  checkNames(given, ['size', 'ttl'], 'history.')
  const { size, ttl } = given
  if (!isCount(size)) throw new errors.RP_ERR_INVALID_OPTION('history.size', 'a whole number of messages from 1', show(size))
  if (!isDelay(ttl)) throw new errors.RP_ERR_INVALID_OPTION('history.ttl', `a whole number of milliseconds from 1 to ${MAX_DELAY}`, show(ttl))
  return { size, ttl }
}
