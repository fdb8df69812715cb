/** A notification rule, compiled for one entity: makes the notifications of each group from the change of a row. */
import type { EntityMetadata } from '@mikro-orm/core'
import type { ChangeDropReason } from '../../diagnostics.ts'
import { errors, show } from '../../errors.ts'
import { encode, quote } from '../../protocol/encode.ts'
import { StampPart } from '../../protocol/stamp.ts'
import { isGroupName, type NotifiedGroups } from '../../protocol/group-name.ts'
import { fieldOf, isColumn, isPopulated, NotLoadedError, type RowField, type Row } from '../row.ts'
import { findTemplate, synchronous, type EntityMembers } from './entity-members.ts'
import { droppedNotification, type CommittedChange, type Notification } from './notification.ts'
import type { ChangeType, NotifyRule } from './rules.ts'
import { observedContext, stateKeyOf, statePartOf } from './state-part.ts'
import { findProperty, parseTemplate, type Template } from './template.ts'

/** A property that the option `data` names. */
interface SentField extends RowField {
  /** JSON text before its value: comma, name, colon. */
  readonly start: string
}

/** Reports an error because of which a rule makes no notification. Must not throw. */
export type ReportError = (error: unknown, row: Row, rule: NotifyRule) => void

/** A notification rule for one entity class. */
export class CompiledRule {
  readonly #rule: NotifyRule
  readonly #meta: EntityMetadata
  readonly #report: ReportError
  readonly #reportsDrops: () => boolean
  /** Group template; `undefined` if a function returns the groups. */
  readonly #template: Template | undefined
  /** Properties that are sent; `undefined` if a function returns the data, or by default the primary key. */
  readonly #sent: ReadonlyMap<string, SentField> | undefined
  readonly #key: readonly RowField[]
  /** The option `readBack`. */
  readonly readsBack: boolean
  /** Properties that the rule reads; `undefined` if a function may read any property. */
  readonly fields: readonly string[] | undefined
  /** Relations and lazy properties that must be loaded with the row. */
  readonly populate: readonly string[]
  /** `part` of the notifications of creates and updates, unless the data function reads its context. */
  readonly #part: string
  #hasReadContext = false
  readonly #onContextRead = () => { this.#hasReadContext = true }

  /**
   * @param index place among the rules of the entity
   * @param reportsDrops whether dropped changes are observed, so that they are returned
   * @throws RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
   */
  constructor (
    rule: NotifyRule,
    meta: EntityMetadata,
    index: number,
    report: ReportError,
    reportsDrops: () => boolean
  ) {
    this.#rule = rule
    this.#meta = meta
    this.#report = report
    this.#reportsDrops = reportsDrops
    this.#template = findTemplate(rule, meta)
    this.#key = meta.getPrimaryProps().map(fieldOf)
    if (typeof rule.options.data === 'object') {
      // hidden properties are never sent
      const props = [...new Set(rule.options.data)]
        .map((name) => findProperty(name, meta, "'data'"))
        .filter(({ hidden }) => hidden !== true)
      this.#sent = new Map(props.map((prop, i) => {
        return [prop.name, { ...fieldOf(prop), start: `${i === 0 ? '' : ','}${quote(prop.name)}:` }]
      }))
    }
    this.#part = statePartOf(rule, meta, index, this.#sent && [...this.#sent.keys()])
    this.readsBack = rule.options.readBack !== false
    const names = this.#names()
    const props = (names ?? []).map((name) => meta.properties[name]).filter((prop) => prop !== undefined)
    this.populate = [...rule.options.populate ?? [], ...props.filter(isPopulated).map(({ name }) => name)]
    this.fields = this.populate.length === 0 && props.every(isColumn) ? names : undefined
  }

  /** Whether the groups depend on more than the primary key, so that an update can move a row to another group. */
  get needsRowBefore (): boolean {
    return this.#template === undefined || !this.#areKeys(this.#template.properties)
  }

  /** Whether the groups or the data depend on more than the primary key. */
  get needsDeletedRow (): boolean {
    const names = this.#names()
    return names === undefined || !this.#areKeys(names)
  }

  /**
   * Whether an update leaves the row in its group: the template names no changed property, and gives the same for both
   * rows.
   */
  keepsGroup (held: Row, read: Row, fields: readonly string[] | undefined): boolean {
    const template = this.#template
    if (template === undefined || fields === undefined) return false
    if (template.properties.some((name) => fields.includes(name))) return false
    try {
      return template.group(held) === template.group(read)
    } catch {
      // a property is not loaded
      return false
    }
  }

  #areKeys (names: readonly string[]): boolean {
    return names.every((name) => this.#meta.primaryKeys.includes(name))
  }

  /** Properties that the template and the data name; `undefined` if a function returns either. */
  #names (): readonly string[] | undefined {
    if (this.#template === undefined) return
    if (this.#sent !== undefined) return [...this.#template.properties, ...this.#sent.keys()]
    const { getPushNotificationData } = this.#meta.prototype
    if (this.#rule.options.data !== undefined || typeof getPushNotificationData === 'function') return
    return [...this.#template.properties, ...this.#meta.primaryKeys]
  }

  /** Groups that clients can subscribe to, if the template names a group type. */
  get groups (): NotifiedGroups | undefined {
    const { type, uuids = [] } = this.#template ?? {}
    return type === undefined ? undefined : { type, uuids, entity: this.#meta.className }
  }

  /**
   * Makes the notifications of a change. An error in a function of the rule is reported, and its notification is left
   * out.
   */
  notifications ({ type, before, after, fields }: CommittedChange): Notification[] {
    if (!this.#rule.types.includes(type)) return this.#drop('kind', type, after ?? before)

    const groupsAfter = after === undefined ? [] : this.#groups(after, type)
    if (groupsAfter === undefined) return []
    const groupsBefore = before === undefined
      ? []
      : this.#mayMove(before, after, fields) ? this.#groups(before, type) : groupsAfter
    if (groupsAfter.length === 0 && groupsBefore?.length === 0) {
      return this.#drop(before === undefined && after === undefined ? 'short_lived' : 'no_group', type, after ?? before)
    }

    if (groupsBefore === undefined || groupsBefore === groupsAfter) {
      return this.#notify('update', after, groupsAfter, fields)
    }
    if (groupsBefore.length === 0) return this.#notify('create', after, groupsAfter, fields)
    return [
      ...this.#notify('delete', before, groupsBefore.filter((group) => !groupsAfter.includes(group)), fields),
      ...this.#notify('update', after, groupsAfter.filter((group) => groupsBefore.includes(group)), fields),
      ...this.#notify('create', after, groupsAfter.filter((group) => !groupsBefore.includes(group)), fields)
    ]
  }

  #notify (
    type: ChangeType,
    row: Row | undefined,
    groups: readonly string[],
    fields: readonly string[] | undefined
  ): Notification[] {
    if (row === undefined || groups.length === 0) return []

    this.#hasReadContext = false
    const object = this.#dataText(row, type, fields)
    if (object === null) return this.#drop('unchanged', type, row)
    if (object === undefined) return []
    const key = stateKeyOf(row)
    const part = type === 'delete' ? StampPart.All : this.#hasReadContext ? StampPart.Some : this.#part
    return groups.map((group) => ({ entity: this.#meta.className, group, type, object, key, part }))
  }

  /** Records a dropped change, if drops are observed. */
  #drop (reason: ChangeDropReason, type: ChangeType, row: Row | undefined): Notification[] {
    return this.#reportsDrops() ? [droppedNotification(reason, this.#meta.className, row?.key, type)] : []
  }

  /** Whether the row may have had other groups before the change. */
  #mayMove (before: Row, after: Row | undefined, fields: readonly string[] | undefined): boolean {
    if (before === after) return false
    // a trigger or another transaction may have changed other properties than the flush
    if (after === undefined || this.readsBack || this.#template === undefined || fields === undefined) return true
    return this.#template.properties.some((name) => fields.includes(name))
  }

  /** Groups of a row; `undefined` after an error. */
  #groups (row: Row, type: ChangeType): readonly string[] | undefined {
    try {
      const given = this.#template === undefined ? this.#callGroup(row, type) : this.#template.group(row)
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

  #callGroup (row: Row, type: ChangeType): unknown {
    const { group } = this.#rule.options
    if (typeof group === 'function') return synchronous('group', group(row.view, type))

    const entity: EntityMembers = row.view
    if (typeof entity.getGroupName === 'function') return synchronous('getGroupName', entity.getGroupName(type))
    return parseTemplate(String(entity.groupName), this.#meta).group(row)
  }

  /** Data of a row as JSON text; `null` if `alwaysSend: false` drops the update, `undefined` after an error. */
  #dataText (row: Row, type: ChangeType, fields: readonly string[] | undefined): string | null | undefined {
    try {
      const isUpdate = type === 'update' && fields !== undefined
      if (this.#sent !== undefined) {
        if (isUpdate && this.#isUnchanged(fields, this.#sent)) return null
        const hasUpdatedFields = isUpdate && !this.#sent.has('updated_fields')
        return encodeProperties(row, this.#sent, hasUpdatedFields ? this.#updatedFields(fields) : '')
      }

      const data = this.#callData(row, type, fields?.filter((name) => this.#isVisible(name)) ?? [])
      const text = encode(data)
      if (!isUpdate) return text

      const names = new Set(text.startsWith('{') ? Object.keys(data as object) : [])
      if (this.#isUnchanged(fields, names)) return null
      if (!text.startsWith('{') || names.has('updated_fields')) return text
      return `${text.slice(0, -1)}${text === '{}' ? '' : ','}${this.#updatedFields(fields)}}`
    } catch (error) {
      // clients need no more than the primary key to remove a deleted row
      if (type === 'delete' && error instanceof NotLoadedError) return encode(this.#keyObject(row))
      this.#report(error, row, this.#rule)
    }
  }

  /**
   * Data of a delete of which only the primary key is known: the properties of the key that `data` names, otherwise
   * `{ id }`.
   */
  #keyObject (row: Row): object {
    const named = this.#key.filter(({ name }) => this.#sent?.has(name))
    if (named.length === 0) return { id: keyOf(row, this.#key) }
    return Object.fromEntries(named.map((field) => [field.name, row.value(field)]))
  }

  #isUnchanged (fields: readonly string[], sent: Pick<ReadonlySet<string>, 'has'>): boolean {
    return this.#rule.options.alwaysSend === false && !fields.some((name) => sent.has(name))
  }

  #isVisible (name: string): boolean {
    return this.#meta.properties[name]?.hidden !== true
  }

  /** The JSON member `updated_fields`, without hidden properties. */
  #updatedFields (fields: readonly string[]): string {
    let list = ''
    for (const name of fields) {
      if (this.#isVisible(name)) list += list === '' ? quote(name) : ',' + quote(name)
    }
    return `"updated_fields":[${list}]`
  }

  #callData (row: Row, type: ChangeType, updatedFields: string[]): unknown {
    const { data } = this.#rule.options
    if (typeof data === 'function') {
      return synchronous('data', data(row.view, observedContext(type, updatedFields, this.#onContextRead)))
    }
    if (typeof this.#meta.prototype.getPushNotificationData !== 'function') return { id: keyOf(row, this.#key) }

    const entity = row.view as Required<EntityMembers>
    return synchronous('getPushNotificationData', entity.getPushNotificationData(updatedFields, type))
  }
}

/** JSON text of properties of a row. @param more a JSON member to add; empty for none */
function encodeProperties (row: Row, fields: ReadonlyMap<string, SentField>, more: string): string {
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

/** Primary key as JSON: its value, or an object with the properties of a composite key. */
function keyOf (row: Row, fields: readonly RowField[]): unknown {
  const [only] = fields
  if (fields.length === 1 && only !== undefined) return row.value(only)
  return Object.fromEntries(fields.map((field) => [field.name, row.value(field)]))
}
