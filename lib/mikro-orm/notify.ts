/** `app.rohrpost.notify`: announces changes by hand for which MikroORM has no event, such as native queries. */
import {
  Utils,
  wrap,
  type EntityManager,
  type EntityMetadata,
  type EntityName,
  type FilterQuery,
  type MikroORM,
  type Primary
} from '@mikro-orm/core'
import { errors, show } from '../errors.ts'
import type { ChangeSubscriber } from './change-subscriber.ts'
import { ChangeOrigin } from './capture/change-log.ts'
import { classOf, nameOf } from './declare/entity-registry.ts'
import type { ChangeType } from './declare/rules.ts'
import { findProperty } from './declare/template.ts'
import { Row, RowSource } from './row.ts'

/** Options of `app.rohrpost.notify`. */
export interface ManualNotifyOptions<Entity extends object> {
  /** Properties that an update changed. Without them the notification has no `updated_fields`. */
  updatedFields?: ReadonlyArray<Extract<keyof Entity, string>>
  /**
   * EntityManager whose transaction made the change. The change is announced when that commits.
   *
   * @defaultValue the EntityManager of the `RequestContext`
   */
  em?: EntityManager
}

/**
 * Announces changes by the rules of their entity. The rows of keys and of a condition are read with one query. For a
 * deleted row that cannot be read any more, the primary key is announced. A row that does not exist is left out, with a
 * warning.
 *
 * @param subject a primary key, a list of keys, an entity, or a `where` condition
 * @returns a promise that resolves when the changes are published, or are in the change log of the transaction
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_INVALID_OPTION, or the error of the query
 */
export type Notify = <Entity extends object>(
  entity: EntityName<Entity>,
  subject: Primary<Entity> | ReadonlyArray<Primary<Entity>> | Entity | FilterQuery<Entity>,
  type: ChangeType,
  options?: ManualNotifyOptions<Entity>
) => Promise<void>

declare module '../server/types.ts' {
  interface Rohrpost {
    /**
     * Announces changes for which MikroORM has no event: native queries, the query builder, cascades of the database.
     * Added by `rohrpostMikroOrm`.
     */
    notify: Notify
  }
}

/** Makes `notify` for one ORM. Entities of other ORMs are passed to `next`. */
export function makeNotify (orm: MikroORM, subscriber: ChangeSubscriber, next: Notify | undefined): Notify {
  return async (entity, subject, type, options = {}) => {
    const { em = orm.em, updatedFields } = options
    const meta = orm.getMetadata().getAll().get(classOf(entity))
    if (meta === undefined) {
      if (next === undefined) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(entity))
      return next(entity, subject, type, options)
    }
    if (!['create', 'update', 'delete'].includes(type)) {
      throw new errors.RP_ERR_INVALID_OPTION('type', "'create', 'update' or 'delete'", show(type))
    }
    for (const name of updatedFields ?? []) findProperty(name, meta, "'updatedFields'")

    // the fork has an identity map of its own, and the connection of the application's transaction
    const fork = em.fork({ keepTransactionContext: true })
    const fields = type === 'update' ? updatedFields && [...new Set(updatedFields)] : []
    const rows = await rowsOf(fork, meta, subject)
    await subscriber.announce(rows.map(({ row, origin }) => ({
      type,
      before: type === 'create' ? undefined : row,
      after: type === 'delete' ? undefined : row,
      fields,
      origin
    })), fork)
  }
}

/** Finds the rows of a subject. Their values are not read yet, except for those of an entity. */
async function rowsOf (
  em: EntityManager,
  meta: EntityMetadata,
  subject: unknown
): Promise<Array<{ row: Row, origin: ChangeOrigin }>> {
  if (subject instanceof meta.class) {
    const row = new Row(meta, subject, em.getComparator().prepareEntity(subject), em, RowSource.Flush)
    return [{ row, origin: ChangeOrigin.Entity }]
  }
  const keys = isWhere(subject, meta) ? await findKeys(em, meta, subject) : areKeys(subject, meta) ? subject : [subject]
  return keys.map((key) => {
    const reference = em.getReference(meta.class, key as never)
    const row = new Row(meta, reference, em.getComparator().prepareEntity(reference), em, RowSource.Flush)
    return { row, origin: ChangeOrigin.Key }
  })
}

/** Whether a subject is a list of keys. A list may also be one key of an entity with a composite key. */
function areKeys (subject: unknown, { primaryKeys }: EntityMetadata): subject is unknown[] {
  if (!Array.isArray(subject)) return false
  return primaryKeys.length === 1 || subject.every((key) => typeof key === 'object' && key !== null)
}

/** Whether a subject is a `where` condition. An object with exactly the key properties is a composite key. */
function isWhere (subject: unknown, { primaryKeys }: EntityMetadata): subject is object {
  if (!Utils.isPlainObject(subject)) return false
  const names = Object.keys(subject)
  if (primaryKeys.length === 1 || names.length !== primaryKeys.length) return true
  return !names.every((name) => primaryKeys.includes(name))
}

async function findKeys (em: EntityManager, meta: EntityMetadata, where: object): Promise<unknown[]> {
  // a replica may not have the change yet
  const options = { fields: meta.primaryKeys as never, filters: false, connectionType: 'write', cache: false } as const
  const entities = await em.find(meta.class, where as never, options) as object[]
  return entities.map((entity) => wrap(entity, true).getPrimaryKey())
}
