/** Who is in which group on this process, and one subscription at the broker for each group that has members here. */
import type { Broker } from '../brokers/broker.ts'
import { diagnostics } from '../diagnostics.ts'
import { errors, show } from '../errors.ts'
import { isGroupName } from '../protocol/group-name.ts'
import { Frame } from './frame.ts'
import { isThenable } from './thenable.ts'

/** Somebody who hears a group. */
export interface Member {
  send (frame: Frame): void
}

/** Those who wait for the broker's subscription to a group. */
interface Joining {
  members: Map<Member, (() => void) | undefined>
  done: PromiseWithResolvers<void>
}

/** One group with members on this process. */
interface Group {
  /** Those who hear the group. */
  members: Set<Member>
  joining: Joining | undefined
  subscribed: boolean
  /** Whether a call to the broker is under way; there is never a second one. */
  busy: boolean
}

/** The groups of one server. */
export class Groups {
  readonly #groups = new Map<string, Group>()
  readonly #broker: Broker
  readonly #onError: (error: Error, group: string) => void

  constructor (broker: Broker, onError: (error: Error, group: string) => void) {
    this.#broker = broker
    this.#onError = onError
  }

  /**
   * Makes somebody a member: at once where the broker answers at once, else when the promise resolves.
   *
   * @param joined called at the moment when it is a member, before anything of the group is heard
   * @throws RP_ERR_INVALID_GROUP; rejects with RP_ERR_UNAVAILABLE, then it is no member
   */
  join (name: string, member: Member, joined?: () => void): Promise<void> | undefined {
    let group = this.#groups.get(name)
    if (group === undefined) {
      checkName(name)
      group = { members: new Set(), joining: undefined, subscribed: false, busy: false }
      this.#groups.set(name, group)
    }

    if (group.subscribed && !group.busy) {
      group.members.add(member)
      joined?.()
      return
    }

    const joining = group.joining ??= { members: new Map(), done: Promise.withResolvers() }
    if (joined !== undefined || !joining.members.has(member)) joining.members.set(member, joined)
    this.#settle(name, group)
    if (group.joining !== joining && group.members.has(member)) return
    return joining.done.promise
  }

  /** Ends a membership, also one that still waits for the broker; a name without group is fine. */
  leave (name: string, member: Member): void {
    const group = this.#groups.get(name)
    if (group === undefined) return

    group.members.delete(member)
    const { joining } = group
    if (joining?.members.delete(member) && joining.members.size === 0) {
      group.joining = undefined
      joining.done.resolve()
    }
    this.#settle(name, group)
  }

  /** Whether somebody is a member, or waits to be one. */
  has (name: string, member: Member): boolean {
    const group = this.#groups.get(name)
    return group !== undefined && (group.members.has(member) || group.joining?.members.has(member) === true)
  }

  /** Gives a payload to the broker, from which it comes back to `deliver`. @throws RP_ERR_INVALID_GROUP */
  publish (name: string, payload: string): void | Promise<void> {
    checkName(name)
    if (!diagnostics.publish.hasSubscribers) return this.#broker.publish(name, payload)
    return observe(name, payload, () => this.#broker.publish(name, payload))
  }

  /** Sends what the broker heard to the members: one frame, many sockets. */
  deliver (name: string, payload: string): void {
    const group = this.#groups.get(name)
    if (group === undefined || group.members.size === 0) return

    const frame = new Frame(payload)
    for (const member of group.members) member.send(frame)
    if (diagnostics.deliver.hasSubscribers) {
      diagnostics.deliver.publish({ group: name, size: Buffer.byteLength(payload), members: group.members.size })
    }
  }

  /** Brings the broker's subscription in line with who is there, one call at a time. */
  #settle (name: string, group: Group): void {
    if (group.busy) return

    const wanted = group.members.size > 0 || group.joining !== undefined
    if (wanted === group.subscribed) {
      if (!wanted) this.#groups.delete(name)
      return
    }

    group.busy = true
    let call: unknown
    try {
      call = wanted ? this.#broker.subscribe(name) : this.#broker.unsubscribe(name)
    } catch (error) {
      return this.#failed(name, group, error)
    }
    if (isThenable(call)) {
      Promise.resolve(call).then(() => this.#succeeded(name, group), (error: unknown) => this.#failed(name, group, error))
    } else {
      this.#succeeded(name, group)
    }
  }

  #succeeded (name: string, group: Group): void {
    group.busy = false
    group.subscribed = !group.subscribed

    const { joining } = group
    if (group.subscribed && joining !== undefined) {
      group.joining = undefined
      for (const [member, joined] of joining.members) {
        group.members.add(member)
        joined?.()
      }
      joining.done.resolve()
    }
    this.#settle(name, group)
  }

  #failed (name: string, group: Group, cause: unknown): void {
    const error = new errors.RP_ERR_UNAVAILABLE(name, { cause })
    this.#onError(error, name)

    group.busy = false
    if (group.subscribed) {
      // what still arrives for a group without members is ignored, so a failed unsubscribe ends as a good one does
      group.subscribed = false
    } else {
      const { joining } = group
      group.joining = undefined
      joining?.done.promise.catch(() => {})
      joining?.done.reject(error)
    }
    this.#settle(name, group)
  }
}

/** Publishes, and tells those who listen how it went. */
function observe (group: string, payload: string, publish: () => void | Promise<void>): void | Promise<void> {
  const startedAt = performance.now()
  const tell = (error?: unknown) => diagnostics.publish.publish({
    group, size: Buffer.byteLength(payload), duration: performance.now() - startedAt, error
  })
  try {
    const publishing = publish()
    if (isThenable(publishing)) publishing.then(() => tell(), tell)
    else tell()
    return publishing
  } catch (error) {
    tell(error)
    throw error
  }
}

/** @throws RP_ERR_INVALID_GROUP */
export function checkName (name: unknown): asserts name is string {
  if (!isGroupName(name)) throw new errors.RP_ERR_INVALID_GROUP(show(name))
}
