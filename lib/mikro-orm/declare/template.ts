/** Group templates such as `todo-{id}`: checked against an entity when they are declared, filled in for each row. */
import { JsonType, PolymorphicRef, ReferenceKind, Utils, UuidType, type EntityMetadata, type EntityProperty } from '@mikro-orm/core'
import { errors } from '../../errors.ts'
import { encode } from '../../protocol/encode.ts'
import { encodeKey, isUuid } from '../../protocol/group-name.ts'
import { fieldOf, type RowField, type Row } from '../row.ts'

/** A template, ready for one entity. Two rows get one name only if all values in it are the same. */
export interface Template {
  /** The properties that decide on the group. */
  readonly properties: readonly string[]
  /** The group type that the names begin with; `undefined` if no client can subscribe to such names. */
  readonly type: string | undefined
  /** Which parts of the id behind the type are UUIDs; empty if the id does not have the form of a key. */
  readonly uuids: readonly boolean[]
  /** The group of a row; `undefined` where a property that names it is `null`. */
  group (row: Row): string | undefined
}

/** A property in a template. */
interface Place extends RowField {
  /** For each part of the property's key, whether its column is one of UUIDs. */
  readonly uuids: readonly boolean[]
  /** The character that ends the value and must not occur in it; empty where nothing has to be escaped. */
  readonly end: string
}

/** The schema of the row's table in a template. */
interface SchemaPlace {
  readonly isSchema: true
  /** See {@link Place}. */
  readonly end: string
}

function isProperty (place: string | Place | SchemaPlace): place is Place {
  return typeof place === 'object' && !('isSchema' in place)
}

/** @throws RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY */
export function parseTemplate (template: string, meta: EntityMetadata): Template {
  // texts at even places, property names at odd ones
  const parts = template.split(/\{([^{}]*)\}/)
  const texts = parts.filter((_, i) => i % 2 === 0)
  if (template === '' || !/^[\x21-\x7e]*$/.test(texts.join('')) || /[{}]/.test(texts.join(''))) {
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, 'printable ASCII without spaces, each { closed by a }')
  }

  if (template.includes('${')) throw new errors.RP_ERR_INVALID_TEMPLATE(template, '{name} without a $ before it')
  if (texts.slice(1, -1).some((text) => text === '' || text.startsWith('%'))) {
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, "a text between two values, such as ':', that does not begin with '%'")
  }

  // the parts of a composite key have `:` between them; the schema of a table is no property
  const places = parts.flatMap((part, i): Array<string | Place | SchemaPlace> => {
    if (i % 2 === 0) return part === '' ? [] : [part]
    const end = i === parts.length - 2 ? '' : endOf(String(parts[i + 1]))
    if (part === 'schema' && !Object.hasOwn(meta.properties, part)) return [{ isSchema: true, end }]
    return propertiesOf(part, template, meta).flatMap((prop, j) => j === 0 ? [placeOf(prop, end)] : [':', placeOf(prop, end)])
  })
  const [, type, dash] = /^([A-Za-z][\w.]*)(-|$)/.exec(String(places[0])) ?? []
  const ids = places.slice(1)
  return {
    properties: places.flatMap((place) => isProperty(place) ? place.name : []),
    type: dash === '' && ids.length > 0 ? undefined : type,
    uuids: places[0] === `${type}-` && ids.every((id) => isProperty(id) || id === ':')
      ? ids.flatMap((id) => isProperty(id) ? id.uuids : [])
      : [],
    group (row) {
      let name = ''
      for (const place of places) {
        if (typeof place === 'string') {
          name += place
        } else if ('isSchema' in place) {
          name += escapeAll(encodeKey(row.tableSchema), place.end)
        } else {
          const value = row.value(place)
          // the shortest way for the most common values
          const isNumber = Number.isSafeInteger(value) && place.prop.polymorphic !== true
          const text = isNumber ? escapeAll(String(value), place.end) : write(keysOf(value, place.prop, row.data[place.name]), place)
          if (text === undefined) return undefined
          name += text
        }
      }
      return name
    }
  }
}

/** A property by its name. @throws RP_ERR_UNKNOWN_PROPERTY, which says where the name comes from */
export function findProperty (name: string, meta: EntityMetadata, where: string): EntityProperty {
  const prop = Object.hasOwn(meta.properties, name) ? meta.properties[name] : undefined
  // parts of embeddables are listed as properties too
  if (prop === undefined || prop.embedded !== undefined) throw new errors.RP_ERR_UNKNOWN_PROPERTY(name, meta.className, where)
  return prop
}

function propertiesOf (name: string, template: string, meta: EntityMetadata): EntityProperty[] {
  if (name === 'pk') return meta.getPrimaryProps()

  const prop = findProperty(name, meta, `the group template '${template}'`)
  const { kind, customType } = prop
  // one JSON value has several texts: a database may order the keys of an object
  const isJson = customType instanceof JsonType
  if (isJson || kind === ReferenceKind.EMBEDDED || kind === ReferenceKind.ONE_TO_MANY || kind === ReferenceKind.MANY_TO_MANY) {
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, `values and relations to one, not ${isJson ? 'JSON' : kind} '${name}'`)
  }
  return [prop]
}

/** The character that ends a value, if `encodeURIComponent` may leave it in the value. */
function endOf (text: string): string {
  const end = text.charAt(0)
  return encodeURIComponent(end) === end ? end : ''
}

function placeOf (prop: EntityProperty, end: string): Place {
  const columns = columnsOf(prop)
  return { ...fieldOf(prop), uuids: columns.map(holdsUuids), end }
}

/** The properties that hold the values of a property's key: for a relation those of the other entity's key. */
function columnsOf (prop: EntityProperty): EntityProperty[] {
  if (prop.targetMeta === undefined || prop.polymorphic === true) return [prop]
  return prop.targetMeta.getPrimaryProps().flatMap(columnsOf)
}

function holdsUuids ({ customType, columnTypes = [] }: EntityProperty): boolean {
  return customType instanceof UuidType || columnTypes[0] === 'uuid'
}

/**
 * The values of a property, several for a relation with a composite key.
 *
 * @param ref what the ORM compares: it tells the kind of the other entity, of which there may be several with the same key
 */
function keysOf (value: unknown, { targetMeta }: EntityProperty, ref?: unknown): unknown[] {
  if (targetMeta === undefined) return [value]
  if (ref instanceof PolymorphicRef) return [ref.discriminator, ...[ref.id].flat()]
  if (Array.isArray(value)) return value.flat(Infinity)
  if (!Utils.isPlainObject(value)) return [value]
  return targetMeta.getPrimaryProps().flatMap((key) => keysOf((value as Record<string, unknown>)[key.name], key))
}

/** Writes the values of one property with `:` between them; `undefined` if one of them is `null`. */
function write (keys: unknown[], { uuids, end }: Place): string | undefined {
  if (keys.includes(null)) return undefined
  return keys.map((key, part) => {
    const text = textOf(key)
    if (uuids[part] !== true) return escapeAll(encodeKey(text), end)
    if (isUuid(text)) return end === '-' ? text.toLowerCase() : escapeAll(text.toLowerCase(), end)
    // a UUID keeps its dashes and begins with a hexadecimal digit, so nothing else in the column may begin with one
    return escapeAll(encodeKey(text), end === '-' ? '-0123456789abcdefABCDEF' : end)
  }).join(':')
}

/** A value as JSON has it: the text of a string, without quotes, else the JSON text. */
function textOf (value: unknown): string {
  if (typeof value === 'string') return value
  const json = encode(value)
  return json.startsWith('"') ? JSON.parse(json) : json
}

/** Escapes characters in a value that is encoded as in a URL, and leaves its escapes as they are. */
function escapeAll (text: string, characters: string): string {
  if (characters === '') return text
  return text.replace(/%..|[^%]/g, (token) => characters.includes(token) ? `%${token.charCodeAt(0).toString(16).toUpperCase()}` : token)
}
