/** What users declare: which changes of which entities are announced, to whom, and with what. */
import { EntitySchema, type EntityName } from '@mikro-orm/core'
import { checkNames } from '../../util/checks.ts'
import { errors, show } from '../../errors.ts'

/** What happened to a row within a transaction. */
export type ChangeType = 'create' | 'update' | 'delete'

/** What a data function is told about the change. */
export interface ChangeContext {
  type: ChangeType
  /** The changed properties, hidden ones left out; empty for `create` and `delete`, and where the ORM does not tell (`upsert`). */
  updatedFields: string[]
}

/** How the changes of an entity are announced. */
export interface NotifyOptions<Entity extends object> {
  /**
   * The groups that hear of a row: a template (`'todo-{id}'`; `{pk}` is the key, a relation stands for its key, a property that is
   * `null` for no group at all), or a synchronous function that gives one name, several or `null`.
   *
   * @defaultValue the entity's `getGroupName(type)`, else its `groupName` template, else `classname-pk`
   */
  group?: string | ((entity: Entity, type: ChangeType) => string | readonly string[] | null | undefined)
  /**
   * What is sent of a row: property names, or a synchronous function that gives any value with a JSON form.
   *
   * @defaultValue the entity's `getPushNotificationData(updatedFields, type)`, else `{ id: <primary key> }`
   */
  data?: ReadonlyArray<Extract<keyof Entity, string>> | ((entity: Entity, context: ChangeContext) => unknown)
  /**
   * Whether an update that touches none of the sent properties is sent all the same.
   *
   * @defaultValue true
   */
  alwaysSend?: boolean
  /**
   * Relations and lazy properties that `group` and `data` functions read; they are loaded with the row.
   *
   * @defaultValue none
   */
  populate?: readonly string[]
  /**
   * Whether the row is read before the COMMIT, and what is read is sent. With `false`, what the `EntityManager` holds is sent: this costs no
   * query, and is right where nobody else writes the row, no trigger changes it, and no property is rounded or computed by the database.
   *
   * @defaultValue true
   */
  readBack?: boolean
}

/** A declaration for one entity and its children, as `notifyOnCreate` and its siblings make it. */
export interface NotifyRule {
  readonly entity: EntityName
  readonly types: readonly ChangeType[]
  readonly options: RuleOptions
}

/** The options of a rule, without the entity's type. */
export interface RuleOptions {
  readonly group?: string | ((entity: object, type: ChangeType) => unknown)
  readonly data?: readonly string[] | ((entity: object, context: ChangeContext) => unknown)
  readonly alwaysSend?: boolean
  readonly populate?: readonly string[]
  readonly readBack?: boolean
}

/** Announces new rows of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnCreate<Entity extends object> (entity: EntityName<Entity>, options: NotifyOptions<Entity> = {}): NotifyRule {
  return makeRule(entity, ['create'], options)
}

/** Announces changes of rows of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnUpdate<Entity extends object> (entity: EntityName<Entity>, options: NotifyOptions<Entity> = {}): NotifyRule {
  return makeRule(entity, ['update'], options)
}

/** Announces the end of rows of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnDelete<Entity extends object> (entity: EntityName<Entity>, options: NotifyOptions<Entity> = {}): NotifyRule {
  return makeRule(entity, ['delete'], options)
}

/** Announces all that happens to rows of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnChange<Entity extends object> (entity: EntityName<Entity>, options: NotifyOptions<Entity> = {}): NotifyRule {
  return makeRule(entity, ['create', 'update', 'delete'], options)
}

function makeRule<Entity extends object> (entity: EntityName<Entity>, types: ChangeType[], options: NotifyOptions<Entity>): NotifyRule {
  if (typeof entity !== 'function' && !EntitySchema.is(entity)) {
    throw new errors.RP_ERR_INVALID_OPTION('entity', 'an entity class, or what defineEntity gives', show(entity))
  }
  return { entity: entity as EntityName, types, options: checkOptions(options) }
}

/** @throws RP_ERR_INVALID_OPTION */
export function checkRules (notify: readonly NotifyRule[]): readonly NotifyRule[] {
  if (!Array.isArray(notify)) throw new errors.RP_ERR_INVALID_OPTION('notify', 'a list of rules', show(notify))
  for (const rule of notify) {
    if (!Array.isArray(rule?.types)) throw new errors.RP_ERR_INVALID_OPTION('notify', 'rules as notifyOnChange makes them', show(rule))
  }
  return notify
}

function checkOptions (options: object): RuleOptions {
  checkNames(options, ['group', 'data', 'alwaysSend', 'populate', 'readBack'])
  const { group, data, alwaysSend, populate, readBack } = options as Record<string, unknown>

  if (!['undefined', 'string', 'function'].includes(typeof group)) {
    throw new errors.RP_ERR_INVALID_OPTION('group', 'a template or a function', show(group))
  }
  if (data !== undefined && typeof data !== 'function' && !areNames(data)) {
    throw new errors.RP_ERR_INVALID_OPTION('data', 'property names or a function', show(data))
  }
  if (!['undefined', 'boolean'].includes(typeof alwaysSend)) {
    throw new errors.RP_ERR_INVALID_OPTION('alwaysSend', 'true or false', show(alwaysSend))
  }
  if (populate !== undefined && !areNames(populate)) {
    throw new errors.RP_ERR_INVALID_OPTION('populate', 'names of relations or lazy properties', show(populate))
  }
  if (!['undefined', 'boolean'].includes(typeof readBack)) {
    throw new errors.RP_ERR_INVALID_OPTION('readBack', 'true or false', show(readBack))
  }
  if (readBack === false && populate !== undefined) {
    throw new errors.RP_ERR_INVALID_OPTION('populate', 'no value beside readBack: false, which loads nothing', show(populate))
  }
  return options
}

function areNames (value: unknown): boolean {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}
