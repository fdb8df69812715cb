/** Group types that are in use and not declared: what notification rules send to, and what clients ask for. Each is warned of once. */
import type { FastifyBaseLogger } from 'fastify'
import { cut } from '../../util/cut.ts'
import type { NotifiedGroups } from '../../protocol/group-name.ts'

/** Undeclared types of clients that are warned of: clients choose them, and can choose new ones all the time. */
const MAX_TYPES = 100

/** Knows which group types notification rules send to, and warns of those that nobody declared. */
export class GroupUse {
  readonly #notified = new Map<string, NotifiedGroups>()
  readonly #refused = new Set<string>()

  /** Adds the groups of a notification rule. */
  notifies (groups: NotifiedGroups): void {
    const known = this.#notified.get(groups.type)
    const uuids = groups.uuids.map((is, part) => is || known?.uuids[part] === true)
    this.#notified.set(groups.type, { entity: known?.entity ?? groups.entity, type: groups.type, uuids })
  }

  /** Whether one part of the ids of a type is a UUID; nothing where no rule says so. */
  isUuid (type: string, part: number): boolean | undefined {
    return this.#notified.get(type)?.uuids[part]
  }

  /** The number of parts of the ids of a type; 0 where no rule says so. */
  parts (type: string): number {
    return this.#notified.get(type)?.uuids.length ?? 0
  }

  /** Warns of each type that a notification rule sends to and that is not declared: no client can subscribe to its groups. */
  warnUndeclared (isDeclared: (type: string) => boolean, log: FastifyBaseLogger): void {
    for (const { type, entity } of this.#notified.values()) {
      if (isDeclared(type)) continue
      log.warn({ type, entity }, `clients can't subscribe to the '${type}' groups that a notification rule sends to: declare them with ` +
        `app.rohrpost.group('${type}', …), or ignore this if the app itself joins connections to them`)
    }
  }

  /** Warns that a client asked for a type that is not declared. */
  refused (given: string, log: FastifyBaseLogger): void {
    const type = cut(given)
    if (this.#refused.size === MAX_TYPES || this.#refused.has(type)) return
    this.#refused.add(type)
    log.warn({ type }, 'a subscription is denied: this group type is not declared with app.rohrpost.group')
  }
}
