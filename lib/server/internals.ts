/**
 * Internal side of `app.rohrpost`, for the MikroORM plugin and the testing tools of this package. Not part of the
 * public interface.
 */
import type { Broker } from '../brokers/broker.ts'
import type { NotifiedGroups } from '../protocol/group-name.ts'
import type { PublishOptions } from '../protocol/stamp.ts'

/**
 * Key of the internals. The symbol is registered: the ES module and the CommonJS copy of the package must find the same
 * property.
 */
export const INTERNALS: unique symbol = Symbol.for('fastify-rohrpost.internals') as never

/**
 * Functions and state of one server that only other parts of this package use. All `app.rohrpost` objects of a server
 * share them.
 */
export interface Internals {
  readonly broker: Broker
  /** Counters of running background work: work that goes on after every request is answered. */
  readonly backgroundWork: Array<() => number>
  /** The option `drainTimeout`, in milliseconds. */
  readonly drainTimeout: number
  /**
   * Publishes the text of a JSON object to a group. Unlike `sendToGroup`, it does not parse the text again, and the
   * caller handles failures.
   *
   * @param options what the broker is told of the message
   * @returns a promise only if the broker returns one
   * @throws RP_ERR_INVALID_GROUP; errors of a synchronous broker
   */
  publishObject (group: string, text: string, options?: PublishOptions): void | Promise<void>
  /** Whether the broker uses stamps. */
  readonly usesStamps: boolean
  /** Registers groups to which a notification rule publishes. */
  addNotifiedGroups (groups: NotifiedGroups): void
  /**
   * Adds a message to the transaction of an EntityManager. Set by the MikroORM plugin, once for each ORM.
   *
   * @returns `false` if the EntityManager is not in a transaction
   * @throws RP_ERR_UNKNOWN_ENTITY_MANAGER, RP_ERR_NOT_PUBLISHED
   */
  joinTransaction (em: unknown, group: string, payload: string): boolean
  /** `app.rohrpost.notify`, set by the MikroORM plugin. */
  notify: ((...args: never[]) => Promise<void>) | undefined
}

/** Returns the internals of an `app.rohrpost`, also of one that another copy of the package made. */
export function internalsOf (rohrpost: object): Internals {
  return (rohrpost as { readonly [INTERNALS]: Internals })[INTERNALS]
}
