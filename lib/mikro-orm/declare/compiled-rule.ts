/** One rule made ready for one entity: turns what happened to a row into what each group is told. */
import type { EntityMetadata } from '@mikro-orm/core'
import type { ChangeDropReason } from '../../diagnostics.ts'
import { errors, show } from '../../errors.ts'
import { encode, quote } from '../../protocol/encode.ts'
import { isGroupName, type NotifiedGroups } from '../../protocol/group-name.ts'
import { fieldOf, isColumn, isLoadedApart, NotLoadedError, type RowField, type Row } from '../row.ts'
import type { ChangeType, NotifyRule } from './rules.ts'
import { findProperty, parseTemplate, type Template } from './template.ts'

/** What one group is told, once the change is committed. */
export interface Notification {
  /** The name of the entity. */
  entity: string
  group: string
  type: ChangeType
  /** JSON text of what is sent of the row. */
  object: string
  /** Why nothing is sent: there only where somebody wants to know, without group and object. */
  drop?: { reason: ChangeDropReason, key: string | undefined }
}

/** A property that is sent. */
interface SentField extends RowField {
  /** The text before its value. */
  readonly start: string
}

/** What a transaction did to a row. */
export interface CommittedChange {
  readonly type: ChangeType
  /** The row before the transaction; nothing if there was none. The same object as `after` where the groups depend on the key alone. */
  readonly before: Row | undefined
  /** The row that was committed; nothing if there is none. */
  readonly after: Row | undefined
  /** The changed properties; nothing where the ORM does not tell. */
  readonly fields: readonly string[] | undefined
}

/** Names of properties, whatever else is kept with them. */
type Names = Pick<ReadonlySet<string>, 'has'>

/** Told of whatever keeps a rule from doing its work; never throws. */
export type ReportError = (error: unknown, row: Row, rule: NotifyRule) => void

/** What entities may say about themselves; `this` is the entity. */
interface Announced {
  getGroupName?: (type: ChangeType) => unknown
  groupName?: unknown
  getPushNotificationData?: (updatedFields: string[], type: ChangeType) => unknown
}

/** One rule for one entity. */
export class CompiledRule {
  readonly #rule: NotifyRule
  readonly #meta: EntityMetadata
  readonly #report: ReportError
  readonly #reportsDrops: () => boolean
  /** A template, unless a function decides. */
  readonly #template: Template | undefined
  /** The properties that are sent, unless a function decides. */
  readonly #sent: ReadonlyMap<string, SentField> | undefined
  /** The primary key. */
  readonly #key: readonly RowField[]
  /** Whether rows are read before the COMMIT. */
  readonly readsBack: boolean
  /** The properties that the rule reads; nothing where a function may read any. */
  readonly fields: readonly string[] | undefined
  /** The relations and lazy properties that are to be loaded. */
  readonly populate: readonly string[]

  /**
   * @param reportsDrops whether anybody wants to know what is not sent
   * @throws RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
   */
  constructor (rule: NotifyRule, meta: EntityMetadata, report: ReportError, reportsDrops: () => boolean) {
    this.#rule = rule
    this.#meta = meta
    this.#report = report
    this.#reportsDrops = reportsDrops
    this.#template = findTemplate(rule, meta)
    this.#key = meta.getPrimaryProps().map(fieldOf)
    if (typeof rule.options.data === 'object') {
      // hidden properties are never sent
      const props = [...new Set(rule.options.data)].map((name) => findProperty(name, meta, "'data'")).filter(({ hidden }) => hidden !== true)
      this.#sent = new Map(props.map((prop, i) => [prop.name, { ...fieldOf(prop), start: `${i === 0 ? '' : ','}${quote(prop.name)}:` }]))
    }
    this.readsBack = rule.options.readBack !== false
    const names = this.#names()
    const props = (names ?? []).map((name) => meta.properties[name]).filter((prop) => prop !== undefined)
    this.populate = [...rule.options.populate ?? [], ...props.filter(isLoadedApart).map(({ name }) => name)]
    this.fields = this.populate.length === 0 && props.every(isColumn) ? names : undefined
  }

  /** Whether the groups depend on more than the key, so that an update may move a row. */
  get needsRowBefore (): boolean {
    return this.#template === undefined || !this.#areKeys(this.#template.properties)
  }

  /** Whether the groups or the data depend on more than the key. */
  get needsDeletedRow (): boolean {
    const names = this.#names()
    return names === undefined || !this.#areKeys(names)
  }

  /** Whether the groups of a row that was read are those that the ORM held, and no changed property decides on them. */
  isInPlace (held: Row, read: Row, fields: readonly string[] | undefined): boolean {
    const template = this.#template
    if (template === undefined || fields === undefined || template.properties.some((name) => fields.includes(name))) return false
    try {
      return template.group(held) === template.group(read)
    } catch {
      // a property was not loaded
      return false
    }
  }

  #areKeys (names: readonly string[]): boolean {
    return names.every((name) => this.#meta.primaryKeys.includes(name))
  }

  /** The properties that the template and the data name; nothing where a function decides. */
  #names (): readonly string[] | undefined {
    if (this.#template === undefined) return
    const sendsKey = this.#rule.options.data === undefined && typeof this.#meta.prototype.getPushNotificationData !== 'function'
    if (this.#sent === undefined) return sendsKey ? [...this.#template.properties, ...this.#meta.primaryKeys] : undefined
    return [...this.#template.properties, ...this.#sent.keys()]
  }

  /** The groups that clients may subscribe to, as far as a template says. */
  get groups (): NotifiedGroups | undefined {
    const { type, uuids = [] } = this.#template ?? {}
    return type === undefined ? undefined : { type, uuids, entity: this.#meta.className }
  }

  /** What the groups are told of a row. Failures are reported and leave out what they concern. */
  notifications ({ type, before, after, fields }: CommittedChange): Notification[] {
    if (!this.#rule.types.includes(type)) return this.#drop('kind', type, after ?? before)

    const entered = after === undefined ? [] : this.#groups(after, type)
    if (entered === undefined) return []
    const left = before === undefined ? [] : this.#mayMove(before, after, fields) ? this.#groups(before, type) : entered
    if (entered.length === 0 && left?.length === 0) {
      return this.#drop(before === undefined && after === undefined ? 'short_lived' : 'no_group', type, after ?? before)
    }

    if (left === undefined || left === entered) return this.#tell('update', after, entered, fields)
    if (left.length === 0) return this.#tell('create', after, entered, fields)
    return [
      ...this.#tell('delete', before, left.filter((group) => !entered.includes(group)), fields),
      ...this.#tell('update', after, entered.filter((group) => left.includes(group)), fields),
      ...this.#tell('create', after, entered.filter((group) => !left.includes(group)), fields)
    ]
  }

  #tell (type: ChangeType, row: Row | undefined, groups: readonly string[], fields: readonly string[] | undefined): Notification[] {
    if (row === undefined || groups.length === 0) return []

    const object = this.#object(row, type, fields)
    if (object === null) return this.#drop('unchanged', type, row)
    return object === undefined ? [] : groups.map((group) => ({ entity: this.#meta.className, group, type, object }))
  }

  /** What stands in the place of notifications that are not sent. */
  #drop (reason: ChangeDropReason, type: ChangeType, row: Row | undefined): Notification[] {
    return this.#reportsDrops() ? [{ entity: this.#meta.className, group: '', type, object: '', drop: { reason, key: row?.key } }] : []
  }

  /** Whether the groups before a change may be others than those after it. */
  #mayMove (before: Row, after: Row | undefined, fields: readonly string[] | undefined): boolean {
    if (before === after) return false
    // another transaction, or a trigger, may have changed more than the flush says
    return after === undefined || this.readsBack || this.#template === undefined || fields === undefined || this.#template.properties.some((name) => fields.includes(name))
  }

  /** The groups of a row; nothing where they can't be told. */
  #groups (row: Row, type: ChangeType): readonly string[] | undefined {
    try {
      const given = this.#template === undefined ? this.#askForGroups(row, type) : this.#template.group(row)
      if (isGroupName(given)) return [given]

      const groups = new Set<unknown>(Array.isArray(given) ? given : [given ?? []].flat())
      for (const group of groups) {
        if (isGroupName(group)) continue
        groups.delete(group)
        this.#report(new errors.RP_ERR_INVALID_GROUP(show(group)), row, this.#rule)
      }
      return [...groups] as string[]
    } catch (error) {
      this.#report(error, row, this.#rule)
    }
  }

  #askForGroups (row: Row, type: ChangeType): unknown {
    const { group } = this.#rule.options
    if (typeof group === 'function') return settled('group', group(row.view, type))

    const entity: Announced = row.view
    if (typeof entity.getGroupName === 'function') return settled('getGroupName', entity.getGroupName(type))
    return parseTemplate(String(entity.groupName), this.#meta).group(row)
  }

  /** What is sent of a row, as JSON; `null` where it is not to be sent, nothing where that failed. */
  #object (row: Row, type: ChangeType, fields: readonly string[] | undefined): string | null | undefined {
    try {
      const isUpdate = type === 'update' && fields !== undefined
      if (this.#sent !== undefined) {
        if (isUpdate && this.#isUnchanged(fields, this.#sent)) return null
        return textOf(row, this.#sent, isUpdate && !this.#sent.has('updated_fields') ? this.#updated(fields) : '')
      }

      const data = this.#ask(row, type, fields?.filter((name) => this.#isVisible(name)) ?? [])
      const text = encode(data)
      if (!isUpdate) return text

      const names = new Set(text.startsWith('{') ? Object.keys(data as object) : [])
      if (this.#isUnchanged(fields, names)) return null
      if (!text.startsWith('{') || names.has('updated_fields')) return text
      return `${text.slice(0, -1)}${text === '{}' ? '' : ','}${this.#updated(fields)}}`
    } catch (error) {
      // of a row that is gone, its key is enough to remove it from a screen
      if (type === 'delete' && error instanceof NotLoadedError) return encode(this.#keyObject(row))
      this.#report(error, row, this.#rule)
    }
  }

  /** The named properties of the key; `{ id }` where there are none. */
  #keyObject (row: Row): object {
    const named = this.#key.filter(({ name }) => this.#sent?.has(name))
    return named.length === 0 ? { id: keyOf(row, this.#key) } : Object.fromEntries(named.map((field) => [field.name, row.value(field)]))
  }

  #isUnchanged (fields: readonly string[], sent: Names): boolean {
    return this.#rule.options.alwaysSend === false && !fields.some((name) => sent.has(name))
  }

  #isVisible (name: string): boolean {
    return this.#meta.properties[name]?.hidden !== true
  }

  /** What an update says of the properties that it changed. */
  #updated (fields: readonly string[]): string {
    let list = ''
    for (const name of fields) {
      if (this.#isVisible(name)) list += list === '' ? quote(name) : ',' + quote(name)
    }
    return `"updated_fields":[${list}]`
  }

  #ask (row: Row, type: ChangeType, updatedFields: string[]): unknown {
    const { data } = this.#rule.options
    if (typeof data === 'function') return settled('data', data(row.view, { type, updatedFields }))
    if (typeof this.#meta.prototype.getPushNotificationData !== 'function') return { id: keyOf(row, this.#key) }

    const entity = row.view as Required<Announced>
    return settled('getPushNotificationData', entity.getPushNotificationData(updatedFields, type))
  }
}

/** JSON text of some properties of a row. @param more what is sent beside them */
function textOf (row: Row, fields: ReadonlyMap<string, SentField>, more: string): string {
  let text = '{'
  for (const field of fields.values()) {
    const value = row.value(field)
    text += field.start
    if (typeof value === 'string') text += quote(value)
    else text += Number.isFinite(value) ? value : encode(value)
  }
  if (more !== '') text += fields.size === 0 ? more : ',' + more
  return text + '}'
}

/** A primary key as it is sent: a value, or an object of the key's properties. */
function keyOf (row: Row, fields: readonly RowField[]): unknown {
  const [only] = fields
  if (fields.length === 1 && only !== undefined) return row.value(only)
  return Object.fromEntries(fields.map((field) => [field.name, row.value(field)]))
}

/** A change of which nothing is sent, for those who want to know why. */
export function dropped (reason: ChangeDropReason, { meta: { className: entity }, key }: Row, type: ChangeType): Notification {
  return { entity, group: '', type, object: '', drop: { reason, key } }
}

/** The template that names the groups, unless a function or an instance does. @throws RP_ERR_INVALID_OPTION, RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY */
function findTemplate (rule: NotifyRule, meta: EntityMetadata): Template | undefined {
  const { group } = rule.options
  if (typeof group === 'string') return parseTemplate(group, meta)
  if (typeof group === 'function' || 'getGroupName' in meta.prototype) return undefined

  if ('groupName' in meta.prototype || 'groupName' in meta.properties) return undefined
  return parseTemplate(groupNameOf(meta) ?? `${meta.className.toLowerCase()}-{pk}`, meta)
}

/** The group name that a class declares as a static property or as a field. */
function groupNameOf (meta: EntityMetadata): string | undefined {
  const { groupName } = meta.class as Announced
  if (typeof groupName === 'string') return groupName

  try {
    // fields are not there on entities that the ORM loaded, as it does not call their constructor
    const { groupName } = Reflect.construct(meta.class as new () => Announced, [])
    return typeof groupName === 'string' ? groupName : undefined
  } catch {
    // a constructor that needs its arguments
    if (!mentionsGroupName(meta.class)) return
    throw new errors.RP_ERR_INVALID_OPTION('groupName', `a static property of ${meta.className}, whose constructor needs arguments`, 'a field')
  }
}

/** Whether a class, or one that it extends, may declare a field `groupName`. */
function mentionsGroupName (type: unknown): boolean {
  return typeof type === 'function' && (/\bgroupName\b/.test(String(type)) || mentionsGroupName(Object.getPrototypeOf(type)))
}

/** A value that a user's function gave, which must be there already. */
function settled (name: string, value: unknown): unknown {
  const promise = value as { then?: unknown } | null | undefined
  if (typeof promise !== 'object' || promise === null || typeof promise.then !== 'function') return value
  Promise.resolve(value).catch(() => {})
  throw new TypeError(`'${name}' gave a promise: it must be synchronous, as it runs within the flush`)
}
