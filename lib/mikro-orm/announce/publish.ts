/** Publishes the notifications of a committed transaction. */
import { diagnostics } from '../../diagnostics.ts'
import { quote } from '../../protocol/encode.ts'
import type { PublishOptions } from '../../protocol/stamp.ts'
import type { CommitStamp } from '../capture/commit-stamps.ts'
import { reportDrop, type Logger } from './drops.ts'
import type { Notification } from '../declare/notification.ts'

/** Destination of the notifications of an ORM. */
export interface PublishTarget {
  /** Publishes a message to a group. The promise rejects if the broker refuses the message. */
  publish: (group: string, payload: string, options?: PublishOptions) => void | Promise<void>
  /** Whether the broker uses stamps. @defaultValue false */
  usesStamps?: boolean
  log: Logger
}

/** Messages that wait for the broker at a time. */
const PORTION = 128

/**
 * Publishes notifications in order, and reports those that are not sent. Never throws or rejects.
 *
 * @param stamp the place of the transaction among the commits of its database
 * @param failed called with each group whose message the broker refuses
 * @returns a promise if a portion has to wait for the previous one: it resolves when the last portion is handed over
 */
export function publishNotifications (
  notifications: readonly Notification[],
  target: PublishTarget,
  stamp: CommitStamp | undefined,
  failed: (group: string, err: unknown) => void,
  from = 0
): void | Promise<void> {
  const waiting: Array<Promise<void>> = []
  for (let at = from; at < notifications.length; at++) {
    if (waiting.length === PORTION) {
      return Promise.all(waiting).then(() => publishNotifications(notifications, target, stamp, failed, at))
    }
    const publishing = send(notifications[at] as Notification, target, stamp, failed)
    if (publishing !== undefined) waiting.push(publishing)
  }
}

function send (
  notification: Notification,
  { publish, log }: PublishTarget,
  stamp: CommitStamp | undefined,
  failed: (group: string, err: unknown) => void
): void | Promise<void> {
  const { entity, group, type, object, key, part, drop } = notification
  if (drop !== undefined) return reportDrop(log, { ...drop, entity, type })

  const fail = (err: unknown) => {
    reportDrop(log, { reason: 'failed', entity, type, group, error: err })
    failed(group, err)
  }
  const id = Math.floor(Math.random() * 2 ** 31)
  const payload = `{"id":${id},"type":"subscription-update","data":{"group":${quote(group)},"type":"${type}","object":${object}}}`
  let publishing: void | Promise<void>
  try {
    publishing = publish(group, payload, stamp && { stamps: [{ key, part, clock: stamp.clock, value: stamp.value }] })
  } catch (err) {
    return fail(err)
  }
  if (diagnostics.notify.hasSubscribers) diagnostics.notify.publish({ entity, type, group, size: Buffer.byteLength(payload) })
  return publishing?.catch(fail)
}
