/** `withoutNotifications`: marks asynchronous work whose flushes, upserts and deletes are not announced. */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { EntityManager } from '@mikro-orm/core'

const silence = new AsyncLocalStorage<true>()

/** Whether the running code is within `withoutNotifications`. */
export function isSilent (): boolean {
  return silence.getStore() === true
}

/**
 * Runs work whose flushes, upserts and deletes are not announced, such as an import. `app.rohrpost.notify` works as
 * always.
 *
 * @param work receives `em`, and must flush before it ends
 */
export function withoutNotifications<Em extends EntityManager, Result> (
  em: Em,
  work: (em: Em) => Promise<Result>
): Promise<Result> {
  return silence.run(true, () => work(em))
}
