/** Commits a transaction together with its messages, which are rows in the log of the broker. */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import type { TransactionLog } from '../../brokers/transaction-log.ts'
import { diagnostics } from '../../diagnostics.ts'
import { Outcome, prepareCommit, type CommitResult } from '../capture/commit.ts'
import type { CommitStamps } from '../capture/commit-stamps.ts'
import type { Announcement } from './announcement.ts'
import { areDropsObserved, type Logger } from './drops.ts'
import { encodeInserted, reportDrops, reportSent } from './publish.ts'

/** Arguments of `commitWithMessages`. */
interface LogCommit {
  readonly em: EntityManager
  readonly transaction: Transaction
  readonly announcement: Announcement
  readonly transactionLog: TransactionLog
  readonly stamps: CommitStamps
  readonly log: Logger
  /** Sends the COMMIT. */
  commit (): Promise<void>
}

/**
 * Inserts the messages of a transaction, with ids that it draws while it holds the locks of its rows, and commits it.
 * If the answer to the COMMIT is lost, readers of the log find out whether there are messages.
 *
 * Rejects if a statement before the COMMIT fails.
 */
export async function commitWithMessages (
  { em, transaction, announcement, transactionLog, stamps, log, commit }: LogCommit
): Promise<CommitResult> {
  const outgoing = announcement.notifications(areDropsObserved(log))
  const messages = encodeInserted(outgoing, announcement.isUncertain)
  const rows = messages.length === 0 ? undefined : transactionLog.rowsOf(messages)

  const since = performance.now()
  const send = await prepareCommit(em, transaction, stamps, commit, { rows })
  const result = await send()
  if (result.outcome === Outcome.RolledBack) return result
  if (rows !== undefined) transactionLog.written()
  if (result.outcome === Outcome.Unknown) return result

  reportDrops(outgoing, log)
  for (const message of messages) reportSent(message)
  if (diagnostics.publish.hasSubscribers) {
    const duration = performance.now() - since
    for (const { group, payload } of messages) {
      diagnostics.publish.publish({ group, size: Buffer.byteLength(payload), duration, error: undefined })
    }
  }
  return result
}
