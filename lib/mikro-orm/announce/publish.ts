/** The way of committed changes to the groups. */
import { diagnostics } from '../../diagnostics.ts'
import { quote } from '../../protocol/encode.ts'
import { reportDrop, type Logger } from './drops.ts'
import type { Notification } from '../declare/notification.ts'

/** Where changes go to. */
export interface PublishTarget {
  /** Hands a message to a group. A promise rejects where the broker does not take it. */
  publish: (group: string, payload: string) => void | Promise<void>
  log: Logger
}

/** How many messages wait for the broker at a time. */
const PORTION = 128

/**
 * Publishes notifications in order, and tells of those that are not sent. Never throws or rejects.
 *
 * @param failed told of each group whose message the broker does not take, and why
 * @returns a promise where a portion has to wait for the one before it: it resolves when the last portion is handed over
 */
export function publishNotifications (notifications: readonly Notification[], target: PublishTarget, failed: (group: string, err: unknown) => void, from = 0): void | Promise<void> {
  const waiting: Array<Promise<void>> = []
  for (let at = from; at < notifications.length; at++) {
    if (waiting.length === PORTION) return Promise.all(waiting).then(() => publishNotifications(notifications, target, failed, at))
    const publishing = send(notifications[at] as Notification, target, failed)
    if (publishing !== undefined) waiting.push(publishing)
  }
}

function send (notification: Notification, { publish, log }: PublishTarget, failed: (group: string, err: unknown) => void): void | Promise<void> {
  const { entity, group, type, object, drop } = notification
  if (drop !== undefined) return reportDrop(log, { ...drop, entity, type })

  const fail = (err: unknown) => {
    reportDrop(log, { reason: 'failed', entity, type, group, error: err })
    failed(group, err)
  }
  const id = Math.floor(Math.random() * 2 ** 31)
  const payload = `{"id":${id},"type":"subscription-update","data":{"group":${quote(group)},"type":"${type}","object":${object}}}`
  let publishing: void | Promise<void>
  try {
    publishing = publish(group, payload)
  } catch (err) {
    return fail(err)
  }
  if (diagnostics.notify.hasSubscribers) diagnostics.notify.publish({ entity, type, group, size: Buffer.byteLength(payload) })
  return publishing?.catch(fail)
}
