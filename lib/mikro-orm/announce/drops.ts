/** Why a change is not sent, told to those who want to know: the log at level debug, and the channel `rohrpost:drop`. */
import { cut, cutError } from '../../util/cut.ts'
import { diagnostics, type ChangeDropEvent, type ChangeDropReason } from '../../diagnostics.ts'
import type { Notification, ReportError } from '../declare/compiled-rule.ts'
import { NotLoadedError } from '../row.ts'
import type { NotifyRule } from '../declare/rules.ts'

/** Where it is logged; a Fastify logger is one. */
export interface Log {
  readonly level?: string | undefined
  error (context: object, message: string): void
  warn (context: object, message: string): void
  debug? (context: object, message: string): void
}

const IN_WORDS: Readonly<Record<ChangeDropReason, string>> = {
  kind: 'its rule is for changes of another kind',
  unchanged: "'alwaysSend' is false, and none of the sent properties changed",
  no_group: 'the row is in no group',
  short_lived: 'the row began and ended in one transaction',
  rolled_back: 'it was rolled back',
  unknown: 'the answer to its COMMIT was lost, so nobody knows whether it was committed',
  missing: 'the row is not there',
  not_loaded: 'a property is not loaded',
  failed: 'something failed'
}

/** Whether anybody wants to know. */
export function areDropsObserved (log: Log | undefined): boolean {
  return diagnostics.drop.hasSubscribers || isDebugging(log)
}

/** Tells why a change is not sent. */
export function tellDrop (log: Log | undefined, event: ChangeDropEvent): void {
  if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish(event)
  if (!isDebugging(log)) return
  const { error, ...context } = cutFields(event)
  log?.debug?.(error === undefined ? context : { ...context, err: error }, `a change is not sent: ${IN_WORDS[event.reason]}`)
}

/** Tells of an error that keeps a change from being sent. */
export function tellFailure (log: Log | undefined, err: unknown, change: Omit<ChangeDropEvent, 'reason' | 'error'>): void {
  log?.error({ err: cutError(err), ...cutFields(change) }, 'a change is not announced')
  tellDrop(log, { reason: 'failed', ...change, error: err })
}

/** Tells what of a transaction is not sent, as it was not committed or nobody knows that it was. */
export function tellUndone (log: Log | undefined, reason: 'rolled_back' | 'unknown', notifications: readonly Notification[]): void {
  for (const { entity, type, group, drop } of notifications) {
    if (drop === undefined) tellDrop(log, { reason, entity, type, group })
  }
}

/** A log that never throws: a flush must not fail because a line could not be written. */
export function makeSafe (log: Log): Log {
  const call = (write: () => void) => {
    try {
      write()
    } catch {
      // a logger that fails has nowhere to say so
    }
  }
  return {
    get level () {
      return log.level
    },
    error: (context, message) => call(() => log.error(context, message)),
    warn: (context, message) => call(() => log.warn(context, message)),
    debug: (context, message) => call(() => log.debug?.(context, message))
  }
}

/** Reports failures with entity and key; what is not loaded once for each rule. */
export function makeReport (log: Log): ReportError {
  const warned = new WeakSet<NotifyRule>()

  return (err, row, rule) => {
    const change = { entity: row.meta.className, key: row.key }
    if (!(err instanceof NotLoadedError)) return tellFailure(log, err, change)

    tellDrop(log, { reason: 'not_loaded', ...change, error: err })
    if (warned.has(rule)) return
    warned.add(rule)
    log.warn({ property: err.property, ...cutFields(change) }, `a change is not announced: '${err.property}' is not loaded, name it in 'populate' of the rule or load it before the flush`)
  }
}

/** The fields of a change for the log: an app may let clients choose keys and groups. */
function cutFields<Fields extends Omit<ChangeDropEvent, 'reason'>> (change: Fields): Fields {
  const { key, group, error } = change
  return { ...change, ...(key !== undefined && { key: cut(key) }), ...(group !== undefined && { group: cut(group) }), ...(error !== undefined && { error: cutError(error) }) }
}

function isDebugging (log: Log | undefined): boolean {
  return log?.level === 'debug' || log?.level === 'trace'
}
