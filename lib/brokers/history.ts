/** The option `history` of brokers: the size and the age of the messages that a broker keeps. */
import { checkNames, isCount, isDelay, isObject, MAX_DELAY } from '../util/checks.ts'
import { errors, show } from '../errors.ts'

/** Messages that a broker keeps of each group, for clients that reconnect. */
export interface HistoryOptions {
  /** Number of messages of one group. */
  size: number
  /** Largest age of a message, in milliseconds. */
  ttl: number
}

/**
 * Checks the option `history`. Without it a broker keeps no history.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function checkHistory (given: unknown): HistoryOptions | undefined {
  if (given === undefined) return undefined
  if (!isObject(given)) throw new errors.RP_ERR_INVALID_OPTION('history', 'an object { size, ttl }', show(given))

  checkNames(given, ['size', 'ttl'], 'history.')
  const { size, ttl } = given
  if (!isCount(size)) {
    throw new errors.RP_ERR_INVALID_OPTION('history.size', 'a whole number of messages from 1', show(size))
  }
  if (!isDelay(ttl)) {
    const expected = `a whole number of milliseconds from 1 to ${MAX_DELAY}`
    throw new errors.RP_ERR_INVALID_OPTION('history.ttl', expected, show(ttl))
  }
  return { size, ttl }
}
