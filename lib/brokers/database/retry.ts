/** Repeats statements that fail for a moment. */
import { setTimeout as wait } from 'node:timers/promises'
import { Backoff } from '../../util/backoff.ts'
import type { Dialect } from './dialect.ts'

/** The bounds of the delay between two attempts, in milliseconds. */
const DELAY = { min: 5, max: 100 }

/** Repeats statements as long as they fail in a way that may pass, such as with a locked file. */
export async function retryWhilePassing<Value> (
  dialect: Pick<Dialect, 'failureOf'>,
  run: () => Promise<Value>,
  isOver: () => boolean
): Promise<Value> {
  const backoff = new Backoff(DELAY.min, DELAY.max)
  for (;;) {
    try {
      return await run()
    } catch (error) {
      if (isOver() || dialect.failureOf(error) !== 'passing') throw error
      await wait(backoff.next())
    }
  }
}
