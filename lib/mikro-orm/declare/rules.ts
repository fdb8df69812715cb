/**
 * Notification rules, as an application declares them: which changes of an entity are announced, to which groups, with
 * which data.
 */
import { EntitySchema, type EntityName } from '@mikro-orm/core'
import { checkNames } from '../../util/checks.ts'
import { errors, show } from '../../errors.ts'

/** Kind of a change, as clients read it. */
export type ChangeType = 'create' | 'update' | 'delete'

/** The change for which a `data` function is called. */
export interface ChangeContext {
  type: ChangeType
  /**
   * Changed properties without the hidden ones. Empty for `create` and `delete`, and for an upsert, whose changed
   * properties are not known.
   */
  updatedFields: string[]
}

/** Options of a notification rule. */
export interface NotifyOptions<Entity extends object> {
  /**
   * Groups of a row: a template (`'todo-{id}'`), or a synchronous function that returns a name, a list of names, or
   * `null`. In a template `{pk}` is the primary key, a relation is written as its key, and a property that is `null`
   * means no group.
   *
   * @defaultValue the entity's `getGroupName(type)`, else its `groupName` template, else `classname-pk`
   */
  group?: string | ((entity: Entity, type: ChangeType) => string | readonly string[] | null | undefined)
  /**
   * Data of a row that is sent: property names, or a synchronous function that returns a value with a JSON form.
   *
   * @defaultValue the entity's `getPushNotificationData(updatedFields, type)`, else `{ id: <primary key> }`
   */
  data?: ReadonlyArray<Extract<keyof Entity, string>> | ((entity: Entity, context: ChangeContext) => unknown)
  /**
   * Whether an update is sent if it changes none of the sent properties.
   *
   * @defaultValue true
   */
  alwaysSend?: boolean
  /**
   * Relations and lazy properties that the `group` and `data` functions read. They are loaded with the row.
   *
   * @defaultValue none
   */
  populate?: readonly string[]
  /**
   * Whether the row is read from the database before the COMMIT. With `false`, the values of the `EntityManager` are
   * sent without a query. This is correct if no other writer and no trigger changes the row, and the database rounds
   * and computes none of its values.
   *
   * @defaultValue true
   */
  readBack?: boolean
}

/** A notification rule for an entity and its child classes, made by `notifyOnCreate` and the other three functions. */
export interface NotifyRule {
  readonly entity: EntityName
  readonly types: readonly ChangeType[]
  readonly options: RuleOptions
}

/** Options of a rule without the type of its entity. */
export interface RuleOptions {
  readonly group?: string | ((entity: object, type: ChangeType) => unknown)
  readonly data?: readonly string[] | ((entity: object, context: ChangeContext) => unknown)
  readonly alwaysSend?: boolean
  readonly populate?: readonly string[]
  readonly readBack?: boolean
}

/** Makes a rule that announces new rows of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnCreate<Entity extends object> (
  entity: EntityName<Entity>,
  options: NotifyOptions<Entity> = {}
): NotifyRule {
  return makeRule(entity, ['create'], options)
}

/** Makes a rule that announces updates of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnUpdate<Entity extends object> (
  entity: EntityName<Entity>,
  options: NotifyOptions<Entity> = {}
): NotifyRule {
  return makeRule(entity, ['update'], options)
}

/** Makes a rule that announces deletes of an entity. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function notifyOnDelete<Entity extends object> (
  entity: EntityName<Entity>,
  options: NotifyOptions<Entity> = {}
): NotifyRule {
  return makeRule(entity, ['delete'], options)
}

/**
 * Makes a rule that announces creates, updates and deletes of an entity.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function notifyOnChange<Entity extends object> (
  entity: EntityName<Entity>,
  options: NotifyOptions<Entity> = {}
): NotifyRule {
  return makeRule(entity, ['create', 'update', 'delete'], options)
}

function makeRule<Entity extends object> (
  entity: EntityName<Entity>,
  types: ChangeType[],
  options: NotifyOptions<Entity>
): NotifyRule {
  if (typeof entity !== 'function' && !EntitySchema.is(entity)) {
    throw new errors.RP_ERR_INVALID_OPTION('entity', 'an entity class or a result of defineEntity', show(entity))
  }
  return { entity: entity as EntityName, types, options: checkOptions(options) }
}

/** Checks the option `notify`. @throws RP_ERR_INVALID_OPTION */
export function checkRules (notify: readonly NotifyRule[]): readonly NotifyRule[] {
  if (!Array.isArray(notify)) throw new errors.RP_ERR_INVALID_OPTION('notify', 'a list of rules', show(notify))
  for (const rule of notify) {
    if (!Array.isArray(rule?.types)) {
      throw new errors.RP_ERR_INVALID_OPTION('notify', 'rules made by notifyOnChange and the like', show(rule))
    }
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
    const expected = 'undefined with readBack: false, which loads no relations'
    throw new errors.RP_ERR_INVALID_OPTION('populate', expected, show(populate))
  }
  return options
}

function areNames (value: unknown): boolean {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}
