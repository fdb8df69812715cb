/** Announces transactions: reads their rows, sends their COMMIT, and publishes the notifications after it. */
import type { EntityManager, MikroORM, Transaction } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { databaseOf, isMySql } from '../../util/platforms.ts'
import { truncate, truncateError } from '../../util/truncate.ts'
import { Announcement, readAnnouncement } from './announcement.ts'
import {
  ChangeLog, ChangeOrigin, changesOf, type LogEntry, type RowChange, type SentMessage
} from '../capture/change-log.ts'
import { Outcome, prepareCommit, type CommitResult } from '../capture/commit.ts'
import { commitReadsOf, type CommitReads } from '../capture/commit-reads.ts'
import { CommitOrder } from '../capture/commit-order.ts'
import { CommitStamps, type CommitStamp } from '../capture/commit-stamps.ts'
import { CommittedRows } from '../capture/committed-rows.ts'
import { areDropsObserved, reportUndone } from './drops.ts'
import { commitWithMessages } from './log-commit.ts'
import { commitWithOutbox } from './outbox-commit.ts'
import { encodeMessages, groupsOf, publishMessages, reportDrops, type PublishTarget } from './publish.ts'
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
  async commit (
    em: EntityManager,
    transaction: Transaction,
    log: ChangeLog,
    commit: () => Promise<void>,
    ended: () => void
  ): Promise<void> {
    const reads = this.#commitReads(em, log)
    const announcement = reads === undefined ? await this.#read(em, transaction, log) : new Announcement(log.entries())
    const unknown = (err: unknown) => this.#resyncUnknown(announcement, err, em, reads)
    const { outcome, error } = await this.#commit(em, transaction, announcement, commit, unknown, reads)
    // a refused COMMIT may be repeated, or a ROLLBACK follows
    if (outcome !== Outcome.RolledBack) ended()
    if (outcome !== Outcome.Committed) throw error
    if (isMySql(databaseOf(em.getPlatform()))) this.#announceOwners(em, log)
  }

  /**
   * Announces the owners of changed M:N collections once more after the COMMIT, each with a lock of its row. Within the
   * transaction MySQL and MariaDB do not show the references that other transactions have committed since it began.
   */
  #announceOwners (em: EntityManager, log: ChangeLog): void {
    for (const entry of changesOf(log.entries())) {
      if (entry.origin !== ChangeOrigin.Collection) continue
      const owner = new ChangeLog()
      owner.append({ ...entry, before: entry.after, origin: ChangeOrigin.Upsert })
      this.#track(this.announce(em, owner).catch(() => {
        this.#resyncs.send(groupsOf(new Announcement(owner.entries()).notifications(false)))
      }))
    }
  }

  /** Checks that the log of the broker can store a message. @throws RP_ERR_NOT_PUBLISHED */
  check (message: SentMessage): void {
    const reason = this.#target.transactionLog?.refuse(message)
    if (reason !== undefined) throw new errors.RP_ERR_NOT_PUBLISHED(reason)
  }

  /**
   * Reads rows before a statement changes them, where their committed version can't be read at the COMMIT, or without a
   * transaction. Rejects if the query fails.
   */
  async readBefore (
    em: EntityManager,
    transaction: Transaction | undefined,
    { before }: ChangeLog,
    requested: readonly ReadBackRow[]
  ): Promise<void> {
    // without a transaction, rows that were read before an earlier statement are outdated
    const unread = requested.filter(({ id }) => transaction === undefined || !before.has(id))
    if (unread.length === 0 || (transaction !== undefined && this.#committed.isReadable(em))) return
    const rows = await readRows(em, transaction, unread)
    for (const { id } of unread) before.set(id, rows.get(id))
  }

  /**
   * Announces changes that are committed already, in a transaction of its own. It locks the rows, so that no newer
   * state is published first.
   */
  async announce (em: EntityManager, log: ChangeLog): Promise<void> {
    const connection = this.#orm.em.getConnection('write')
    const transaction = await connection.begin()
    try {
      const announcement = await this.#read(em, transaction, log)
      const commit = () => connection.commit(transaction)
      // the transaction wrote nothing: if its COMMIT fails, nothing is published
      const { outcome, error } = await this.#commit(em, transaction, announcement, commit, () => {})
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
  reportRolledBack (entries: readonly LogEntry[]): void {
    reportUndone(this.#target.log, 'rolled_back', new Announcement(entries).notifications(false))
  }

  /** Number of commits with portions of notifications that are not published yet. */
  get publishing (): number {
    return this.#publishing.size
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
    return readAnnouncement(log.entries(), {
      em,
      transaction,
      committed: this.#committed,
      read: log.before,
      log: this.#target.log
    })
  }

  /** Reads that can go with the COMMIT; `undefined` if the rows must be read before. */
  #commitReads (em: EntityManager, log: ChangeLog): CommitReads | undefined {
    const { transactionLog, outbox } = this.#target
    // messages in the log of the broker or in the outbox are inserted before the COMMIT
    if (transactionLog !== undefined || outbox !== undefined || !this.#committed.isReadable(em)) return
    return commitReadsOf(em, log.entries())
  }

  /**
   * Commits a transaction with its messages in the log of the broker, or publishes them in the order of the commits.
   */
  async #commit (
    em: EntityManager,
    transaction: Transaction,
    announcement: Announcement,
    commit: () => Promise<void>,
    unknown: (error: unknown) => void,
    reads?: CommitReads
  ): Promise<CommitResult> {
    const { transactionLog, outbox, log } = this.#target
    const shared = { em, transaction, announcement, stamps: this.#stamps, log, commit }
    const inserting = transactionLog !== undefined
      ? commitWithMessages({ ...shared, transactionLog })
      : outbox && commitWithOutbox({ ...shared, outbox, order: this.#order })
    if (inserting !== undefined) {
      const result = await inserting
      if (result.outcome === Outcome.Committed) this.#reportMissing(announcement)
      return result
    }
    const send = await prepareCommit(em, transaction, this.#stamps, commit, { queries: reads?.queries })
    // the transaction holds the locks of its rows, so a later writer of a row takes a later turn
    const turn = this.#order.enter(announcement.ids)
    const result = await send()
    turn.end(() => {
      if (result.outcome === Outcome.Committed) {
        const read = reads === undefined ? announcement : announcement.withRows(reads.rows(result.results))
        return this.#publish(read, result.stamp, turn.isOvertaken)
      }
      if (result.outcome === Outcome.Unknown) unknown(result.error)
    })
    return result
  }

  #publish (announcement: Announcement, stamp: CommitStamp | undefined, isOvertaken: boolean): void | Promise<void> {
    const { log } = this.#target
    const outgoing = announcement.notifications(areDropsObserved(log))
    this.#reportMissing(announcement)
    reportDrops(outgoing, log)
    const messages = encodeMessages(outgoing)
    // a later transaction has published a newer state of the rows
    const current = isOvertaken ? messages.filter(({ notifications }) => notifications.length === 0) : messages
    const done = publishMessages(current, this.#target, stamp, (group, err) => this.#resyncs.defer(group, err))
    if (isOvertaken || announcement.isUncertain) this.#resyncs.send(groupsOf(outgoing))
    if (done === undefined) return

    this.#track(done)
    return done
  }

  /** Lets `idle` wait for a promise that never rejects. */
  #track (publishing: Promise<void>): void {
    const tracked = publishing.then(() => { this.#publishing.delete(tracked) })
    this.#publishing.add(tracked)
  }

  #reportMissing ({ missing }: Announcement): void {
    for (const { meta, key } of missing) {
      const row = { entity: meta.className, key: truncate(key) }
      this.#target.log.warn(row, 'a change is not announced: the row is not there')
    }
  }

  #resyncUnknown (announcement: Announcement, err: unknown, em: EntityManager, reads: CommitReads | undefined): void {
    const { log } = this.#target
    const outgoing = announcement.notifications(false)
    const text = 'the answer to a COMMIT was lost: the members of the groups concerned load again'
    log.warn({ err: truncateError(err) }, text)
    reportUndone(log, 'unknown', outgoing)
    const told = groupsOf(outgoing)
    this.#resyncs.send(told)
    if (reads === undefined) return

    // the database may have put the rows into other groups than the ORM
    const reading = this.#committed.read(em, reads.requested).then((rows) => {
      const groups = groupsOf(announcement.withRows(rows).notifications(false))
      this.#resyncs.send([...groups].filter((group) => !told.has(group)))
    })
    // the warning says already that the answer was lost
    this.#track(reading.catch(() => {}))
  }
}
