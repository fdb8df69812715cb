/** The way of committed changes to the groups. */
import { diagnostics } from '../diagnostics.ts'
import { quote } from '../protocol/encode.ts'
import { tellDrop, tellFailure, type Log } from './drops.ts'
import type { Frame } from './notifier.ts'

/** Where changes go to. */
export interface Outlet {
  /** Hands a message to a group. Called once the change is committed; must not wait, and reports its own failures. */
  publish: (group: string, payload: string) => void
  log: Log
}

/** Publishes frames in order, and tells of those that are not sent. Never throws. */
export function handOver (frames: readonly Frame[], { publish, log }: Outlet): void {
  for (const { entity, group, type, object, drop } of frames) {
    if (drop !== undefined) {
      tellDrop(log, { ...drop, entity, type })
      continue
    }
    const id = Math.floor(Math.random() * 2 ** 31)
    const payload = `{"id":${id},"type":"subscription-update","data":{"group":${quote(group)},"type":"${type}","object":${object}}}`
    try {
      publish(group, payload)
    } catch (err) {
      tellFailure(log, err, { entity, type, group }, 'a change could not be handed over')
      continue
    }
    if (diagnostics.notify.hasSubscribers) diagnostics.notify.publish({ entity, type, group, size: Buffer.byteLength(payload) })
  }
}
