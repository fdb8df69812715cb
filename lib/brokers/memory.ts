/** The memory broker: groups within one process, synchronous from `publish` to the sockets. */
import { checkNames } from '../util/checks.ts'
import { errors } from '../errors.ts'
import type { Broker, Receiver } from './broker.ts'
import { GroupLog } from './group-log.ts'
import { checkHistory, type HistoryOptions } from './history.ts'

/** Options of `memoryBroker`. */
export interface MemoryBrokerOptions {
  /** History of each group, for clients that reconnect. @defaultValue none */
  history?: HistoryOptions
}

/**
 * Time after which the log of a group without subscribers is deleted, as a multiple of `ttl`. A new log of the group
 * has a new epoch, so older positions are refused.
 */
const LOG_LIFETIME = 10

/**
 * Creates the default broker. Groups live in this process and end with it.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function memoryBroker (options: MemoryBrokerOptions = {}): Broker {
  checkNames(options, ['history'])
  const history = checkHistory(options.history)
  return history === undefined ? withoutHistory() : withHistory(history)
}

/**
 * Limit of logs without subscribers and messages, so that a client which joins and leaves new groups again and again
 * fills no memory. The oldest logs are deleted; a former member of such a group must load again.
 */
const MAX_EMPTY_LOGS = 10_000

function withoutHistory (): Broker {
  const subscribed = new Set<string>()
  let receiver: Receiver | undefined

  return {
    open (to) {
      if (receiver !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('memory')
      receiver = to
    },
    publish (group, payload) {
      if (subscribed.has(group)) receiver?.deliver(group, payload)
    },
    subscribe (group) {
      subscribed.add(group)
    },
    unsubscribe (group) {
      subscribed.delete(group)
    },
    history: () => undefined,
    health: () => ({ ok: true }),
    close () {
      subscribed.clear()
    }
  }
}

function withHistory (options: HistoryOptions): Broker {
  /** Logs of the groups that have subscribers, or had some lately: no client has a position in another group. */
  const logs = new Map<string, GroupLog>()
  /** Groups of logs without subscribers and messages, in the order in which the last subscriber left. */
  const empty = new Set<string>()
  let receiver: Receiver | undefined
  let sweeping: NodeJS.Timeout | undefined

  const sweep = () => {
    const now = Date.now()
    for (const [group, log] of logs) {
      log.expire(now)
      if (log.leftAt !== undefined && now - log.leftAt >= LOG_LIFETIME * options.ttl) forget(group)
    }
  }
  const forget = (group: string) => {
    logs.delete(group)
    empty.delete(group)
  }

  return {
    keepsHistory: true,
    open (to) {
      if (receiver !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('memory')
      receiver = to
      sweeping = setInterval(sweep, options.ttl).unref()
    },
    publish (group, payload) {
      const log = logs.get(group)
      if (log === undefined) return
      empty.delete(group)
      const position = log.append(payload, Date.now())
      if (log.leftAt === undefined) receiver?.deliver(group, payload, position)
    },
    subscribe (group) {
      let log = logs.get(group)
      if (log === undefined) logs.set(group, log = new GroupLog(options))
      log.leftAt = undefined
      empty.delete(group)
      return log.top
    },
    unsubscribe (group) {
      const log = logs.get(group)
      if (log === undefined) return
      log.leftAt = Date.now()
      if (log.top.offset > 0) return
      empty.add(group)
      for (const oldest of empty) {
        if (empty.size <= MAX_EMPTY_LOGS) break
        forget(oldest)
      }
    },
    history: (group, after, limit, bytes = Infinity) => logs.get(group)?.after(after, limit, bytes, Date.now()),
    health: () => ({ ok: true }),
    close () {
      clearInterval(sweeping)
      logs.clear()
      empty.clear()
    }
  }
}
