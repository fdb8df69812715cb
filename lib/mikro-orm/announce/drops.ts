/**
 * Dropped changes: changes that are not published, and why. They go to the diagnostics channel `rohrpost:drop`, and to
 * the application's logger at level debug.
 */
import { truncate, truncateError } from '../../util/truncate.ts'
import { diagnostics, type ChangeDropEvent, type ChangeDropReason } from '../../diagnostics.ts'
import { isMessage, type SentMessage } from '../capture/change-log.ts'
import type { ReportError } from '../declare/compiled-rule.ts'
import type { Notification } from '../declare/notification.ts'
import type { NotifyRule } from '../declare/rules.ts'
import { NotLoadedError } from '../row.ts'

/** Logger of the application, such as that of Fastify. */
export interface Logger {
  readonly level?: string | undefined
  error (context: object, message: string): void
  warn (context: object, message: string): void
  debug? (context: object, message: string): void
}

const REASONS: Readonly<Record<ChangeDropReason, string>> = {
  kind: 'its rule is for changes of another kind',
  unchanged: "'alwaysSend' is false, and none of the sent properties changed",
  no_group: 'the row is in no group',
  short_lived: 'the row was created and deleted in one transaction',
  rolled_back: 'it was rolled back',
  unknown: 'the answer to its COMMIT was lost, so it may be rolled back',
  missing: 'the row is not there',
  not_loaded: 'a property is not loaded',
  failed: 'an error occurred'
}

/**
 * Whether drops are observed, by a subscriber of the channel or by a logger at level debug: only then are they
 * collected.
 */
export function areDropsObserved (logger: Logger | undefined): boolean {
  return diagnostics.drop.hasSubscribers || isDebugging(logger)
}

/** Reports a dropped change. */
export function reportDrop (logger: Logger | undefined, event: ChangeDropEvent): void {
  if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish(event)
  if (!isDebugging(logger)) return
  const { error, ...context } = cutFields(event)
  const fields = error === undefined ? context : { ...context, err: error }
  logger?.debug?.(fields, `a change is not sent: ${REASONS[event.reason]}`)
}

/** Logs the error because of which a change is dropped, and reports the drop. */
export function reportFailure (
  logger: Logger | undefined,
  err: unknown,
  change: Omit<ChangeDropEvent, 'reason' | 'error'>
): void {
  logger?.error({ err: truncateError(err), ...cutFields(change) }, 'a change is not announced')
  reportDrop(logger, { reason: 'failed', ...change, error: err })
}

/** Reports the notifications of a transaction that is rolled back, or whose outcome is unknown, as drops. */
export function reportUndone (
  logger: Logger | undefined,
  reason: 'rolled_back' | 'unknown',
  outgoing: ReadonlyArray<Notification | SentMessage>
): void {
  for (const one of outgoing) {
    if (isMessage(one) || one.drop !== undefined) continue
    const { entity, type, group } = one
    reportDrop(logger, { reason, entity, type, group })
  }
}

/** Wraps a logger so that it never throws: a log line that cannot be written must not fail a flush. */
export function makeSafeLogger (logger: Logger): Logger {
  const callSafely = (write: () => void) => {
    try {
      write()
    } catch {
      // a logger that throws cannot log its own error
    }
  }
  return {
    get level () {
      return logger.level
    },
    error: (context, message) => callSafely(() => logger.error(context, message)),
    warn: (context, message) => callSafely(() => logger.warn(context, message)),
    debug: (context, message) => callSafely(() => logger.debug?.(context, message))
  }
}

/** Makes the function to which rules report errors. A property that is not loaded gives one warning for each rule. */
export function makeErrorReporter (logger: Logger): ReportError {
  const warned = new WeakSet<NotifyRule>()

  return (err, row, rule) => {
    const change = { entity: row.meta.className, key: row.key }
    if (!(err instanceof NotLoadedError)) return reportFailure(logger, err, change)

    reportDrop(logger, { reason: 'not_loaded', ...change, error: err })
    if (warned.has(rule)) return
    warned.add(rule)
    const problem = `a change is not announced: '${err.property}' is not loaded`
    const remedy = "name it in 'populate' of the rule or load it before the flush"
    logger.warn({ property: err.property, ...cutFields(change) }, `${problem}, ${remedy}`)
  }
}

/** Cuts the texts in a log line, because applications may let clients choose keys and groups. */
function cutFields<Fields extends Omit<ChangeDropEvent, 'reason'>> (fields: Fields): Fields {
  const { key, group, error } = fields
  return {
    ...fields,
    ...(key !== undefined && { key: truncate(key) }),
    ...(group !== undefined && { group: truncate(group) }),
    ...(error !== undefined && { error: truncateError(error) })
  }
}

function isDebugging (logger: Logger | undefined): boolean {
  return logger?.level === 'debug' || logger?.level === 'trace'
}
