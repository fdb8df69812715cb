/** Which rules concern which entities: those of the plugin's options, and those that decorators left on classes. */
import { EntitySchema, type EntityClass, type EntityCtor, type EntityMetadata, type EntityName, type EntityProperty, type MetadataStorage } from '@mikro-orm/core'
import { errors } from '../errors.ts'
import { declaredRules } from './decorators.ts'
import { Notifier, type Report } from './notifier.ts'
import { heldProperties } from './row.ts'
import type { NotifyRule } from './rules.ts'

/** What is to be known of an entity whose changes are announced. */
export interface Watched {
  readonly notifiers: readonly Notifier[]
  /** What is to be read before a flush, as the ORM does not remember it. */
  readonly held: readonly EntityProperty[]
}

/**
 * Makes the rules ready, by entity class.
 *
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
 */
export function compileRules (rules: readonly NotifyRule[], metadata: MetadataStorage, report: Report, isWatched: () => boolean): Map<unknown, Watched> {
  const entities = [...metadata.getAll().values()].filter((meta) => !meta.embeddable && !meta.pivotTable && !meta.abstract)
  const watched = new Map<unknown, Watched>()

  for (const rule of [...rules, ...declaredRules(entities)]) {
    const children = entities.filter((meta) => isOrExtends(meta, classOf(rule.entity)))
    if (children.length === 0) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(rule.entity))

    for (const meta of children) {
      const { notifiers, held } = watched.get(meta.class) ?? { notifiers: [], held: heldProperties(meta) }
      watched.set(meta.class, { notifiers: [...notifiers, new Notifier(rule, meta, report, isWatched)], held })
    }
  }
  return watched
}

function isOrExtends (meta: EntityMetadata, target: { prototype: object }): boolean {
  return meta.class === target || Object.prototype.isPrototypeOf.call(target.prototype, meta.prototype)
}

/** The class of an entity, which a `defineEntity` result has too. */
export function classOf (entity: EntityName): EntityClass<object> | EntityCtor {
  return EntitySchema.is(entity) ? entity.meta.class : entity
}

/** The name of an entity, for error messages. */
export function nameOf (entity: EntityName): string {
  return EntitySchema.is(entity) ? entity.meta.className : entity.name
}
