/** Warnings about group types that notification rules or clients use, and that the application has not declared. */
import type { FastifyBaseLogger } from 'fastify'
import { truncate } from '../../util/truncate.ts'
import type { NotifiedGroups } from '../../protocol/group-name.ts'

/** Warnings about undeclared types that clients subscribe to: a client can send any number of them. */
const MAX_WARNINGS = 100

/**
 * The group types that notification rules send to, with the form of their ids, and the undeclared types that clients
 * subscribe to.
 */
export class GroupUse {
  readonly #notified = new Map<string, NotifiedGroups>()
  readonly #denied = new Set<string>()

  /** Adds the groups of a notification rule. */
  notifies (groups: NotifiedGroups): void {
    const known = this.#notified.get(groups.type)
    const uuids = groups.uuids.map((is, part) => is || known?.uuids[part] === true)
    this.#notified.set(groups.type, { entity: known?.entity ?? groups.entity, type: groups.type, uuids })
  }

  /** Whether a part of the ids of a type is a UUID; `undefined` if no rule sends to the type. */
  isUuid (type: string, part: number): boolean | undefined {
    return this.#notified.get(type)?.uuids[part]
  }

  /** The number of parts of the ids of a type; 0 if no rule sends to the type. */
  parts (type: string): number {
    return this.#notified.get(type)?.uuids.length ?? 0
  }

  /** Warns about each undeclared type that a notification rule sends to: no client can subscribe to its groups. */
  warnUndeclared (isDeclared: (type: string) => boolean, log: FastifyBaseLogger): void {
    for (const { type, entity } of this.#notified.values()) {
      if (isDeclared(type)) continue
      const text = `clients can't subscribe to the '${type}' groups that a notification rule sends to: ` +
        `declare them with app.rohrpost.group('${type}', …), or ignore this if the app itself joins connections to them`
      log.warn({ type, entity }, text)
    }
  }

  /** Warns once about an undeclared type that a client subscribes to. */
  warnDenied (given: string, log: FastifyBaseLogger): void {
    const type = truncate(given)
    if (this.#denied.size === MAX_WARNINGS || this.#denied.has(type)) return
    this.#denied.add(type)
    log.warn({ type }, 'a subscription is denied: this group type is not declared with app.rohrpost.group')
  }
}
