/** Writes that are not announced. */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { EntityManager } from '@mikro-orm/core'

const silence = new AsyncLocalStorage<true>()

/** Whether what is flushed now is not to be announced. */
export function isSilent (): boolean {
  return silence.getStore() === true
}

/**
 * Runs work whose flushes, upserts and deletes are not announced, such as an import. What `notify` is asked to announce is announced.
 *
 * @param work is given `em`; what it persists must be flushed before it ends
 */
export function withoutNotifications<Em extends EntityManager, Result> (em: Em, work: (em: Em) => Promise<Result>): Promise<Result> {
  return silence.run(true, () => work(em))
}
