/**
 * A row at one moment: as it was read, as a flush wrote it, or as MikroORM held it before. The entity in the
 * application's hands may have changed since.
 */
import {
  Collection,
  JsonType,
  PolymorphicRef,
  ReferenceKind,
  serialize,
  wrap,
  type EntityManager,
  type EntityMetadata,
  type EntityProperty
} from '@mikro-orm/core'

/** Column values by property, in the form in which MikroORM compares them: relations as keys, embeddables flattened. */
export type RowData = Readonly<Record<string, unknown>>

/** Error for a property that a rule reads and that was not loaded with the row. */
export class NotLoadedError extends Error {
  readonly property: string

  constructor (property: string) {
    super(`Property '${property}' is not loaded`)
    this.property = property
  }
}

/** A property that rules read from each row, prepared once. */
export interface RowField {
  readonly prop: EntityProperty
  readonly name: string
  /** Whether strings and numbers of the row data are the JSON value already, so that no serializer has to run. */
  readonly isPlain: boolean
}

/** Prepares a property for {@link Row.value}. */
export function fieldOf (prop: EntityProperty): RowField {
  return { prop, name: prop.name, isPlain: isPlain(prop) }
}

/**
 * MikroORM's snapshot of an entity (`__originalEntityData`), with which it computes change sets; `undefined` after a
 * delete.
 */
export function originalData (entity: object): RowData | undefined {
  return wrap(entity, true).__originalEntityData as RowData | undefined
}

/** Origin of the values of a {@link Row}, which decides which properties are known. */
export const RowSource = {
  /** An entity that was loaded for the rules only. */
  Read: 'read',
  /** The payload of an UPDATE and the snapshot: a property that is missing is not known. */
  Flush: 'flush',
  /** The payload of an INSERT: a property that is missing is `null`. */
  Insert: 'insert',
  /** The snapshot that MikroORM held before a flush. */
  Original: 'original',
  /** Columns that were read without making an entity. */
  Columns: 'columns',
  /** A primary key without a row. */
  Key: 'key'
} as const
export type RowSource = typeof RowSource[keyof typeof RowSource]

/** The known values of a row, and a view of it as an entity for the functions of rules. */
export class Row {
  readonly meta: EntityMetadata
  readonly data: RowData
  readonly #entity: object
  readonly #em: EntityManager
  readonly #source: RowSource
  #view: object | undefined

  constructor (meta: EntityMetadata, entity: object, data: RowData, em: EntityManager, source: RowSource) {
    this.meta = meta
    this.data = data
    this.#entity = entity
    this.#em = em
    this.#source = source
  }

  /** Primary key as text, the parts of a composite key joined with `~~~` as MikroORM does. */
  get key (): string {
    const { primaryKeys } = this.meta
    const [first = ''] = primaryKeys
    const value = this.data[first]
    if (primaryKeys.length === 1 && (typeof value === 'number' || typeof value === 'string')) return String(value)

    const parts = primaryKeys.map((name) => this.data[name])
    return parts.flat().join('~~~')
  }

  /** Primary key as a `where` condition takes it. */
  get primaryKey (): unknown {
    const platform = this.#em.getPlatform()
    const values = this.meta.getPrimaryProps().map(({ name, customType }) => {
      const value = this.data[name]
      return customType === undefined ? value : customType.convertToJSValue(value, platform)
    })
    return values.length === 1 ? values[0] : values
  }

  /** Primary key as values of its columns. */
  get databaseKey (): unknown[] {
    return this.meta.primaryKeys.map((name) => this.data[name]).flat()
  }

  /** Makes a row of the same table from columns that were read. */
  withColumns (data: RowData, meta: EntityMetadata): Row {
    return new Row(meta, this.#entity, data, this.#em, RowSource.Columns)
  }

  /** The row with its primary key only: all other properties count as not loaded. */
  get keyOnly (): Row {
    const data = Object.fromEntries(this.meta.primaryKeys.map((name) => [name, this.data[name]]))
    return new Row(this.meta, this.#entity, data, this.#em, RowSource.Key)
  }

  /** Schema that was set on the entity; `undefined` for the schema of the entity's metadata or of the ORM. */
  get schema (): string | undefined {
    return wrap(this.#entity, true).__schema
  }

  /** Schema of the row's table, including the default one. */
  get tableSchema (): string {
    const schema = this.schema ?? this.meta.schema ?? this.#em.config.get('schema')
    return schema ?? this.#em.getPlatform().getDefaultSchemaName() ?? ''
  }

  /** Identity of the row: table, schema and primary key. */
  get id (): string {
    return `${this.meta.root._id}:${this.schema ?? ''}:${this.key}`
  }

  /** Value of a property as it is sent as JSON, a relation as its key. @throws NotLoadedError */
  value ({ prop, name, isPlain }: RowField): unknown {
    const value = this.data[name]
    if (this.#source === RowSource.Columns) return value
    const isScalar = typeof value === 'string' || typeof value === 'number'
    if (isPlain && isScalar && !(this.#source === RowSource.Original && isGenerated(prop))) return value

    if (!this.#knows(prop)) throw new NotLoadedError(name)
    const [json] = Object.values(serialize(this.view, { fields: [name], includeHidden: true } as object))
    return json ?? null
  }

  /**
   * An entity with the values of this row: the entity itself if it has not changed since, otherwise an object that
   * inherits from it.
   */
  get view (): object {
    if (this.#view === undefined) {
      if (this.#isEntity()) return this.#entity
      this.#view = this.#makeView()
    }
    return this.#view
  }

  #knows (prop: EntityProperty): boolean {
    if (this.#source === RowSource.Read || prop.primary) return true
    if (this.#source === RowSource.Key) return false
    // the flush may have changed collections and generated values, and the snapshot has neither
    const isUnstable = prop.kind === ReferenceKind.MANY_TO_MANY || isGenerated(prop)
    if (this.#source === RowSource.Original && isUnstable) return false
    if (prop.formula !== undefined) return this.#isKnown(prop.name)
    if (this.#source === RowSource.Insert) return true
    if (prop.kind === ReferenceKind.ONE_TO_MANY || prop.kind === ReferenceKind.MANY_TO_MANY) {
      return isLoaded((this.#entity as Record<string, unknown>)[prop.name])
    }
    if (!this.meta.comparableProps.includes(prop)) return true
    return columnsOf(prop).every((name) => this.#isKnown(name))
  }

  #isKnown (name: string): boolean {
    if (name in this.data) return true
    // MikroORM clears the snapshot of a deleted entity, but not the list of its loaded properties
    return Object.keys(this.data).length > 0 && wrap(this.#entity, true).__loadedProperties.has(name)
  }

  #isEntity (): boolean {
    if (this.#source === RowSource.Read) return true
    if (this.#source === RowSource.Original || this.#source === RowSource.Key) return false

    const comparator = this.#em.getComparator()
    const now = comparator.prepareEntity(this.#entity)
    return comparator.matching(this.meta.class, now, this.data) &&
      this.meta.comparableProps.every((prop) => prop.embedded !== undefined || this.#knows(prop))
  }

  #makeView (): object {
    const { meta, data } = this
    const hydrated = Object.create(meta.prototype) as Record<string, unknown>
    const values: Record<string, unknown> = { ...data }
    for (const prop of meta.relations) delete values[prop.name]
    this.#parseJson(values)
    this.#em.config.getHydrator(this.#em.getMetadata())
      .hydrate(hydrated, meta, values, this.#em.getEntityFactory(), 'full', false, true)

    const view = Object.create(this.#entity) as object
    for (const prop of meta.props) {
      const { name } = prop
      // a computed property of the prototype reads from the view
      const isComputed = prop.persist === false && prop.formula === undefined
      if (prop.embedded !== undefined || isComputed || (prop.primary && !(name in data))) continue

      if (this.#knows(prop)) {
        const value = this.#valueIn(prop, hydrated)
        Object.defineProperty(view, name, { value, enumerable: true, writable: true, configurable: true })
      } else {
        Object.defineProperty(view, name, { get () { throw new NotLoadedError(name) } })
      }
    }
    // `wrap(view)` must give the view, not the entity
    const helper: unknown = Object.create(wrap(this.#entity, true), { entity: { value: view } })
    Object.defineProperty(view, '__helper', { value: helper })
    return view
  }

  /** Value of a known property for the view. @param hydrated an entity that was hydrated with the row data */
  #valueIn (prop: EntityProperty, hydrated: Record<string, unknown>): unknown {
    const { name } = prop
    if (!this.meta.comparableProps.includes(prop)) return (this.#entity as Record<string, unknown>)[name]
    const isReference = prop.kind === ReferenceKind.MANY_TO_ONE || prop.kind === ReferenceKind.ONE_TO_ONE
    return isReference ? this.#reference(prop, this.data[name]) : hydrated[name]
  }

  /**
   * Parses JSON columns: the row data has them as text, while a driver that parses JSON makes MikroORM expect values.
   */
  #parseJson (values: Record<string, unknown>): void {
    const platform = this.#em.getPlatform()
    if (!platform.convertsJsonAutomatically()) return

    for (const { name, kind, customType } of this.meta.comparableProps) {
      if (kind !== ReferenceKind.SCALAR || !(customType instanceof JsonType)) continue
      values[name] = customType.convertToJSValue(values[name], platform, { force: true, mode: 'hydration' })
    }
  }

  #reference (prop: EntityProperty, key: unknown): unknown {
    if (key === null || key === undefined || prop.mapToPk) return key

    const options = { wrapped: prop.ref === true, convertCustomTypes: true } as object
    if (key instanceof PolymorphicRef) {
      return this.#em.getReference(prop.discriminatorMap?.[key.discriminator] as never, key.id as never, options)
    }
    return this.#em.getReference(prop.targetMeta?.class as never, key as never, options)
  }
}

/** Whether a property is a column, so that a query can load it by name. */
export function isColumn ({ kind, persist, formula, lazy }: EntityProperty): boolean {
  const isStored = kind === ReferenceKind.SCALAR || kind === ReferenceKind.MANY_TO_ONE
  return isStored && persist !== false && formula === undefined && lazy !== true
}

/** Whether a query loads a property only if `populate` names it. */
export function isPopulated ({ kind, lazy }: EntityProperty): boolean {
  return kind === ReferenceKind.MANY_TO_MANY || kind === ReferenceKind.ONE_TO_MANY || lazy === true
}

function isLoaded (collection: unknown): collection is Collection<object> {
  return collection instanceof Collection && collection.isInitialized()
}

/** Whether MikroORM or the database generates a value when the row is written. */
function isGenerated ({ version, generated }: EntityProperty): boolean {
  return version === true || generated !== undefined
}

function isPlain (prop: EntityProperty): boolean {
  if (prop.customType !== undefined || prop.serializer !== undefined) return false
  if (prop.kind === ReferenceKind.SCALAR) return prop.runtimeType === 'string' || prop.runtimeType === 'number'
  return prop.kind === ReferenceKind.MANY_TO_ONE && prop.targetKey === undefined
}

/** Names of a property in the row data: its own, or those of the parts of a flattened embeddable. */
function columnsOf (prop: EntityProperty): string[] {
  if (prop.kind !== ReferenceKind.EMBEDDED || prop.object) return [prop.name]
  return Object.values(prop.embeddedProps).filter(({ persist }) => persist !== false).flatMap(columnsOf)
}
