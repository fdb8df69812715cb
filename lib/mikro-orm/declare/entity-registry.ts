/**
 * Assigns the rules, from options and from decorators, to the entities of the ORM, and works out which parts of a row
 * they need.
 */
import {
  EntitySchema,
  type EntityClass,
  type EntityCtor,
  type EntityMetadata,
  type EntityName,
  type EntityProperty,
  type MetadataStorage
} from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { declaredRules } from './decorators.ts'
import { CompiledRule, type ReportError } from './compiled-rule.ts'
import { fieldOf } from '../row.ts'
import type { NotifyRule } from './rules.ts'

/** An entity with notification rules. */
export interface NotifiedEntity {
  readonly meta: EntityMetadata
  readonly rules: readonly CompiledRule[]
  /** Parts of a row that the rules need. */
  readonly projection: Projection
  /** Whether rows are read before the COMMIT: `false` if every rule has `readBack: false`. */
  readonly readsBack: boolean
  /**
   * Whether the groups of a rule depend on more than the primary key, so that an update can move a row and the row
   * before it is needed.
   */
  readonly needsRowBefore: boolean
  /** Whether a rule needs more of a deleted row than its primary key. */
  readonly needsDeletedRow: boolean
}

/** Finds the rules for an entity instance; `undefined` if there are none. */
export type FindNotifiedEntity = (entity: object) => NotifiedEntity | undefined

/** Parts of a row that the rules of an entity need. */
export interface Projection {
  /** Properties to load; `undefined` for the whole entity. */
  readonly fields: readonly string[] | undefined
  /** Relations and lazy properties to load with it. */
  readonly populate: readonly string[]
  /**
   * Columns of the properties, if their values can be sent as the driver returns them. Rows are then read without
   * making entities.
   */
  readonly columns: readonly ProjectedColumn[] | undefined
}

/** A property that is stored in one column. */
export interface ProjectedColumn {
  readonly name: string
  readonly column: string
}

/**
 * Compiles the rules for each entity that they match.
 *
 * @returns the entities with rules, by class
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_INVALID_OPTION
 */
export function compileRules (
  rules: readonly NotifyRule[],
  metadata: MetadataStorage,
  report: ReportError,
  reportsDrops: () => boolean
): Map<unknown, NotifiedEntity> {
  const entities = [...metadata.getAll().values()]
    .filter((meta) => !meta.embeddable && !meta.pivotTable && !meta.abstract)
  const compiled = new Map<EntityMetadata, CompiledRule[]>()

  for (const rule of [...rules, ...declaredRules(entities)]) {
    const matching = entities.filter((meta) => isOrExtends(meta, classOf(rule.entity)))
    if (matching.length === 0) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(rule.entity))

    for (const meta of matching) {
      const others = compiled.get(meta) ?? []
      compiled.set(meta, [...others, new CompiledRule(rule, meta, others.length, report, reportsDrops)])
    }
  }
  return new Map([...compiled].map(([meta, rules]) => [meta.class, notifiedEntity(meta, rules)]))
}

function notifiedEntity (meta: EntityMetadata, rules: CompiledRule[]): NotifiedEntity {
  const reading = rules.filter(({ readsBack }) => readsBack)
  const named = rules.map(({ fields }) => fields).filter((names) => names !== undefined)
  const fields = named.length < rules.length ? undefined : [...new Set([...meta.primaryKeys, ...named.flat()])]
  return {
    meta,
    rules,
    projection: {
      fields,
      populate: [...new Set(rules.flatMap(({ populate }) => populate))],
      columns: fields && columnsOf(meta, fields)
    },
    readsBack: reading.length > 0,
    needsRowBefore: reading.some(({ needsRowBefore }) => needsRowBefore),
    needsDeletedRow: reading.some(({ needsDeletedRow }) => needsDeletedRow)
  }
}

/**
 * Columns of properties; `undefined` if a property has several columns or needs conversion, or if the entity has
 * several tables (TPT).
 */
function columnsOf (meta: EntityMetadata, names: readonly string[]): ProjectedColumn[] | undefined {
  if (meta.inheritanceType === 'tpt' || meta.primaryKeys.length > 1) return

  const columns: ProjectedColumn[] = []
  for (const name of names) {
    const prop = meta.properties[name] as EntityProperty
    const [column, ...more] = prop.fieldNames
    if (column === undefined || more.length > 0 || !fieldOf(prop).isPlain) return
    columns.push({ name, column })
  }
  return columns
}

function isOrExtends (meta: EntityMetadata, target: { prototype: object }): boolean {
  return meta.class === target || Object.prototype.isPrototypeOf.call(target.prototype, meta.prototype)
}

/** Class of an entity, also of one that `defineEntity` made. */
export function classOf (entity: EntityName): EntityClass<object> | EntityCtor {
  return EntitySchema.is(entity) ? entity.meta.class : entity
}

/** Name of an entity, for error messages. */
export function nameOf (entity: EntityName): string {
  return EntitySchema.is(entity) ? entity.meta.className : entity.name
}
