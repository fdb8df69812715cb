/** Groups within one process, synchronous from `publish` to the sockets. */
import { checkNames } from '../util/checks.ts'
import { errors } from '../errors.ts'
import type { Broker, Receiver } from './broker.ts'
import { GroupLog } from './group-log.ts'
import { checkHistory, type HistoryOptions } from './history.ts'

/** Options of `memoryBroker`. */
export interface MemoryBrokerOptions {
  /** How much is kept of each group, so that clients that were away for a moment miss nothing. @defaultValue none */
  history?: HistoryOptions
}

/** For how many times `ttl` a group is remembered that nobody is in any more. After that its positions are worth nothing: its epoch is another. */
const REMEMBERED = 10

/**
 * Makes the default broker: groups live in this process and end with it.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function memoryBroker (options: MemoryBrokerOptions = {}): Broker {
  checkNames(options, ['history'])
  const history = checkHistory(options.history)
  return history === undefined ? withoutHistory() : withHistory(history)
}

/**
 * How many groups are remembered that nobody is in and nothing was published in. Whoever enters and leaves ever new groups makes the oldest of them
 * forgotten; a client that was in one of these is told to load again.
 */
const QUIET = 10_000

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
  /** Of each group that somebody is in, or was in lately: of no other has anybody a position. */
  const logs = new Map<string, GroupLog>()
  /** Those of them that are left and have no messages, the one that was left first at the beginning. */
  const quiet = new Set<string>()
  let receiver: Receiver | undefined
  let sweeping: NodeJS.Timeout | undefined

  const sweep = () => {
    const now = Date.now()
    for (const [group, log] of logs) {
      log.expire(now)
      if (log.leftAt !== undefined && now - log.leftAt >= REMEMBERED * options.ttl) forget(group)
    }
  }
  const forget = (group: string) => {
    logs.delete(group)
    quiet.delete(group)
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
      quiet.delete(group)
      const position = log.append(payload, Date.now())
      if (log.leftAt === undefined) receiver?.deliver(group, payload, position)
    },
    subscribe (group) {
      let log = logs.get(group)
      if (log === undefined) logs.set(group, log = new GroupLog(options))
      log.leftAt = undefined
      quiet.delete(group)
      return log.top
    },
    unsubscribe (group) {
      const log = logs.get(group)
      if (log === undefined) return
      log.leftAt = Date.now()
      if (log.top.offset > 0) return
      quiet.add(group)
      for (const oldest of quiet) {
        if (quiet.size <= QUIET) break
        forget(oldest)
      }
    },
    history: (group, after, limit, bytes = Infinity) => logs.get(group)?.after(after, limit, bytes, Date.now()),
    health: () => ({ ok: true }),
    close () {
      clearInterval(sweeping)
      logs.clear()
      quiet.clear()
    }
  }
}
