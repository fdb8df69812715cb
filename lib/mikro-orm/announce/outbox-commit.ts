/** Commits a transaction together with its messages, which are rows of the outbox, and publishes them after it. */
import type { EntityManager, Transaction } from '@mikro-orm/core'
import { Outcome, prepareCommit, type CommitResult } from '../capture/commit.ts'
import type { CommitOrder } from '../capture/commit-order.ts'
import type { CommitStamps } from '../capture/commit-stamps.ts'
import type { Outbox } from '../outbox/outbox.ts'
import type { Announcement } from './announcement.ts'
import { areDropsObserved, type Logger } from './drops.ts'
import { encodeInserted, publishInPortions, reportDrops, reportSent } from './publish.ts'

/** Arguments of `commitWithOutbox`. */
interface OutboxCommit {
  readonly em: EntityManager
  readonly transaction: Transaction
  readonly announcement: Announcement
  readonly outbox: Outbox
  readonly stamps: CommitStamps
  readonly order: CommitOrder
  readonly log: Logger
  /** Sends the COMMIT. */
  commit (): Promise<void>
}

/**
 * Inserts the messages of a transaction, commits it, and publishes them in the order of the commits. If the answer to
 * the COMMIT is lost, or a later transaction has published first, the row is published from the outbox, if it is there.
 *
 * Rejects if a statement before the COMMIT fails.
 */
export async function commitWithOutbox (
  { em, transaction, announcement, outbox, stamps, order, log, commit }: OutboxCommit
): Promise<CommitResult> {
  const outgoing = announcement.notifications(areDropsObserved(log))
  const messages = encodeInserted(outgoing, announcement.isUncertain)
  // in an aborted transaction the INSERT fails as well
  const query = await stamps.query(em, transaction).catch(() => undefined)
  const stored = messages.length === 0 ? undefined : outbox.store(messages, query)

  const send = await prepareCommit(em, transaction, stamps, commit, { rows: stored?.rows })
  // the transaction holds the locks of its rows, so a later writer of a row takes a later turn
  const turn = order.enter(announcement.ids)
  const result = await send()
  turn.end(() => {
    if (result.outcome !== Outcome.Committed) return
    reportDrops(outgoing, log)
    if (stored === undefined || turn.isOvertaken) return
    const publish = stored.begin(result.stamp)
    return publishInPortions(messages, (message, index) => {
      reportSent(message)
      return publish(index)
    })
  })
  return result
}
