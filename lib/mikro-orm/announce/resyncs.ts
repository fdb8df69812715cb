/**
 * Resync messages, which make the members of a group load their data again: after a lost answer to a COMMIT, or when
 * the broker has refused a notification.
 */
import { truncate, truncateError } from '../../util/truncate.ts'
import { encodeResync } from '../../protocol/resync.ts'
import { Backoff } from '../../util/backoff.ts'
import type { PublishTarget } from './publish.ts'

/** Bounds of the delay before a resync that the broker refused is retried, in milliseconds. */
const RETRY = { min: 1000, max: 30_000 }

/** Publishes resyncs, and retries them until the broker accepts them. */
export class Resyncs {
  readonly #target: PublishTarget
  readonly #backoff: Backoff
  /** Groups whose resync waits for a retry. */
  readonly #deferred = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #isRefused = false
  #isClosed = false

  constructor (target: PublishTarget, { min, max } = RETRY) {
    this.#target = target
    this.#backoff = new Backoff(min, max)
  }

  /** Publishes a resync to each group. */
  send (groups: Iterable<string>): void {
    for (const group of new Set(groups)) this.#publish(group)
  }

  /**
   * Schedules a resync for a group whose message the broker refused. One warning is logged until the broker accepts a
   * resync.
   */
  defer (group: string, err: unknown): void {
    if (!this.#isRefused) {
      const message = 'the broker does not take changes: the members of their groups load again when it does'
      this.#target.log.warn({ group: truncate(group), err: truncateError(err) }, message)
    }
    this.#isRefused = true
    if (this.#isClosed) return
    if (this.#deferred.size === 0) this.#schedule()
    this.#deferred.add(group)
  }

  /** Stops retrying. */
  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #schedule (): void {
    this.#timer = setTimeout(() => {
      const groups = [...this.#deferred]
      this.#deferred.clear()
      for (const group of groups) this.#publish(group)
    }, this.#backoff.next())
    this.#timer.unref()
  }

  #publish (group: string): void {
    const accepted = () => {
      this.#isRefused = false
      this.#backoff.reset()
    }
    try {
      const publishing = this.#target.publish(group, encodeResync(group))
      if (publishing === undefined) accepted()
      else publishing.then(accepted, (err: unknown) => this.defer(group, err))
    } catch (err) {
      this.defer(group, err)
    }
  }
}
