/** Which rules concern which entities: those of the plugin's options, and those that decorators left on classes. */
import { EntitySchema, type EntityClass, type EntityCtor, type EntityMetadata, type EntityName, type EntityProperty, type MetadataStorage } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { declaredRules } from './decorators.ts'
import { CompiledRule, type ReportError } from './compiled-rule.ts'
import { fieldOf } from '../row.ts'
import type { NotifyRule } from './rules.ts'

/** An entity whose changes are announced, with the rules for it. */
export interface NotifiedEntity {
  readonly meta: EntityMetadata
  readonly rules: readonly CompiledRule[]
  /** What is read of a row before the COMMIT. */
  readonly projection: Projection
  /** Whether a row that a flush wrote is read: not where every rule is `readBack: false`. */
  readonly readsBack: boolean
  /** Whether a rule sends a row to groups that depend on more than its key, so that the row before its change must be known. */
  readonly needsRowBefore: boolean
  /** Whether a rule needs more than the key of a row that is deleted. */
  readonly needsDeletedRow: boolean
}

/** The parts of a row that rules need. */
export interface Projection {
  /** The properties to load; nothing for the whole entity. */
  readonly fields: readonly string[] | undefined
  /** The relations and lazy properties to load with it. */
  readonly populate: readonly string[]
  /** The columns of these properties, where their values are sent as the database gives them: then no entity is made of a row. */
  readonly columns: readonly Column[] | undefined
}

/** A property in one column. */
export interface Column {
  readonly name: string
  readonly column: string
}

/**
 * Makes the rules ready, by entity class.
 *
 * @throws RP_ERR_UNKNOWN_ENTITY, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_INVALID_OPTION
 */
export function compileRules (rules: readonly NotifyRule[], metadata: MetadataStorage, report: ReportError, reportsDrops: () => boolean): Map<unknown, NotifiedEntity> {
  const entities = [...metadata.getAll().values()].filter((meta) => !meta.embeddable && !meta.pivotTable && !meta.abstract)
  const notifiers = new Map<EntityMetadata, CompiledRule[]>()

  for (const rule of [...rules, ...declaredRules(entities)]) {
    const children = entities.filter((meta) => isOrExtends(meta, classOf(rule.entity)))
    if (children.length === 0) throw new errors.RP_ERR_UNKNOWN_ENTITY(nameOf(rule.entity))

    for (const meta of children) {
      notifiers.set(meta, [...notifiers.get(meta) ?? [], new CompiledRule(rule, meta, report, reportsDrops)])
    }
  }
  return new Map([...notifiers].map(([meta, notifiers]) => [meta.class, watch(meta, notifiers)]))
}

function watch (meta: EntityMetadata, notifiers: CompiledRule[]): NotifiedEntity {
  const reading = notifiers.filter(({ readsBack }) => readsBack)
  const named = notifiers.map(({ fields }) => fields).filter((names) => names !== undefined)
  const fields = named.length < notifiers.length ? undefined : [...new Set([...meta.primaryKeys, ...named.flat()])]
  return {
    meta,
    rules: notifiers,
    projection: { fields, populate: [...new Set(notifiers.flatMap(({ populate }) => populate))], columns: fields && columnsOf(meta, fields) },
    readsBack: reading.length > 0,
    needsRowBefore: reading.some(({ needsRowBefore }) => needsRowBefore),
    needsDeletedRow: reading.some(({ needsDeletedRow }) => needsDeletedRow)
  }
}

/** The columns of properties, if each is in one column of one table and no value has to be converted. */
function columnsOf (meta: EntityMetadata, names: readonly string[]): Column[] | undefined {
  if (meta.inheritanceType === 'tpt' || meta.primaryKeys.length > 1) return

  const columns: Column[] = []
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

/** The class of an entity, which a `defineEntity` result has too. */
export function classOf (entity: EntityName): EntityClass<object> | EntityCtor {
  return EntitySchema.is(entity) ? entity.meta.class : entity
}

/** The name of an entity, for error messages. */
export function nameOf (entity: EntityName): string {
  return EntitySchema.is(entity) ? entity.meta.className : entity.name
}
