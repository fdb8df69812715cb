/** A row of the database, as it was read or as a flush wrote it. The entity that the application holds may say something else. */
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

/** Values by property as the ORM compares them: database values, relations as keys, embeddables flattened. */
export type RowData = Readonly<Record<string, unknown>>

/** A property is needed that was not loaded with the entity. */
export class NotLoadedError extends Error {
  readonly property: string

  constructor (property: string) {
    super(`Property '${property}' is not loaded`)
    this.property = property
  }
}

/** A property that rules read of each row, with what is known of it before. */
export interface RowField {
  readonly prop: EntityProperty
  readonly name: string
  /** Whether texts and numbers are sent as the ORM compares them. */
  readonly isPlain: boolean
}

/** Makes a property ready to be read. */
export function fieldOf (prop: EntityProperty): RowField {
  return { prop, name: prop.name, isPlain: isPlain(prop) }
}

/** The properties by which the ORM compares an entity with its row; `undefined` once the entity is deleted. */
export function originalData (entity: object): RowData | undefined {
  return wrap(entity, true).__originalEntityData as RowData | undefined
}

/** Where the values of a {@link Row} come from. */
export const RowSource = {
  /** An entity that was loaded for this purpose: nobody else has it. */
  Read: 'read',
  /** A flush; what the data lacks is unknown. */
  Flush: 'flush',
  /** A flush that inserted the row; what the data lacks is `null`. */
  Insert: 'insert',
  /** What the ORM held of the row before a flush. */
  Original: 'original',
  /** Some columns that were read. */
  Columns: 'columns',
  /** A key, of which no row is known. */
  Key: 'key'
} as const
export type RowSource = typeof RowSource[keyof typeof RowSource]

/** What is known of a row at one moment. */
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

  /** The primary key as text. */
  get key (): string {
    const { primaryKeys } = this.meta
    const [first = ''] = primaryKeys
    const value = this.data[first]
    if (primaryKeys.length === 1 && (typeof value === 'number' || typeof value === 'string')) return String(value)

    const parts = primaryKeys.map((name) => this.data[name])
    return parts.flat().join('~~~')
  }

  /** The primary key as a condition of a query has it. */
  get primaryKey (): unknown {
    const platform = this.#em.getPlatform()
    const values = this.meta.getPrimaryProps().map(({ name, customType }) => {
      const value = this.data[name]
      return customType === undefined ? value : customType.convertToJSValue(value, platform)
    })
    return values.length === 1 ? values[0] : values
  }

  /** The primary key as the columns have it. */
  get databaseKey (): unknown[] {
    return this.meta.primaryKeys.map((name) => this.data[name]).flat()
  }

  /** A row of the same table, of which some columns were read. */
  withColumns (data: RowData, meta: EntityMetadata): Row {
    return new Row(meta, this.#entity, data, this.#em, RowSource.Columns)
  }

  /** The key alone: all other properties count as not loaded. */
  get keyOnly (): Row {
    const data = Object.fromEntries(this.meta.primaryKeys.map((name) => [name, this.data[name]]))
    return new Row(this.meta, this.#entity, data, this.#em, RowSource.Key)
  }

  /** The schema of the row's table; `undefined` for that of the ORM or of the entity. */
  get schema (): string | undefined {
    return wrap(this.#entity, true).__schema
  }

  /** The schema in which the row's table is, also where it is the default one. */
  get tableSchema (): string {
    return this.schema ?? this.meta.schema ?? this.#em.config.get('schema') ?? this.#em.getPlatform().getDefaultSchemaName() ?? ''
  }

  /** What tells the row from all others. */
  get id (): string {
    return `${this.meta.root._id}:${this.schema ?? ''}:${this.key}`
  }

  /** One property as JSON has it, a relation as its key. @throws NotLoadedError */
  value ({ prop, name, isPlain }: RowField): unknown {
    const value = this.data[name]
    if (this.#source === RowSource.Columns) return value
    if (isPlain && (typeof value === 'string' || typeof value === 'number') && !(this.#source === RowSource.Original && isMade(prop))) return value

    if (!this.#knows(prop)) throw new NotLoadedError(name)
    const [json] = Object.values(serialize(this.view, { fields: [name], includeHidden: true } as object))
    return json ?? null
  }

  /** The entity as it was then: itself where it still says the same, else a view of it. */
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
    // the flush may have changed the collection and what the database makes, and the ORM keeps no copy of either
    if (this.#source === RowSource.Original && (prop.kind === ReferenceKind.MANY_TO_MANY || isMade(prop))) return false
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
    // of a row of which the ORM holds nothing any more, what was loaded once says nothing
    return Object.keys(this.data).length > 0 && wrap(this.#entity, true).__loadedProperties.has(name)
  }

  #isEntity (): boolean {
    if (this.#source === RowSource.Read) return true
    if (this.#source === RowSource.Original || this.#source === RowSource.Key) return false

    const comparator = this.#em.getComparator()
    const now = comparator.prepareEntity(this.#entity)
    return comparator.matching(this.meta.class, now, this.data) && this.meta.comparableProps.every((prop) => prop.embedded !== undefined || this.#knows(prop))
  }

  #makeView (): object {
    const { meta, data } = this
    const blank = Object.create(meta.prototype) as Record<string, unknown>
    const values: Record<string, unknown> = { ...data }
    for (const prop of meta.relations) delete values[prop.name]
    this.#parseJson(values)
    this.#em.config.getHydrator(this.#em.getMetadata())
      .hydrate(blank, meta, values, this.#em.getEntityFactory(), 'full', false, true)

    const view = Object.create(this.#entity) as object
    for (const prop of meta.props) {
      const { name } = prop
      // what is computed is computed from the view
      if (prop.embedded !== undefined || (prop.persist === false && prop.formula === undefined) || (prop.primary && !(name in data))) continue

      if (this.#knows(prop)) {
        Object.defineProperty(view, name, { value: this.#valueIn(prop, blank), enumerable: true, writable: true, configurable: true })
      } else {
        Object.defineProperty(view, name, { get () { throw new NotLoadedError(name) } })
      }
    }
    // `wrap(view)` must not lead back to the entity
    Object.defineProperty(view, '__helper', { value: Object.create(wrap(this.#entity, true), { entity: { value: view } }) })
    return view
  }

  /** The value of a property that is known, of which `blank` has what is compared. */
  #valueIn (prop: EntityProperty, blank: Record<string, unknown>): unknown {
    const { name } = prop
    if (!this.meta.comparableProps.includes(prop)) return (this.#entity as Record<string, unknown>)[name]
    return prop.kind === ReferenceKind.MANY_TO_ONE || prop.kind === ReferenceKind.ONE_TO_ONE ? this.#reference(prop, this.data[name]) : blank[name]
  }

  /** What is compared is JSON text, where drivers that parse it themselves give values. */
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
    if (!(key instanceof PolymorphicRef)) return this.#em.getReference(prop.targetMeta?.class as never, key as never, options)
    return this.#em.getReference(prop.discriminatorMap?.[key.discriminator] as never, key.id as never, options)
  }
}

/** Whether a property is a column, which a query may name to load it. */
export function isColumn ({ kind, persist, formula, lazy }: EntityProperty): boolean {
  return (kind === ReferenceKind.SCALAR || kind === ReferenceKind.MANY_TO_ONE) && persist !== false && formula === undefined && lazy !== true
}

/** Whether a property is not loaded with its row unless a query asks for it. */
export function isLoadedApart ({ kind, lazy }: EntityProperty): boolean {
  return kind === ReferenceKind.MANY_TO_MANY || kind === ReferenceKind.ONE_TO_MANY || lazy === true
}

function isLoaded (collection: unknown): collection is Collection<object> {
  return collection instanceof Collection && collection.isInitialized()
}

/** Whether a value is made with the row, by the ORM or by the database. */
function isMade ({ version, generated }: EntityProperty): boolean {
  return version === true || generated !== undefined
}

function isPlain (prop: EntityProperty): boolean {
  if (prop.customType !== undefined || prop.serializer !== undefined) return false
  if (prop.kind === ReferenceKind.SCALAR) return prop.runtimeType === 'string' || prop.runtimeType === 'number'
  return prop.kind === ReferenceKind.MANY_TO_ONE && prop.targetKey === undefined
}

/** The names under which the ORM compares a property: its own, or those of the parts of an embeddable. */
function columnsOf (prop: EntityProperty): string[] {
  if (prop.kind !== ReferenceKind.EMBEDDED || prop.object) return [prop.name]
  return Object.values(prop.embeddedProps).filter(({ persist }) => persist !== false).flatMap(columnsOf)
}
