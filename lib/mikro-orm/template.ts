/** Group templates such as `todo-{id}`: checked against an entity when they are declared, filled in for each row. */
import { ReferenceKind, type EntityMetadata, type EntityProperty } from '@mikro-orm/core'
import { errors } from '../errors.ts'
import { fieldOf, type Field, type Row } from './row.ts'

/** A part of a template: text, a property, or the schema. */
type Place = string | Field | typeof SCHEMA

/** Stands in a template for the schema of the row's table. */
const SCHEMA: unique symbol = Symbol('schema')

/** A template, ready for one entity. */
export interface Template {
  /** The properties that decide on the group. */
  readonly reads: readonly string[]
  /** The group of a row; `undefined` where a property that names it is `null`. */
  group (row: Row): string | undefined
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

  // the parts of a composite key have `:` between them; a table's schema is no property
  const places = parts.flatMap((part, i): Place[] => {
    if (i % 2 === 0) return [part]
    if (part === 'schema' && !Object.hasOwn(meta.properties, part)) return [SCHEMA]
    return propertiesOf(part, template, meta).flatMap((prop, j) => j === 0 ? [fieldOf(prop)] : [':', fieldOf(prop)])
  })
  return {
    reads: places.flatMap((place) => typeof place === 'object' ? place.name : []),
    group (row) {
      let name = ''
      for (const place of places) {
        if (typeof place === 'string') {
          name += place
        } else if (place === SCHEMA) {
          name += encodeKey(row.tableSchema)
        } else {
          const value = row.value(place)
          if (value === null) return undefined
          name += encodeKey(value)
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
  const { kind } = prop
  if (kind === ReferenceKind.EMBEDDED || kind === ReferenceKind.ONE_TO_MANY || kind === ReferenceKind.MANY_TO_MANY) {
    throw new errors.RP_ERR_INVALID_TEMPLATE(template, `values and relations to one, not ${kind} '${name}'`)
  }
  return [prop]
}

/** One value of a key as a part of a name: `:` stands between the parts of a composite key only. */
function encodeKey (value: unknown): string {
  if (Number.isSafeInteger(value)) return String(value)
  if (value instanceof Date) return encodeURIComponent(value.toISOString())
  if (typeof value === 'object' && value !== null) return Object.values(value).map(encodeKey).join(':')
  return encodeURIComponent(String(value))
}
