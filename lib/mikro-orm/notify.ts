/** `app.rohrpost.notify`: announces by hand what the ORM has no event for. */
import { Utils, wrap, type EntityManager, type EntityMetadata, type EntityName, type FilterQuery, type MikroORM, type Primary } from '@mikro-orm/core'
import { errors, show } from '../errors.ts'
import { ChangeOrigin } from './capture/change-log.ts'
import { classOf, nameOf } from './declare/entity-registry.ts'
import { Row, RowSource } from './row.ts'
import type { ChangeType } from './declare/rules.ts'
import type { ChangeSubscriber } from './change-subscriber.ts'
import { findProperty } from './declare/template.ts'

/** What `app.rohrpost.notify` may be told beside the change. */
export interface ManualNotifyOptions<Entity extends object> {
  /** The properties that an update changed; without them the update is sent without `updated_fields`. */
  updatedFields?: ReadonlyArray<Extract<keyof Entity, string>>
  /**
   * An `EntityManager` in a transaction: what is announced is sent when that commits.
   *
   * @defaultValue that of the `RequestContext`
   */
  em?: EntityManager
}

/**
 * Announces changes by the rules of their entity. Keys, and the rows that a condition finds, are read with one query; of a deleted row whose
 * committed version is gone, the key is announced. A row that is not there is not announced, with a warning.
 *
 * @returns resolves when the changes are handed over, or are in the log of the transaction: that of `em`, or else the current one of the
 * `RequestContext`
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_INVALID_OPTION; what reading the rows rejects with
 */
export type Notify = <Entity extends object>(
  entity: EntityName<Entity>,
  subject: Primary<Entity> | ReadonlyArray<Primary<Entity>> | Entity | FilterQuery<Entity>,
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
    const { em = orm.em, updatedFields } = options
    const meta = orm.getMetadata().getAll().get(classOf(type))
    if (meta === undefined) {
      if (next === undefined) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(type))
      return next(type, subject, change, options)
    }
    if (!['create', 'update', 'delete'].includes(change)) throw new errors.RP_ERR_INVALID_OPTION('type', "'create', 'update' or 'delete'", show(change))
    for (const name of updatedFields ?? []) findProperty(name, meta, "'updatedFields'")

    // within a transaction of the application the same connection is used
    const fork = em.fork({ keepTransactionContext: true })
    const fields = change === 'update' ? updatedFields && [...new Set(updatedFields)] : []
    const rows = await rowsOf(fork, meta, subject)
    await subscriber.announce(rows.map(({ row, origin }) => ({
      type: change,
      before: change === 'create' ? undefined : row,
      after: change === 'delete' ? undefined : row,
      fields,
      origin
    })), fork)
  }
}

async function rowsOf (em: EntityManager, meta: EntityMetadata, subject: unknown): Promise<Array<{ row: Row, origin: ChangeOrigin }>> {
  if (subject instanceof meta.class) {
    return [{ row: new Row(meta, subject, em.getComparator().prepareEntity(subject), em, RowSource.Flush), origin: ChangeOrigin.Entity }]
  }
  const keys = isWhere(subject, meta) ? await findKeys(em, meta, subject) : areKeys(subject, meta) ? subject : [subject]
  return keys.map((key) => {
    const reference = em.getReference(meta.class, key as never)
    return { row: new Row(meta, reference, em.getComparator().prepareEntity(reference), em, RowSource.Flush), origin: ChangeOrigin.Key }
  })
}

/** Whether a list is one of keys: the key of an entity with several key properties is a list itself. */
function areKeys (subject: unknown, { primaryKeys }: EntityMetadata): subject is unknown[] {
  return Array.isArray(subject) && (primaryKeys.length === 1 || subject.every((key) => typeof key === 'object' && key !== null))
}

/** Whether an object is a condition, rather than a key that is an object. */
function isWhere (subject: unknown, { primaryKeys }: EntityMetadata): subject is object {
  if (!Utils.isPlainObject(subject)) return false
  const names = Object.keys(subject)
  return primaryKeys.length === 1 || names.length !== primaryKeys.length || !names.every((name) => primaryKeys.includes(name))
}

async function findKeys (em: EntityManager, meta: EntityMetadata, where: object): Promise<unknown[]> {
  const entities = await em.find(meta.class, where as never, { fields: meta.primaryKeys as never, filters: false, connectionType: 'write', cache: false }) as object[]
  return entities.map((entity) => wrap(entity, true).getPrimaryKey())
}
