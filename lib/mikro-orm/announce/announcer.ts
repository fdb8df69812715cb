/** Announces transactions: reads their rows, sends their COMMIT, and publishes the notifications after it. */
import type { EntityManager, MikroORM, Transaction } from '@mikro-orm/core'
import { truncate, truncateError } from '../../util/truncate.ts'
import { Announcement, readAnnouncement } from './announcement.ts'
import type { ChangeLog, RowChange } from '../capture/change-log.ts'
import { Outcome, prepareCommit } from '../capture/commit.ts'
import { CommitOrder } from '../capture/commit-order.ts'
import { CommitStamps, type CommitStamp } from '../capture/commit-stamps.ts'
import { CommittedRows } from '../capture/committed-rows.ts'
import { areDropsObserved, reportUndone } from './drops.ts'
import { publishNotifications, type PublishTarget } from './publish.ts'
import { readRows, type ReadBackRow } from '../capture/read-back.ts'
import { Resyncs } from './resyncs.ts'

/** Timeout for reading the committed rows before a change, in milliseconds. */
const READ_TIMEOUT = 5000

/** Commits and announces the transactions of one ORM. */
export class Announcer {
  readonly #orm: MikroORM
  readonly #target: PublishTarget
  readonly #committed: CommittedRows
  readonly #order = new CommitOrder()
  readonly #stamps: CommitStamps
  readonly #resyncs: Resyncs
  /** Commits with portions of notifications that are not published yet. */
  readonly #publishing = new Set<Promise<void>>()

  constructor (orm: MikroORM, target: PublishTarget) {
    this.#orm = orm
    this.#target = target
    this.#committed = new CommittedRows(orm, READ_TIMEOUT)
    this.#stamps = new CommitStamps(target.usesStamps === true)
    this.#resyncs = new Resyncs(target)
  }

  /**
   * Reads the rows of a transaction, commits it and announces it. Rejects if a statement fails, and unless the
   * transaction is committed.
   *
   * @param commit sends the COMMIT
   * @param ended called when the transaction is over
   */
  async commit (em: EntityManager, transaction: Transaction, log: ChangeLog, commit: () => Promise<void>, ended: () => void): Promise<void> {
    const announcement = await this.#read(em, transaction, log)
    const send = await prepareCommit(em, transaction, this.#stamps, commit)
    // the transaction holds the locks of its rows, so a later writer of a row takes a later turn
    const turn = this.#order.enter(announcement.ids)
    const { outcome, stamp, error } = await send()

    // a refused COMMIT may be repeated, or a ROLLBACK follows
    if (outcome !== Outcome.RolledBack) ended()
    turn.end(() => {
      if (outcome === Outcome.Committed) return this.#publish(announcement, stamp, turn.isOvertaken)
      if (outcome === Outcome.Unknown) this.#resyncUnknown(announcement, error)
    })
    if (outcome !== Outcome.Committed) throw error
  }

  /**
   * Reads rows before a statement changes them, where their committed version can't be read at the COMMIT, or without a
   * transaction. Rejects if the query fails.
   */
  async readBefore (em: EntityManager, transaction: Transaction | undefined, { before }: ChangeLog, requested: readonly ReadBackRow[]): Promise<void> {
    // without a transaction, rows that were read before an earlier statement are outdated
    const unread = requested.filter(({ id }) => transaction === undefined || !before.has(id))
    if (unread.length === 0 || (transaction !== undefined && this.#committed.isReadable(em))) return
    const rows = await readRows(em, transaction, unread)
    for (const { id } of unread) before.set(id, rows.get(id))
  }

  /**
   * Announces changes that are committed already, in a transaction of its own. It locks the rows, so that no newer state
   * is published first.
   */
  async announce (em: EntityManager, log: ChangeLog): Promise<void> {
    const connection = this.#orm.em.getConnection('write')
    const transaction = await connection.begin()
    try {
      const announcement = await this.#read(em, transaction, log)
      const send = await prepareCommit(em, transaction, this.#stamps, () => connection.commit(transaction))
      const turn = this.#order.enter(announcement.ids)
      const { outcome, stamp, error } = await send()
      // the transaction wrote nothing: if its COMMIT fails, nothing is published
      turn.end(() => outcome === Outcome.Committed ? this.#publish(announcement, stamp, turn.isOvertaken) : undefined)
      if (outcome !== Outcome.Committed) throw error
    } catch (error) {
      await connection.rollback(transaction).catch(() => {})
      throw error
    }
  }

  /** Announces changes that were made without a transaction, with the values of the ORM. */
  announceUnread (entries: readonly RowChange[]): void {
    this.#publish(new Announcement(entries), undefined, false)
  }

  /** Reports the notifications that are not sent because of a rollback. */
  reportRolledBack (entries: readonly RowChange[]): void {
    reportUndone(this.#target.log, 'rolled_back', new Announcement(entries).notifications(false))
  }

  /** Resolves when the notifications of all commits are with the broker. */
  async idle (): Promise<void> {
    while (this.#publishing.size > 0) await Promise.all(this.#publishing)
  }

  /** Ends pending resyncs and closes the second connection. */
  async close (): Promise<void> {
    this.#resyncs.close()
    await this.#committed.close()
  }

  #read (em: EntityManager, transaction: Transaction, log: ChangeLog): Promise<Announcement> {
    return readAnnouncement(log.entries(), { em, transaction, committed: this.#committed, read: log.before, log: this.#target.log })
  }

  #publish (announcement: Announcement, stamp: CommitStamp | undefined, isOvertaken: boolean): void | Promise<void> {
    const { log } = this.#target
    const notifications = announcement.notifications(areDropsObserved(log))
    for (const { meta, key } of announcement.missing) log.warn({ entity: meta.className, key: truncate(key) }, 'a change is not announced: the row is not there')
    // a later transaction has published a newer state of the rows
    if (isOvertaken) return this.#resyncs.send(groupsOf(notifications))

    const done = publishNotifications(notifications, this.#target, stamp, (group, err) => this.#resyncs.defer(group, err))
    if (announcement.isUncertain) this.#resyncs.send(groupsOf(notifications))
    if (done === undefined) return

    this.#publishing.add(done)
    return done.then(() => { this.#publishing.delete(done) })
  }

  #resyncUnknown (announcement: Announcement, err: unknown): void {
    const { log } = this.#target
    const notifications = announcement.notifications(false)
    log.warn({ err: truncateError(err) }, 'the answer to a COMMIT was lost: the members of the groups concerned load again')
    reportUndone(log, 'unknown', notifications)
    this.#resyncs.send(groupsOf(notifications))
  }
}

function groupsOf (notifications: ReadonlyArray<{ group: string, drop?: unknown }>): Set<string> {
  return new Set(notifications.flatMap(({ group, drop }) => drop === undefined ? [group] : []))
}
