/** Why a change is not sent, told to those who want to know: the log at level debug, and the channel `rohrpost:drop`. */
import { diagnostics, type ChangeDropEvent, type ChangeDropReason } from '../diagnostics.ts'

/** Where it is logged; a Fastify logger is one. */
export interface DebugLog {
  readonly level?: string
  debug? (context: object, message: string): void
}

const IN_WORDS: Readonly<Record<ChangeDropReason, string>> = {
  kind: 'its rule is for changes of another kind',
  unchanged: "'alwaysSend' is false, and none of the sent properties changed",
  no_group: 'the row is in no group',
  short_lived: 'the row began and ended in one transaction',
  rolled_back: 'it was rolled back',
  not_loaded: 'a property is not loaded',
  failed: 'something failed'
}

/** Whether anybody wants to know. */
export function isWatched (log: DebugLog | undefined): boolean {
  return diagnostics.drop.hasSubscribers || isDebugging(log)
}

/** Tells why a change is not sent. */
export function tellDrop (log: DebugLog | undefined, event: ChangeDropEvent): void {
  if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish(event)
  if (!isDebugging(log)) return
  const { error, ...context } = event
  log?.debug?.(error === undefined ? context : { ...context, err: error }, `a change is not sent: ${IN_WORDS[event.reason]}`)
}

function isDebugging (log: DebugLog | undefined): boolean {
  return log?.level === 'debug' || log?.level === 'trace'
}
