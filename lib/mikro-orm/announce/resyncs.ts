/** Tells the members of groups to load again, where it is not known what they should be told, or the broker does not take it. */
import { cut, cutError } from '../../util/cut.ts'
import { quote } from '../../protocol/encode.ts'
import { Backoff } from '../../util/backoff.ts'
import type { PublishTarget } from './publish.ts'

/** The bounds of the delay before resyncs that the broker refused are tried again, in milliseconds. */
const RETRY = { min: 1000, max: 30_000 }

/** The groups whose members are to load again. */
export class Resyncs {
  readonly #target: PublishTarget
  readonly #backoff: Backoff
  /** The groups whose resync the broker has not taken yet. */
  readonly #groups = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #isRefused = false
  #isClosed = false

  constructor (target: PublishTarget, { min, max } = RETRY) {
    this.#target = target
    this.#backoff = new Backoff(min, max)
  }

  /** Publishes a resync to groups; what the broker refuses is tried again until it is taken. */
  send (groups: Iterable<string>): void {
    for (const group of new Set(groups)) this.#publish(group)
  }

  /** Publishes a resync to a group whose message was refused: later, and with one line in the log until the broker takes it. */
  defer (group: string, err: unknown): void {
    if (!this.#isRefused) this.#target.log.warn({ group: cut(group), err: cutError(err) }, 'the broker does not take changes: the members of their groups load again when it does')
    this.#isRefused = true
    if (this.#isClosed) return
    if (this.#groups.size === 0) this.#schedule()
    this.#groups.add(group)
  }

  /** Ends the tries. */
  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #schedule (): void {
    this.#timer = setTimeout(() => {
      const groups = [...this.#groups]
      this.#groups.clear()
      for (const group of groups) this.#publish(group)
    }, this.#backoff.next())
    this.#timer.unref()
  }

  #publish (group: string): void {
    const payload = `{"type":"subscription-update","data":{"type":"resync","group":${quote(group)}}}`
    const taken = () => {
      this.#isRefused = false
      this.#backoff.reset()
    }
    try {
      const publishing = this.#target.publish(group, payload)
      if (publishing === undefined) taken()
      else publishing.then(taken, (err: unknown) => this.defer(group, err))
    } catch (err) {
      this.defer(group, err)
    }
  }
}
