/** `app.rohrpost.notify`: announces by hand what the ORM has no event for. */
import type { EntityManager, EntityName, MikroORM, Primary } from '@mikro-orm/core'
import { errors, show } from '../errors.ts'
import { classOf, nameOf } from './registry.ts'
import type { ChangeType } from './rules.ts'
import type { ChangeSubscriber } from './subscriber.ts'
import { findProperty } from './template.ts'

/** What `app.rohrpost.notify` may be told beside the change. */
export interface ManualNotifyOptions<Entity extends object> {
  /** The properties that an update changed; without them the update is sent without `updated_fields`. */
  updatedFields?: ReadonlyArray<Extract<keyof Entity, string>>
  /** An `EntityManager` in a transaction: what is announced is sent when that commits. */
  em?: EntityManager
}

/**
 * Announces a change by the rules of its entity. A key stands for the row as it is now, which is loaded; of a row that is deleted, nothing
 * but the key is known then.
 *
 * @returns resolves when the change is sent, or is in the log of the transaction of `em`
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_INVALID_OPTION; what loading the row rejects with
 */
export type Notify = <Entity extends object>(
  entity: EntityName<Entity>,
  subject: Primary<Entity> | Entity,
  type: ChangeType,
  options?: ManualNotifyOptions<Entity>
) => Promise<void>

declare module '../server/types.ts' {
  interface Rohrpost {
    /** Announces what the ORM has no event for: native queries, the query builder, cascades of the database. There with `rohrpostMikroOrm`. */
    notify: Notify
  }
}

/** Makes `notify` for one ORM; entities of others are left to `next`. */
export function makeNotify (orm: MikroORM, subscriber: ChangeSubscriber, next: Notify | undefined): Notify {
  return async (type, subject, change, options = {}) => {
    const { em = orm.em.fork(), updatedFields } = options
    const meta = orm.getMetadata().getAll().get(classOf(type))
    if (meta === undefined) {
      if (next === undefined) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(type))
      return next(type, subject, change, options)
    }
    if (!['create', 'update', 'delete'].includes(change)) throw new errors.RP_ERR_INVALID_OPTION('type', "'create', 'update' or 'delete'", show(change))
    for (const name of updatedFields ?? []) findProperty(name, meta, "'updatedFields'")

    const entity = subject instanceof meta.class ? subject : await load(em, type, subject as Primary<object>, change)
    if (entity === null) return
    subscriber.announce(entity as object, em, change, change === 'update' ? updatedFields && [...new Set(updatedFields)] : [])
  }
}

async function load (em: EntityManager, type: EntityName, key: Primary<object>, change: ChangeType): Promise<object | null> {
  // what is in the memory of the given one may be what a native query has just changed
  const fork = em.fork({ keepTransactionContext: true })
  return change === 'delete' ? fork.getReference(type, key as never) : fork.findOne(type, key as never, { filters: false })
}
