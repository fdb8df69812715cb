/** Encodes the notifications of a transaction as messages, and publishes them. */
import type { TransactionLog } from '../../brokers/transaction-log.ts'
import { diagnostics } from '../../diagnostics.ts'
import { encodeBatch } from '../../protocol/batch.ts'
import { encodeResync } from '../../protocol/resync.ts'
import type { PublishOptions } from '../../protocol/stamp.ts'
import { truncate, truncateError } from '../../util/truncate.ts'
import { isMessage, type SentMessage } from '../capture/change-log.ts'
import type { CommitStamp } from '../capture/commit-stamps.ts'
import type { Outbox } from '../outbox/outbox.ts'
import { reportDrop, type Logger } from './drops.ts'
import type { Notification } from '../declare/notification.ts'

/** Destination of the notifications of an ORM. */
export interface PublishTarget {
  /** Publishes a message to a group. The promise rejects if the broker refuses the message. */
  publish: (group: string, payload: string, options?: PublishOptions) => void | Promise<void>
  /** Whether the broker uses stamps. @defaultValue false */
  usesStamps?: boolean
  /** The log of the broker, if transactions of the ORM can write to it. They do so in place of `publish`. */
  transactionLog?: TransactionLog | undefined
  /** The outbox, in which messages are stored before they are published. */
  outbox?: Outbox | undefined
  log: Logger
}

/** A message to a group. */
export interface EncodedMessage extends SentMessage {
  /** The notifications in it; none in a message of `sendToGroup`. */
  readonly notifications: readonly Notification[]
}

/** Messages that wait for the broker at a time. */
const PORTION = 128

/**
 * Encodes notifications, in order with the messages between them. Notifications of one group become one message, in the
 * place of the first of them, unless a message to the group is between them.
 */
export function encodeMessages (outgoing: ReadonlyArray<Notification | SentMessage>): EncodedMessage[] {
  const parts: Array<SentMessage | Notification[]> = []
  const open = new Map<string, Notification[]>()
  for (const one of outgoing) {
    if (isMessage(one)) {
      open.delete(one.group)
      parts.push(one)
    } else if (one.drop === undefined) {
      const batch = open.get(one.group)
      if (batch === undefined) {
        const started = [one]
        open.set(one.group, started)
        parts.push(started)
      } else batch.push(one)
    }
  }
  return parts.flatMap((part) => Array.isArray(part) ? encode(part) : [{ ...part, notifications: [] }])
}

/** Encodes notifications of one group as one message, or as several if it would be too large. */
function encode (notifications: readonly Notification[]): EncodedMessage[] {
  const group = String(notifications[0]?.group)
  return encodeBatch(group, notifications).map(({ text, changes }) => {
    return { group, payload: text, notifications: changes }
  })
}

/**
 * Encodes the messages that a transaction inserts. If the notifications may miss a group, the members of all groups
 * load again.
 */
export function encodeInserted (
  outgoing: ReadonlyArray<Notification | SentMessage>,
  isUncertain: boolean
): EncodedMessage[] {
  const groups = isUncertain ? [...groupsOf(outgoing)] : []
  const resyncs = groups.map((group) => ({ group, payload: encodeResync(group), notifications: [] }))
  return [...encodeMessages(outgoing), ...resyncs]
}

/** Reports the changes that are not sent. */
export function reportDrops (outgoing: ReadonlyArray<Notification | SentMessage>, log: Logger): void {
  for (const one of outgoing) {
    if (!isMessage(one) && one.drop !== undefined) reportDrop(log, { ...one.drop, entity: one.entity, type: one.type })
  }
}

/** Reports the notifications of a message that the broker or the log has taken. */
export function reportSent ({ payload, notifications }: EncodedMessage): void {
  if (!diagnostics.notify.hasSubscribers) return
  for (const { entity, type, group, object } of notifications) {
    const size = Buffer.byteLength(notifications.length === 1 ? payload : object)
    diagnostics.notify.publish({ entity, type, group, size })
  }
}

/**
 * Publishes messages in order, and reports those that are not sent. Never throws or rejects.
 *
 * @param stamp the place of the transaction among the commits of its database
 * @param failed called with each group for which the broker refuses a notification
 * @returns a promise if a portion has to wait for the previous one: it resolves when the last portion is handed over
 */
export function publishMessages (
  messages: readonly EncodedMessage[],
  target: PublishTarget,
  stamp: CommitStamp | undefined,
  failed: (group: string, err: unknown) => void
): void | Promise<void> {
  return publishInPortions(messages, (message) => publish(message, target, stamp, failed))
}

/**
 * Calls `publish` for each message, in order. Its promises must not reject.
 *
 * @returns a promise if a portion has to wait for the previous one: it resolves when the last portion is handed over
 */
export function publishInPortions (
  messages: readonly EncodedMessage[],
  publish: (message: EncodedMessage, index: number) => void | Promise<void>,
  from = 0
): void | Promise<void> {
  const waiting: Array<Promise<void>> = []
  for (let at = from; at < messages.length; at++) {
    if (waiting.length === PORTION) return Promise.all(waiting).then(() => publishInPortions(messages, publish, at))
    const publishing = publish(messages[at] as EncodedMessage, at)
    if (publishing !== undefined) waiting.push(publishing)
  }
}

function publish (
  message: EncodedMessage,
  { publish, log }: PublishTarget,
  stamp: CommitStamp | undefined,
  failed: (group: string, err: unknown) => void
): void | Promise<void> {
  const { group, payload, notifications } = message
  const fail = (err: unknown) => {
    for (const { entity, type } of notifications) reportDrop(log, { reason: 'failed', entity, type, group, error: err })
    if (notifications.length > 0) failed(group, err)
    else log.error({ err: truncateError(err), group: truncate(group) }, 'a message to a group was not sent')
  }
  const options = stamp === undefined || notifications.length === 0
    ? undefined
    : { stamps: notifications.map(({ key, part }) => ({ key, part, clock: stamp.clock, value: stamp.value })) }
  let publishing: void | Promise<void>
  try {
    publishing = publish(group, payload, options)
  } catch (err) {
    return fail(err)
  }
  reportSent(message)
  return publishing?.catch(fail)
}

/** The groups to which notifications are sent. */
export function groupsOf (outgoing: ReadonlyArray<Notification | SentMessage>): Set<string> {
  return new Set(outgoing.flatMap((one) => isMessage(one) || one.drop !== undefined ? [] : [one.group]))
}
