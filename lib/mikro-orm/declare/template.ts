/**
 * Group templates such as `todo-{id}`: parsed and checked against an entity once, filled in with the values of each
 * row.
 */
import {
  JsonType,
  PolymorphicRef,
  ReferenceKind,
  Utils,
  UuidType,
  type EntityMetadata,
  type EntityProperty
} from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { encode } from '../../protocol/encode.ts'
import { encodeKey, isUuid } from '../../protocol/group-name.ts'
import { fieldOf, type RowField, type Row } from '../row.ts'

/** Kinds of properties that have no value for a group name. */
const NO_VALUES: readonly ReferenceKind[] = [
  ReferenceKind.EMBEDDED, ReferenceKind.ONE_TO_MANY, ReferenceKind.MANY_TO_MANY
]

/** A parsed template for one entity. Two rows get the same group name only if all placeholders have the same values. */
export interface Template {
  /** Properties that the placeholders name. */
  readonly properties: readonly string[]
  /** Group type at the beginning of the names; `undefined` if clients cannot subscribe to such names. */
  readonly type: string | undefined
  /**
   * For each part of the id behind the group type, whether it is a UUID; empty if the id is not the key of one entity.
   */
  readonly uuids: readonly boolean[]
  /** Returns the group of a row; `undefined` if the value of a placeholder is `null`. */
  group (row: Row): string | undefined
}

/** A placeholder `{property}` of a template. */
interface PropertyPlaceholder extends RowField {
  /** For each column of the property's key, whether it stores UUIDs. */
  readonly uuids: readonly boolean[]
  /** Character behind the placeholder, which is escaped in its value; empty if nothing has to be escaped. */
  readonly end: string
}

/** The placeholder `{schema}`: the schema of the row's table. */
interface SchemaPlaceholder {
  readonly isSchema: true
  /** As in {@link PropertyPlaceholder}. */
  readonly end: string
}

/** A part of a template: a text or a placeholder. */
type TemplatePart = string | PropertyPlaceholder | SchemaPlaceholder

function isProperty (part: TemplatePart): part is PropertyPlaceholder {
  return typeof part === 'object' && !('isSchema' in part)
}

/** Parses a template for an entity. @throws RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY */
export function parseTemplate (template: string, meta: EntityMetadata): Template {
  // texts have even indexes, property names odd ones
  const tokens = template.split(/\{([^{}]*)\}/)
  const texts = tokens.filter((_, i) => i % 2 === 0)
  if (template === '' || !/^[\x21-\x7e]*$/.test(texts.join('')) || /[{}]/.test(texts.join(''))) {
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, 'printable ASCII without spaces, with a } for each {')
  }

  if (template.includes('${')) throw new errors.RP_ERR_INVALID_TEMPLATE(template, '{name} without a $ before it')
  if (texts.slice(1, -1).some((text) => text === '' || text.startsWith('%'))) {
    const expected = "a text between two placeholders, such as ':', that does not begin with '%'"
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, expected)
  }

  const parts = tokens.flatMap((token, i): TemplatePart[] => {
    if (i % 2 === 0) return token === '' ? [] : [token]
    const end = i === tokens.length - 2 ? '' : endOf(String(tokens[i + 1]))
    // an entity may have a property of this name
    if (token === 'schema' && !Object.hasOwn(meta.properties, token)) return [{ isSchema: true, end }]
    const placeholders = propertiesOf(token, template, meta).map((prop) => placeholderOf(prop, end))
    return placeholders.flatMap((placeholder, j) => j === 0 ? [placeholder] : [':', placeholder])
  })
  const [, type, dash] = /^([A-Za-z][\w.]*)(-|$)/.exec(String(parts[0])) ?? []
  const ids = parts.slice(1)
  return {
    properties: parts.flatMap((part) => isProperty(part) ? part.name : []),
    type: dash === '' && ids.length > 0 ? undefined : type,
    uuids: parts[0] === `${type}-` && ids.every((id) => isProperty(id) || id === ':')
      ? ids.flatMap((id) => isProperty(id) ? id.uuids : [])
      : [],
    group (row) {
      let name = ''
      for (const part of parts) {
        if (typeof part === 'string') {
          name += part
        } else if ('isSchema' in part) {
          name += escapeAll(encodeKey(row.tableSchema), part.end)
        } else {
          const value = row.value(part)
          // fast path for integers, the most common keys
          const isInteger = Number.isSafeInteger(value) && part.prop.polymorphic !== true
          const text = isInteger
            ? escapeAll(String(value), part.end)
            : joinValues(keysOf(value, part.prop, row.data[part.name]), part)
          if (text === undefined) return undefined
          name += text
        }
      }
      return name
    }
  }
}

/**
 * Finds a property of an entity.
 *
 * @param where what names the property, for the error
 * @throws RP_ERR_UNKNOWN_PROPERTY
 */
export function findProperty (name: string, meta: EntityMetadata, where: string): EntityProperty {
  const prop = Object.hasOwn(meta.properties, name) ? meta.properties[name] : undefined
  // MikroORM lists the parts of embeddables as properties
  if (prop === undefined || prop.embedded !== undefined) {
    throw new errors.RP_ERR_UNKNOWN_PROPERTY(name, meta.className, where)
  }
  return prop
}

function propertiesOf (name: string, template: string, meta: EntityMetadata): EntityProperty[] {
  if (name === 'pk') return meta.getPrimaryProps()

  const prop = findProperty(name, meta, `the group template '${template}'`)
  const { kind, customType } = prop
  // a JSON value has several texts: a database may reorder the keys of an object
  const isJson = customType instanceof JsonType
  if (isJson || NO_VALUES.includes(kind)) {
    const expected = `placeholders for values and to-one relations, not for ${isJson ? 'JSON' : kind} '${name}'`
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, expected)
  }
  return [prop]
}

/** First character of the text behind a placeholder, unless `encodeURIComponent` escapes it anyway. */
function endOf (text: string): string {
  const end = text.charAt(0)
  return encodeURIComponent(end) === end ? end : ''
}

function placeholderOf (prop: EntityProperty, end: string): PropertyPlaceholder {
  const columns = columnsOf(prop)
  return { ...fieldOf(prop), uuids: columns.map(holdsUuids), end }
}

/**
 * Properties that store a placeholder's value: the property itself, or the primary key of the entity that a relation
 * refers to.
 */
function columnsOf (prop: EntityProperty): EntityProperty[] {
  if (prop.targetMeta === undefined || prop.polymorphic === true) return [prop]
  return prop.targetMeta.getPrimaryProps().flatMap(columnsOf)
}

function holdsUuids ({ customType, columnTypes = [] }: EntityProperty): boolean {
  return customType instanceof UuidType || columnTypes[0] === 'uuid'
}

/**
 * Values of a placeholder: several for a relation to an entity with a composite key.
 *
 * @param ref the value in the row data. For a polymorphic relation it has the discriminator, as entities of two classes
 * may have the same key.
 */
function keysOf (value: unknown, { targetMeta }: EntityProperty, ref?: unknown): unknown[] {
  if (targetMeta === undefined) return [value]
  if (ref instanceof PolymorphicRef) return [ref.discriminator, ...[ref.id].flat()]
  if (Array.isArray(value)) return value.flat(Infinity)
  if (!Utils.isPlainObject(value)) return [value]
  return targetMeta.getPrimaryProps().flatMap((key) => keysOf((value as Record<string, unknown>)[key.name], key))
}

/** Writes the values of a placeholder, joined with `:`; `undefined` if a value is `null`. */
function joinValues (keys: unknown[], { uuids, end }: PropertyPlaceholder): string | undefined {
  if (keys.includes(null)) return undefined
  return keys.map((key, part) => {
    const text = valueText(key)
    if (uuids[part] !== true) return escapeAll(encodeKey(text), end)
    if (isUuid(text)) return end === '-' ? text.toLowerCase() : escapeAll(text.toLowerCase(), end)
    // the dashes of a UUID are not escaped, so another text in the column must not look like one: its hexadecimal
    // digits are escaped
    return escapeAll(encodeKey(text), end === '-' ? '-0123456789abcdefABCDEF' : end)
  }).join(':')
}

/** Text of a value: a string as it is, any other value as JSON without quotes. */
function valueText (value: unknown): string {
  if (typeof value === 'string') return value
  const json = encode(value)
  return json.startsWith('"') ? JSON.parse(json) : json
}

/** Percent-escapes characters in a text that is URL-encoded already, and keeps its escapes. */
function escapeAll (text: string, characters: string): string {
  if (characters === '') return text
  return text.replace(/%..|[^%]/g, (token) => {
    return characters.includes(token) ? `%${token.charCodeAt(0).toString(16).toUpperCase()}` : token
  })
}
