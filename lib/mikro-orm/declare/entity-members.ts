/**
 * Members with which an entity class defines its groups and data itself: `getGroupName`, `groupName` and
 * `getPushNotificationData`.
 */
import type { EntityMetadata } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { isThenable } from '../../util/thenable.ts'
import type { ChangeType, NotifyRule } from './rules.ts'
import { parseTemplate, type Template } from './template.ts'

/** The members, as far as a class has them. */
export interface EntityMembers {
  getGroupName?: (type: ChangeType) => unknown
  groupName?: unknown
  getPushNotificationData?: (updatedFields: string[], type: ChangeType) => unknown
}

/**
 * Group template of a rule; `undefined` if a function, or a member of each instance, gives the groups.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
 */
export function findTemplate (rule: NotifyRule, meta: EntityMetadata): Template | undefined {
  const { group } = rule.options
  if (typeof group === 'string') return parseTemplate(group, meta)
  if (typeof group === 'function' || 'getGroupName' in meta.prototype) return undefined

  if ('groupName' in meta.prototype || 'groupName' in meta.properties) return undefined
  return parseTemplate(groupNameOf(meta) ?? `${meta.className.toLowerCase()}-{pk}`, meta)
}

/** Group template that an entity class declares as the static property or the field `groupName`. */
function groupNameOf (meta: EntityMetadata): string | undefined {
  const { groupName } = meta.class as EntityMembers
  if (typeof groupName === 'string') return groupName

  try {
    // MikroORM does not call the constructor of entities that it loads, so they lack their fields: read the field from
    // a new instance
    const { groupName } = Reflect.construct(meta.class as new () => EntityMembers, [])
    return typeof groupName === 'string' ? groupName : undefined
  } catch {
    // the constructor needs arguments
    if (!mentionsGroupName(meta.class)) return
    const expected = `a static property of ${meta.className}, whose constructor needs arguments`
    throw new errors.RP_ERR_INVALID_OPTION('groupName', expected, 'a field')
  }
}

/** Whether the source of a class or of a parent class mentions `groupName`, so that it may declare the field. */
function mentionsGroupName (type: unknown): boolean {
  if (typeof type !== 'function') return false
  return /\bgroupName\b/.test(String(type)) || mentionsGroupName(Object.getPrototypeOf(type))
}

/** Returns the result of a function of the application. @throws TypeError for a promise */
export function synchronous (name: string, value: unknown): unknown {
  if (!isThenable(value)) return value
  Promise.resolve(value).catch(() => {})
  throw new TypeError(`'${name}' returned a promise: it must be synchronous, because the transaction waits for it`)
}
